"""Constants that a step makes anew: those of batch normalisation and dropout. Both become a scale (and a shift)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphs.ir import Graph, Node


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of value `source` (1, C, *space) by the module at `path`: constants `factor` and `offset`,
    both of shape `tall` (C, 1, ...), from its parameters (C,) or None, running statistics (C,) or None, eps, momentum.
    """

    path: str
    source: str
    factor: str
    offset: str
    tall: tuple[int, ...]
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    variance: Tensor | None
    eps: float
    momentum: float

    def constants(self) -> dict[str, Tensor]:
        """From the running statistics."""
        assert self.mean is not None and self.variance is not None
        return self._of(self.mean, (self.variance + self.eps).rsqrt())

    def normalised(self, x: Tensor, *, move: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch x (B, *N) normalised by its own statistics, constants that do the same; `move`: they move the running
        ones, as torch does it.
        """
        running = (self.mean, self.variance) if move else (None, None)
        given = x, self.weight, self.bias, running, (self.momentum, self.eps)
        z, mean, rate = Normalise.apply(*given)  # type: ignore[no-untyped-call]
        return z, self._of(mean, rate)

    def _of(self, mean: Tensor, rate: Tensor) -> dict[str, Tensor]:
        factor = rate if self.weight is None else rate * self.weight
        offset = -mean * factor if self.bias is None else self.bias - mean * factor
        found = {self.factor: factor, self.offset: offset, self.rate: rate, self.center: -mean * rate}
        return {name: constant.reshape(self.tall) for name, constant in found.items()}

    @property
    def rate(self) -> str:
        """The constant that scales what `weight` and `bias` then scale and shift."""
        return f"{self.factor}.rate"

    @property
    def center(self) -> str:
        """The constant that shifts it."""
        return f"{self.factor}.center"


class Normalise(torch.autograd.Function):
    """Torch's batch normalisation, whose mean and rate 1 / sqrt(variance + eps) have gradients too: a quarter of the
    walks through memory that the formulas take.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, running: Running, how: Any) -> Any:
        """Of a batch (B, 1, C, *space)."""
        flat = x.flatten(0, 1)
        z, mean, rate = torch.native_batch_norm(flat, weight, bias, *running, True, *how)
        ctx.eps = how[1]
        ctx.save_for_backward(x, weight, mean, rate)
        return z.reshape(x.shape), mean, rate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """d mean / d x = 1 / n, and d rate / d x = -rate^3 (x - mean) / n."""
        x, weight, mean, rate = ctx.saved_tensors
        flat, (g, of_mean, of_rate) = x.flatten(0, 1), grads
        wanted = ctx.needs_input_grad[:3]
        back = torch.ops.aten.native_batch_norm_backward
        found = back(g.flatten(0, 1), flat, weight, None, None, mean, rate, True, ctx.eps, wanted)
        of_x, of_weight, of_bias = (part if want else None for part, want in zip(found, wanted, strict=True))
        if of_x is not None:
            tall = (len(mean), *(1 for _ in flat.shape[2:]))
            count = flat.numel() // len(mean)
            slope = of_rate * rate**3 / -count
            of_x.addcmul_(flat, slope.reshape(tall)).add_((of_mean / count - slope * mean).reshape(tall))
            of_x = of_x.reshape(x.shape)
        return of_x, of_weight, of_bias, None, None


Running = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Dropout:
    """Dropout of value `source` by the module at `path`: the constant `factor`, one mask for the whole batch."""

    path: str
    source: str
    factor: str
    share: float

    def constants(self) -> dict[str, Tensor]:
        """In evaluation nothing is left out."""
        return {}

    def drawn(self, x: Tensor) -> dict[str, Tensor]:
        """A new mask for samples like x (B, *N), scaled so that the mean stays."""
        kept = torch.rand_like(x[0]) >= self.share
        return {self.factor: kept.to(x) / (1 - self.share)}


def folded(graph: Graph, parts: Sequence[BatchNorm | Dropout]) -> Graph:
    """The graph with batch normalisation as part of the layer before it, where nothing else reads that layer: then no
    bound has to walk through it.
    """
    nodes, constants, readers = dict(graph.nodes), dict(graph.constants), graph.consumers()
    for part in parts:
        layer = nodes[part.source]
        if not isinstance(part, BatchNorm) or layer.op not in ("conv", "linear") or len(readers[layer.name]) > 1:
            continue
        if layer.shape[1] != part.tall[0] or layer.name in graph.outputs:
            continue
        scale = readers[layer.name][0]
        shift = readers[scale.name][0]
        factor, offset = constants[part.factor].flatten(), constants[part.offset].flatten()
        weight, bias = constants[layer.params["weight"]], layer.params.get("bias")
        names = {"weight": f"{shift.name}.weight", "bias": f"{shift.name}.bias"}
        constants[names["weight"]] = weight * factor.reshape(-1, *(1 for _ in weight.shape[1:]))
        constants[names["bias"]] = offset if bias is None else torch.addcmul(offset, constants[bias], factor)
        nodes[shift.name] = Node(shift.name, layer.op, layer.inputs, names, layer.attrs, shift.shape, layer.origin)
        del nodes[layer.name], nodes[scale.name]
    return replace(graph, nodes=nodes, constants=constants)
