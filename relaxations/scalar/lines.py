"""Two lines per entry: the linear relaxation of every scalar op."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
        """Positive entries take the lower line, negative ones the upper line.

        Memory-bound. Without a lower bias (ReLU) rows are read five times and written three times in all; with one the
        positive part is kept apart too, so that no line's rounding reaches an entry that takes the other.
        """
        negative = rows.clamp(max=0)
        positive = None if self.lower_bias is None else rows.clamp(min=0)
        bias = self._bias(rows, positive, negative)
        lower, upper = self.lower_slope.unsqueeze(1), self.upper_slope.unsqueeze(1)
        if positive is None:  # rows k_low + negative (k_up - k_low)
            parts = (negative, upper - lower), (rows, lower)
        else:
            parts = (positive, lower), (negative, upper)
        (first, k), second = parts
        in_place = lower.shape[0] in (1, rows.shape[0]) and not any(x.requires_grad for x in (rows, lower, upper, bias))
        return ((first.mul_(k) if in_place else first * k).addcmul_(*second),), bias

    def _bias(self, rows: Tensor, positive: Tensor | None, negative: Tensor) -> Tensor:
        """Sum of the lower biases times positive entries and the upper biases times negative ones: (B, S)."""
        bias: Tensor | None = None
        sides = ((positive, self.lower_bias), (negative, self.upper_bias))
        for part, side in sides:
            if part is not None and side is not None:
                share = _dot(_flat(part, 2), _flat(side, 1))
                bias = share if bias is None else bias + share
        if bias is None:
            return rows.new_zeros(rows.shape[:2])
        if not bool(bias.isnan().any()):
            return bias
        # Some bias is infinite: entries that are zero must not see it, and what is still undefined is unknown.
        total = torch.zeros_like(bias)
        for part, side in sides:
            if part is not None and side is not None:
                total = total + _flat(_times(part, side.unsqueeze(1)), 2).sum(2)
        return torch.where(total.isnan(), -math.inf, total)

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """Each line applied to the bound of the input that its slope's sign asks for."""
        (x,) = inputs
        lower, upper = (x.lower_slope, x.lower_bias), (x.upper_slope, x.upper_bias)
        return Affine(
            *_apply(self.lower_slope, self.lower_bias, (lower, upper), -math.inf),
            *_apply(self.upper_slope, self.upper_bias, (upper, lower), math.inf),
        )


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


def _flat(x: Tensor, lead: int) -> Tensor:
    """All axes after the first ones as one, also where there are none."""
    return x.reshape(*x.shape[:lead], -1)


def _dot(rows: Tensor, bias: Tensor) -> Tensor:
    """rows (B, S, n) times bias (B or 1, n): (B, S); one matrix-vector product where the bias is shared."""
    if len(bias) == 1:
        return rows @ bias[0]
    return torch.matmul(rows, bias.unsqueeze(-1)).squeeze(-1)


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
