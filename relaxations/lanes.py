"""Relaxations of ops that work along lanes: vectors of n entries taken over one or several axes.

A lane's planes are a matrix n x n that is diagonal but for a few products of a column and a row, so that some vectors
describe it and a row is pulled in O(n). A column whose entry times the row's is huge beside the diagonal would cancel
there; rules give such an entry a pair of its own (see `relaxations/softmax.py`). Shape letters: B boxes, S rows, K
input dimensions of forward mode, L lanes, n entries of a lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.planes import FEW_ROWS, offset, scaled, signs
from relaxations.rule import Affine, Call, Interval, Relaxation, Rule

STEEPEST = 64.0


@dataclass(frozen=True)
class Lanes:
    """How one sample's axes are arranged into lanes: `shape` of the sample, `axes` that a lane runs over."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def split(self, values: Tensor) -> Tensor:
        """(*lead, *N) to (*lead, L, n)."""
        if self._in_order:
            return values.reshape(*values.shape[: values.dim() - len(self.shape)], self._lanes, -1)
        lead = values.dim() - len(self.shape)
        moved = values.permute(*range(lead), *(lead + a for a in self._order))
        return moved.reshape(*values.shape[:lead], self._lanes, -1)

    def join(self, values: Tensor) -> Tensor:
        """(*lead, L, n) to (*lead, *N)."""
        if self._in_order:
            return values.reshape(*values.shape[:-2], *self.shape)
        lead, order = values.dim() - 2, self._order
        moved = values.reshape(*values.shape[:lead], *(self.shape[a] for a in order))
        return moved.permute(*range(lead), *(lead + order.index(a) for a in range(len(order))))

    def interval(self, x: Interval) -> Interval:
        """Both ends by lanes."""
        return Interval(self.split(x.lower), self.split(x.upper))

    @cached_property
    def _in_order(self) -> bool:
        return self._order == list(range(len(self.shape)))

    @cached_property
    def _order(self) -> list[int]:
        return [a for a in range(len(self.shape)) if a not in self.axes] + list(self.axes)

    @cached_property
    def _lanes(self) -> int:
        return torch.Size([size for a, size in enumerate(self.shape) if a not in self.axes]).numel()


class Side(NamedTuple):
    """Planes on one side of every entry of every lane; all tensors are (B, L, n).

    Entry i's plane is  own_i x_i + sum over pairs (left, right) of left_i (right . x) + bias_i.
    """

    own: Tensor
    bias: Tensor
    pairs: tuple[tuple[Tensor, Tensor], ...] = ()

    @classmethod
    def constant(cls, values: Tensor) -> Side:
        """Without slopes."""
        return cls(torch.zeros_like(values), values)

    def at(self, x: Tensor) -> Tensor:
        """Values at points (B, L, n)."""
        value = self.own * x + self.bias
        for left, right in self.pairs:
            value = value + left * (right * x).sum(-1, keepdim=True)
        return value

    def through(self, x: Tensor, value: Tensor) -> Side:
        """The planes of these slopes that have the values `value` at the points x."""
        return self._replace(bias=value - self._replace(bias=torch.zeros_like(value)).at(x))

    def or_constant(self, good: Tensor, constant: Tensor) -> Side:
        """The planes where `good` holds and all numbers are finite, else a constant."""
        pairs = []
        good = good & self.own.isfinite() & self.bias.isfinite()
        for left, right in self.pairs:
            good = good & left.isfinite() & right.isfinite().all(-1, keepdim=True)
            pairs.append((left, torch.where(right.isfinite(), right, 0)))
        return Side(
            torch.where(good, self.own, 0),
            torch.where(good, self.bias, constant),
            tuple((torch.where(good, left, 0), right) for left, right in pairs),
        )

    def touching(self, at: Tensor, hull: Interval, constant: Tensor) -> Side:
        """From values at a point (in place of `bias`) the planes, or constants where these are not worse at the point.

        For functions whose slopes have sums of at most 2: far steeper planes, which touch where a chord leaves its
        curve, would be a little off the function by rounding alone, and are of no use.
        """
        steep = self.own.abs()
        for left, right in self.pairs:
            steep = steep + left.abs() * right.abs().sum(-1, keepdim=True)
        good = (hull.lower <= self.bias) & (self.bias <= hull.upper) & (steep <= STEEPEST)
        planes = self.through(at, self.bias).or_constant(good, constant)
        used = tuple(pair for pair in planes.pairs[1:] if bool(pair[0].any()))  # many candidates win nowhere
        return planes._replace(pairs=(*planes.pairs[:1], *used))

    def negate(self) -> Side:
        """Planes of -f from planes of f."""
        return Side(-self.own, -self.bias, tuple((-left, right) for left, right in self.pairs))

    def parts(self) -> tuple[Tensor, ...]:
        """All tensors in a row."""
        return self.own, self.bias, *(part for pair in self.pairs for part in pair)

    @classmethod
    def of_parts(cls, own: Tensor, bias: Tensor, *rest: Tensor) -> Side:
        """The inverse of `parts`."""
        return cls(own, bias, tuple(zip(rest[::2], rest[1::2], strict=True)))


class Columns(NamedTuple):
    """Of both sides (B L, pairs + 1, n): left vectors and the bias; then right vectors, 0 for biases; the diagonals."""

    lower: Tensor
    upper: Tensor
    rights: Tensor
    lower_own: Tensor
    upper_own: Tensor


@dataclass(frozen=True)
class LaneRelaxation(Relaxation):
    """Planes below and above for every entry of every lane; `centred`: on x minus the mean of its lane.

    `level`, for entries whose sum is 1: values of the planes at a point of the box.
    """

    lanes: Lanes
    lower: Side
    upper: Side
    centred: bool = False
    level: Interval | None = None

    @classmethod
    def of_shares(cls, lanes: Lanes, lower: Side, upper: Side, at: Tensor, hull: Interval) -> LaneRelaxation:
        """Of entries with the sum 1, whose planes touch at a point (B, L, n) and whose range is `hull`."""
        low, high = lower.at(at), upper.at(at)
        known = low.isfinite() & high.isfinite()
        level = Interval(torch.where(known, low, hull.lower), torch.where(known, high, hull.upper))
        return cls(lanes, lower, upper, level=level)

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Rows (B, S, *N) to rows on the one input: some passes over them and some sums along lanes."""
        split, many = self.lanes.split(rows), rows.shape[1] >= FEW_ROWS
        shared = None if many or self.level is None else common_part(split, self.level)
        if shared is not None:
            split = split - shared
        pulled, bias = (self._by_products if many and self._finite else self._by_sums)(split)
        if shared is not None:
            bias = bias + shared.sum((-1, -2))
        if self.centred:
            pulled = pulled - pulled.mean(-1, keepdim=True)
        return (self.lanes.join(pulled),), bias

    def _by_sums(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (B, S, L, n) entry by entry; bias (B, S)."""
        positive, negative = signs(rows)
        pulled = (positive * self.lower.own.unsqueeze(1)).addcmul_(negative, self.upper.own.unsqueeze(1))
        for part, side in ((positive, self.lower), (negative, self.upper)):
            for left, right in side.pairs:
                pulled.addcmul_((part * left.unsqueeze(1)).sum(-1, keepdim=True), right.unsqueeze(1))
        return pulled, offset(positive, negative, self.lower.bias, self.upper.bias)

    def _by_products(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The same by products of matrices, one a lane: all columns of a side and its bias at one go."""
        boxes, count, lanes, n = rows.shape
        columns = self._columns
        positive, negative = signs(rows.transpose(1, 2).reshape(boxes * lanes, count, n))
        low = columns.lower @ positive.transpose(1, 2)  # a wide product, (B L, pairs + 1, S): the fast way
        high = columns.upper @ negative.transpose(1, 2)
        # A gradient needs the positive rows again; else their memory is there to be used.
        own = positive * columns.lower_own if torch.is_grad_enabled() else positive.mul_(columns.lower_own)
        sums = torch.cat([low, high], 1).transpose(1, 2)
        pulled = own.addcmul_(negative, columns.upper_own).baddbmm_(sums, columns.rights)
        bias = low[:, -1] + high[:, -1]
        if lanes > 1:
            bias = bias.reshape(boxes, lanes, count).sum(1)
        return pulled.reshape(boxes, lanes, count, n).transpose(1, 2), bias

    @cached_property
    def _columns(self) -> Columns:
        """All vectors of a lane as matrices."""
        lower, upper = ([part.flatten(0, 1) for part in side.parts()] for side in (self.lower, self.upper))
        none = torch.zeros_like(lower[0])  # a bias moves no slope
        return Columns(
            torch.stack([*lower[2::2], lower[1]], 1),
            torch.stack([*upper[2::2], upper[1]], 1),
            torch.stack([*lower[3::2], none, *upper[3::2], none], 1),
            lower[0].unsqueeze(1),
            upper[0].unsqueeze(1),
        )

    @cached_property
    def _finite(self) -> bool:
        return bool(self.lower.bias.isfinite().all() & self.upper.bias.isfinite().all())

    @cached_property
    def packed(self) -> Tensor:
        """All parts of both sides along a last axis, (B, *N, parts): places of N are read at one go."""
        return torch.stack([self.lanes.join(part) for part in (*self.lower.parts(), *self.upper.parts())], -1)

    @property
    def split(self) -> int:
        """How many of the packed parts are the lower side's."""
        return len(self.lower.parts())

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


def common_part(rows: Tensor, level: Interval) -> Tensor:
    """What to take off all entries of rows (B, S, L, n) on shares, whose sum is 1, before lines are chosen.

    Any number c (B, S, L, 1) is sound, for rows . shares = c + (rows - c) . shares. This one is the best at the point
    of `level`: there the bound is concave in c, and bends at the entries.
    """
    ascending, order = rows.sort(-1)
    low, high = (end.unsqueeze(1).expand_as(rows).gather(-1, order) for end in level)
    rise = 1 - high.cumsum(-1) - (low.sum(-1, keepdim=True) - low.cumsum(-1))  # to the right of every entry
    return ascending.gather(-1, (rise > 0).sum(-1, keepdim=True).clamp(max=rows.shape[-1] - 1))


def _push(side: Side, low: Tensor, high: Tensor) -> Tensor:
    """Smallest slopes . v for low <= v <= high, (B, K, L, n): no entry of the lane's matrix is in two pairs."""
    own = side.own
    for left, right in side.pairs:
        own = own + left * right
    total = scaled(own.unsqueeze(1), low, high)
    for left, right in side.pairs:
        small = scaled(right.unsqueeze(1), low, high)
        large = -scaled(-right.unsqueeze(1), low, high)
        total = total + scaled(left.unsqueeze(1), others(small), others(large))
    return total


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


class LaneRule(Rule):
    """What rules along lanes share: every entry that varies would relax better if tighter."""

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries of positive width."""
        return (inputs[0].width != 0,)
