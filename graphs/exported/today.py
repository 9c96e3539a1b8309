"""Constants that a step makes anew: those of batch normalisation and dropout. Both become a scale (and a shift)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of value `source` (1, C, *space): the constants `factor` and `offset`, both of shape `tall`
    (C, 1, ...), from its parameters (C,) or None, running statistics (C,) or None, eps and momentum.
    """

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

    def constants(self, x: Tensor | None) -> dict[str, Tensor]:
        """From the statistics of a batch x (B, *N), or with None from the running ones."""
        if x is None:
            assert self.mean is not None and self.variance is not None
            mean, variance = self.mean, self.variance
        else:
            axes = _others(x)
            mean, variance = x.mean(axes), x.var(axes, correction=0)
        factor = (variance + self.eps).rsqrt()
        if self.weight is not None:
            factor = factor * self.weight
        offset = -mean * factor if self.bias is None else self.bias - mean * factor
        return {self.factor: factor.reshape(self.tall), self.offset: offset.reshape(self.tall)}

    def update(self, x: Tensor) -> None:
        """One step of the running statistics, as torch does it (with the unbiased variance)."""
        if self.mean is None or self.variance is None:
            return
        axes = _others(x)
        with torch.no_grad():
            self.mean.lerp_(x.mean(axes).to(self.mean), self.momentum)
            self.variance.lerp_(x.var(axes).to(self.variance), self.momentum)


def _others(x: Tensor) -> list[int]:
    """All axes of (B, 1, C, *space) but the channels'."""
    return [axis for axis in range(x.dim()) if axis != 2]


@dataclass(frozen=True)
class Dropout:
    """Dropout of value `source` in training: the constant `factor`, one mask for the whole batch."""

    source: str
    factor: str
    share: float

    def constants(self, x: Tensor | None) -> dict[str, Tensor]:
        """A new mask for samples like x (B, *N), scaled so that the mean stays; nothing is left out for None."""
        if x is None:
            return {}
        kept = torch.rand_like(x[0]) >= self.share
        return {self.factor: kept.to(x) / (1 - self.share)}
