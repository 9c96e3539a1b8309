"""Relaxations of ops that work along lanes: vectors of n entries taken over one or several axes.

Every output entry i of a lane is bounded by  own_i x_i + gain_i (sum over j != i of shared_j x_j) + bias_i: a matrix of
rank one but for its diagonal, so that n numbers describe it. Gains may be huge where the shared factors of the other
entries are tiny, so sums over the others are never totals minus one term. Shape letters: B boxes, S rows, K input
dimensions of forward mode, L lanes, n entries of a lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.planes import offset, scaled, signs
from relaxations.rule import Affine, Interval, Relaxation


@dataclass(frozen=True)
class Lanes:
    """How one sample's axes are arranged into lanes: `shape` of the sample, `axes` that a lane runs over."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def split(self, values: Tensor) -> Tensor:
        """(*lead, *N) to (*lead, L, n)."""
        lead = values.dim() - len(self.shape)
        moved = values.permute(*range(lead), *(lead + a for a in self._order))
        return moved.reshape(*values.shape[:lead], self._lanes, -1)

    def join(self, values: Tensor) -> Tensor:
        """(*lead, L, n) to (*lead, *N)."""
        lead, order = values.dim() - 2, self._order
        moved = values.reshape(*values.shape[:lead], *(self.shape[a] for a in order))
        return moved.permute(*range(lead), *(lead + order.index(a) for a in range(len(order))))

    def interval(self, x: Interval) -> Interval:
        """Both ends by lanes."""
        return Interval(self.split(x.lower), self.split(x.upper))

    @property
    def _order(self) -> list[int]:
        return [a for a in range(len(self.shape)) if a not in self.axes] + list(self.axes)

    @property
    def _lanes(self) -> int:
        return torch.Size([size for a, size in enumerate(self.shape) if a not in self.axes]).numel()


class Side(NamedTuple):
    """Planes on one side of every entry of every lane, all (B, L, n); see the module's docstring."""

    own: Tensor
    gain: Tensor
    shared: Tensor
    bias: Tensor

    def at(self, x: Tensor) -> Tensor:
        """Values at points (B, L, n)."""
        return self.own * x + self.gain * others(self.shared * x) + self.bias

    def through(self, x: Tensor, value: Tensor) -> Side:
        """The planes of these slopes that have the values `value` at the points x."""
        return self._replace(bias=value - self._replace(bias=torch.zeros_like(value)).at(x))

    def or_constant(self, good: Tensor, constant: Tensor) -> Side:
        """The planes where `good` holds and all numbers are finite, else a constant."""
        shared = torch.where(self.shared.isfinite(), self.shared, 0)
        good = good & self.own.isfinite() & self.gain.isfinite() & self.bias.isfinite()
        good = good & self.shared.isfinite().all(-1, keepdim=True)
        return Side(
            torch.where(good, self.own, 0), torch.where(good, self.gain, 0), shared,
            torch.where(good, self.bias, constant),
        )  # fmt: skip

    def negate(self) -> Side:
        """Planes of -f from planes of f."""
        return Side(-self.own, -self.gain, self.shared, -self.bias)


@dataclass(frozen=True)
class LaneRelaxation(Relaxation):
    """Planes below and above for every entry of every lane; `centred`: on x minus the mean of its lane."""

    lanes: Lanes
    lower: Side
    upper: Side
    centred: bool = False

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Rows (B, S, *N) to rows on the one input, two passes and two sums along lanes."""
        positive, negative = signs(self.lanes.split(rows))
        bias = offset(positive, negative, self.lower.bias, self.upper.bias)
        pulled = _pull(positive, self.lower) + _pull(negative, self.upper)
        if self.centred:
            pulled = pulled - pulled.mean(-1, keepdim=True)
        return (self.lanes.join(pulled),), bias

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """The lane's matrix, entry by entry of its sign, on the input's bounds."""
        low_slope, low_bias, high_slope, high_bias = (self.lanes.split(part) for part in inputs[0])
        slopes, biases = (low_slope, high_slope), (low_bias.unsqueeze(1), high_bias.unsqueeze(1))
        if self.centred:
            slopes, biases = _centre(*slopes), _centre(*biases)
        flipped = self.upper.negate()
        parts = (
            _push(self.lower, *slopes),
            _push(self.lower, *biases).squeeze(1) + self.lower.bias,
            -_push(flipped, *slopes),
            self.upper.bias - _push(flipped, *biases).squeeze(1),
        )
        return Affine(*(self.lanes.join(part) for part in parts))


def _pull(rows: Tensor, side: Side) -> Tensor:
    """Rows of one sign (B, S, L, n) through one side's slopes."""
    return torch.addcmul(rows * side.own.unsqueeze(1), others(rows * side.gain.unsqueeze(1)), side.shared.unsqueeze(1))


def _push(side: Side, low: Tensor, high: Tensor) -> Tensor:
    """Smallest slopes . v for low <= v <= high, (B, K, L, n)."""
    own, gain, shared = (t.unsqueeze(1) for t in side[:3])
    small, large = scaled(shared, low, high), -scaled(-shared, low, high)
    return scaled(own, low, high) + scaled(gain, others(small), others(large))


def _centre(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of v minus its lane's mean."""
    n = low.shape[-1]
    own = 1 - 1 / n
    return (
        own * low - (high.sum(-1, keepdim=True) - high) / n,
        own * high - (low.sum(-1, keepdim=True) - low) / n,
    )


def others(values: Tensor) -> Tensor:
    """For each entry the sum of the others along the last axis, without cancellation."""
    n = values.shape[-1]
    if n <= 128:
        return values @ (1 - torch.eye(n, dtype=values.dtype, device=values.device))
    zero = torch.zeros_like(values[..., :1])
    before = torch.cat([zero, values.cumsum(-1)[..., :-1]], -1)
    return before + torch.cat([values.flip(-1).cumsum(-1)[..., :-1].flip(-1), zero], -1)
