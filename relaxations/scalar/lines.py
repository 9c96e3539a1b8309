"""Two lines per entry: the linear relaxation of every scalar op."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relaxations import kernels
from relaxations.finite import all_finite
from relaxations.rule import Affine, Relaxation


@dataclass(frozen=True)
class ScalarLines(Relaxation):
    """lower_slope x + lower_bias <= f(x) <= upper_slope x + upper_bias for every entry x of the input, each (B, *N).

    A bias of None is zero everywhere. Where nothing is known on one side the slope is 0 and the bias infinite.
    """

    lower_slope: Tensor
    lower_bias: Tensor | None
    upper_slope: Tensor
    upper_bias: Tensor | None

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Positive entries take the lower line, negative ones the upper line."""
        pulled, bias = kernels.relax(rows, self.lower_slope, self.lower_bias, self.upper_slope, self.upper_bias)
        return (pulled,), bias

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """Each line applied to the bound of the input that its slope's sign asks for."""
        (x,) = inputs
        lower, upper = (x.lower_slope, x.lower_bias), (x.upper_slope, x.upper_bias)
        return Affine(
            *_apply(self.lower_slope, self.lower_bias, (lower, upper), -math.inf),
            *_apply(self.upper_slope, self.upper_bias, (upper, lower), math.inf),
        )


STRETCHES = 3  # as in kernels/native/tiles.hpp


@dataclass(frozen=True)
class Turns:
    """Lines of an op, and STRETCHES others on either side of them; what lies between neighbours is sound too."""

    own: ScalarLines
    left: Sequence[ScalarLines]
    right: Sequence[ScalarLines]


Bound = tuple[Tensor, Tensor]  # slopes (B, K, *N) and bias (B, *N) of one side


def _apply(k: Tensor, bias: Tensor | None, sides: tuple[Bound, Bound], unknown: float) -> Bound:
    """A line k x + bias of a value between two bounds: the first bound where k > 0, the second one where k < 0."""
    first, second = sides
    mixed = bool((k.detach().amin() < 0) if k.numel() else False)
    slope, value = (
        _mix(side, a, b) if mixed and b is not a else side * a
        for side, a, b in zip((k.unsqueeze(1), k), first, second, strict=True)
    )
    total = value if bias is None else value + bias
    if not all_finite(total):  # an unknown bound: it does not count where k is zero
        total = _plus(_times(k.clamp(min=0), first[1]) + _times(k.clamp(max=0), second[1]), bias, unknown)
    return slope, total


def _times(a: Tensor, b: Tensor) -> Tensor:
    """a b where 0 times infinity is 0."""
    return torch.where(a == 0, 0, a * b)


def _mix(k: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """k times `first` where k > 0 and times `second` where k < 0."""
    return torch.addcmul(k.clamp(min=0) * first, k.clamp(max=0), second)


def _plus(value: Tensor, bias: Tensor | None, unknown: float) -> Tensor:
    """The sum, and `unknown` where infinities cancel."""
    total = value if bias is None else value + bias
    return torch.where(total.isnan(), unknown, total)
