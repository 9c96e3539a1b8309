"""Attention whose weights may come from softmax, StableMax, softplus, sigmoids or a Gaussian kernel.

Shape letters: B samples, H heads, n tokens, d numbers of a token in a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from verif.nn import SoftplusShares, rms_normed


class Attention(nn.Module):
    """Multi-head self-attention of tokens (B, n, width). `weights` is a module from queries and keys (B, H, n, d) to
    weights (B, H, n, n).
    """

    def __init__(self, width: int, heads: int, weights: nn.Module) -> None:
        super().__init__()
        self.heads, self.weights = heads, weights
        self.queries, self.keys, self.values, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of x."""
        q, k, v = (self._split(layer(x)) for layer in (self.queries, self.keys, self.values))
        y = self.weights(q, k) @ v
        return self.out(y.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class Scores(nn.Module):
    """Weights are shares of q k^T / sqrt(d): `share` is nn.Softmax(-1), StableMax(), SigmoidShares()..."""

    def __init__(self, share: nn.Module) -> None:
        super().__init__()
        self.share = share

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Weights (B, H, n, n)."""
        return self.share(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]))  # type: ignore[no-any-return]


class SoftplusScores(nn.Module):
    """LSSA: softplus of the cosines of queries and keys, scaled by log d log n, in shares (Gao et al. 2025, arXiv
    2501.13428, as summarised by others; without a causal mask all n tokens are visible).
    """

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps, self.share = eps, SoftplusShares()

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Weights (B, H, n, n)."""
        n, d = q.shape[-2:]
        cosines = rms_normed(q, self.eps) @ rms_normed(k, self.eps).transpose(-2, -1) / d
        return self.share(cosines * (math.log(d) * math.log(n)))  # type: ignore[no-any-return]


class Sharpened(nn.Module):
    """LSSAR: weights A of another module sharpened to relu(n A - offset)^power, in shares again. Rows of which nothing
    is left are 0.
    """

    def __init__(self, weights: nn.Module, power: int = 15, offset: float = 1.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.weights, self.power, self.offset, self.eps = weights, power, offset, eps

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Weights (B, H, n, n)."""
        r = torch.relu(self.weights(q, k) * k.shape[-2] - self.offset) ** self.power
        return r / (r.sum(-1, keepdim=True) + self.eps)


class GaussianKernel(nn.Module):
    """SOFT without landmarks (Lu et al. 2021): exp(-|q - k|^2 / (2 sqrt d)), not normalised."""

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Weights (B, H, n, n)."""
        return gaussian(q, k)


class Landmarks(nn.Module):
    """SOFT (Lu et al. 2021, section 3.2): C A^+ C^T, Gaussian kernels C of tokens and landmarks, A of landmarks.

    Landmarks are means of `tokens / count` consecutive queries, which serve as keys, too. A^+ is what `steps` of
    Newton's iteration X <- 2 X - X A X reach from A / count^2; the norm of A is at most `count`, so that this start
    always lies in the region of convergence (the paper scales it by the norm of A itself).
    """

    def __init__(self, count: int, steps: int = 6) -> None:
        super().__init__()
        self.count, self.steps = count, steps

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Weights (B, H, n, n); the keys are not read."""
        marks = q.unflatten(2, (self.count, q.shape[2] // self.count)).mean(3)
        c = gaussian(q, marks)
        return c @ pseudo_inverse(gaussian(marks, marks), self.steps) @ c.transpose(-2, -1)


def gaussian(q: Tensor, k: Tensor) -> Tensor:
    """exp(-|q_i - k_j|^2 / (2 sqrt d)), (..., n, m)."""
    distance = (q.unsqueeze(-2) - k.unsqueeze(-3)).square().sum(-1)
    return torch.exp(distance * (-0.5 / math.sqrt(q.shape[-1])))


def pseudo_inverse(a: Tensor, steps: int) -> Tensor:
    """Newton's iteration for the pseudo-inverse of matrices (..., m, m) with entries in [0, 1]."""
    x = a / a.shape[-1] ** 2
    for _ in range(steps):
        x = 2 * x - x @ a @ x
    return x
