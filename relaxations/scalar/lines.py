"""Two lines per entry: the linear relaxation of every scalar op."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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

        This is memory-bound: rows are read three times and written twice, and once more each for a lower bias.
        """
        lower, spread = self.lower_slope.unsqueeze(1), (self.upper_slope - self.lower_slope).unsqueeze(1)
        negative = rows.clamp(max=0)
        bias = self._bias(rows, negative)
        differentiable = negative.requires_grad or spread.requires_grad or bias.requires_grad
        if differentiable or spread.shape[0] not in (1, rows.shape[0]):
            return (torch.addcmul(negative * spread, rows, lower),), bias
        return (negative.mul_(spread).addcmul_(rows, lower),), bias

    def _bias(self, rows: Tensor, negative: Tensor) -> Tensor:
        """Sum of the lower biases times positive entries and the upper biases times negative ones: (B, S)."""
        lower, upper = self.lower_bias, self.upper_bias
        if lower is None:
            bias = rows.new_zeros(rows.shape[:2]) if upper is None else _dot(negative, upper)
        else:
            bias = _dot(rows, lower) + _dot(negative, -lower if upper is None else upper - lower)
        if not bool(bias.isnan().any()):
            return bias
        # Some bias is infinite: entries that are zero must not see it, and what is still undefined is unknown.
        total = torch.zeros_like(bias)
        for side, part in ((lower, rows.clamp(min=0)), (upper, negative)):
            if side is not None:
                total = total + _times(part, side.unsqueeze(1)).flatten(2).sum(2)
        return torch.where(total.isnan(), -math.inf, total)

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """Each line applied to the bound of the input that its slope's sign asks for."""
        x = inputs[0]
        lower, upper = self.lower_slope, self.upper_slope
        return Affine(
            _mix(lower.unsqueeze(1), x.lower_slope, x.upper_slope),
            _plus(_mix(lower, x.lower_bias, x.upper_bias), self.lower_bias, -math.inf),
            _mix(upper.unsqueeze(1), x.upper_slope, x.lower_slope),
            _plus(_mix(upper, x.upper_bias, x.lower_bias), self.upper_bias, math.inf),
        )


def _dot(rows: Tensor, bias: Tensor) -> Tensor:
    """rows (B, S, *N) times bias (B, *N), summed over N."""
    return torch.matmul(rows.reshape(*rows.shape[:2], -1), bias.reshape(len(bias), -1).unsqueeze(-1)).squeeze(-1)


def _times(a: Tensor, b: Tensor) -> Tensor:
    """a b where 0 times infinity is 0."""
    return torch.where(a == 0, 0, a * b)


def _mix(k: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """k times `first` where k > 0 and times `second` where k < 0."""
    product = _times(k.clamp(min=0), first)
    return product + _times(k.clamp(max=0), second) if bool((k < 0).any()) else product


def _plus(value: Tensor, bias: Tensor | None, unknown: float) -> Tensor:
    """The sum, and `unknown` where infinities cancel."""
    total = value if bias is None else value + bias
    return torch.where(total.isnan(), unknown, total)
