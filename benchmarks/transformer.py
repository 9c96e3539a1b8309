"""The parts of a transformer block for the comparisons: each as a torch module and as nodes of our graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from graphs import GraphBuilder

Dense = Callable[[str, str], str]  # adds the named linear layer to a value


class Attention(nn.Module):
    """Self-attention of tokens (batch, T, D) with heads of D / heads numbers each; q, k, v, o are linear layers."""

    def __init__(self, q: nn.Linear, k: nn.Linear, v: nn.Linear, o: nn.Linear, heads: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o, self.heads = q, k, v, o, heads

    @property
    def factor(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return float((self.q.out_features / self.heads) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """o(softmax(q k^T / sqrt(D / heads)) v), head by head."""
        shape = (x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads)
        q, k, v = (layer(x).reshape(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        share = torch.softmax(torch.matmul(q, k.transpose(2, 3)) * self.factor, 3)
        return self.o(torch.matmul(share, v).transpose(1, 2).reshape(x.shape))

    def add(self, builder: GraphBuilder, x: str, dense: Dense) -> str:
        """The same as nodes on a value of shape (1, T, D)."""
        _, tokens, size = builder.nodes[x].shape
        split, swap = {"shape": (1, tokens, self.heads, size // self.heads)}, {"perm": (0, 2, 1, 3)}

        def head(name: str) -> str:
            return builder.add("transpose", [builder.add("reshape", [dense(name, x)], attrs=split)], attrs=swap)

        q, k, v = (head(name) for name in "qkv")
        scores = builder.add("matmul", [q, builder.add("transpose", [k], attrs={"perm": (0, 1, 3, 2)})])
        scores = builder.add("scale", [scores], {"factor": torch.tensor(self.factor, dtype=torch.float64)})
        mixed = builder.add("matmul", [builder.add("softmax", [scores], attrs={"axis": 3}), v])
        mixed = builder.add("transpose", [mixed], attrs=swap)
        return dense("o", builder.add("reshape", [mixed], attrs={"shape": (1, tokens, size)}))


class MeanOfTokens(nn.Module):
    """Tokens (batch, T, D) to their mean (batch, D)."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean over axis 1."""
        return x.mean(1)

    def add(self, builder: GraphBuilder, x: str) -> str:
        """The same as a node on a value of shape (1, T, D)."""
        return builder.add("mean", [x], attrs={"axes": (1,)})
