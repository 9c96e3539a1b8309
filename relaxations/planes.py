"""Relaxations by stored planes, shared by the rules of products, maxima and selections.

Shape letters: B boxes, S rows, N one node's shape, K input dimensions of forward mode. Biases may be -inf below and
+inf above (nothing is known); products with a zero row are then zero, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.rule import Affine, Interval, Relaxation

Shapes = tuple[tuple[int, ...], ...]
FEW_ROWS = 16  # boxes for each row from which entrywise products are faster than products of matrices


def shapes_of(inputs: Sequence[Interval]) -> Shapes:
    """One sample's shape of every input."""
    return tuple(tuple(i.lower.shape[1:]) for i in inputs)


def common_shape(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The shape that shapes of equal rank broadcast to."""
    return tuple(max(sizes) for sizes in zip(*shapes, strict=True))


def flat(values: Tensor, lead: int) -> Tensor:
    """All axes after the first `lead` joined; one of size 1 where there are none."""
    return values.reshape(*values.shape[:lead], -1)


def ordered(low: Tensor, high: Tensor) -> Interval:
    """An interval whose ends may have crossed by rounding."""
    return Interval(torch.minimum(low, high), torch.maximum(low, high))


def signs(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Positive and negative part: rows = positive + negative."""
    return rows.clamp(min=0), rows.clamp(max=0)


def offset(positive: Tensor, negative: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """positive . lower + negative . upper over all of N: rows (B, S, *N), biases (B, *N), to (B, S)."""

    def dot(rows: Tensor, values: Tensor) -> Tensor:
        if len(rows) > FEW_ROWS * rows.shape[1]:  # a product of small matrices for each box takes longer
            return flat(rows * values.unsqueeze(1), 2).sum(2)
        return torch.matmul(flat(rows, 2), flat(values, 1).unsqueeze(-1)).squeeze(-1)

    good_lower, good_upper = lower.isfinite(), upper.isfinite()
    if good_lower.all() and good_upper.all():
        return dot(positive, lower) + dot(negative, upper)
    total = dot(positive, torch.where(good_lower, lower, 0)) + dot(negative, torch.where(good_upper, upper, 0))
    hits = dot((positive > 0).to(lower), (~good_lower).to(lower)) + dot(
        (negative < 0).to(lower), (~good_upper).to(lower)
    )
    return torch.where(hits > 0, -torch.inf, total)


def unbroadcast(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum (B, S, *N) over the axes along which an input of this shape (equal rank) was repeated."""
    axes = [a + 2 for a, size in enumerate(shape) if size == 1 and values.shape[a + 2] != 1]
    return values.sum(axes, keepdim=True) if axes else values


def any_broadcast(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Whether any entry of (B, *N) is set among those that one entry of an input of this shape was repeated to."""
    return unbroadcast(mask.unsqueeze(1).to(torch.float32), shape).squeeze(1) > 0


def scaled(factor: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Smallest factor * v for low <= v <= high; zero where the factor is."""
    return torch.where(factor > 0, factor * low, torch.where(factor < 0, factor * high, torch.zeros_like(factor)))


@dataclass(frozen=True)
class ConstantPlanes(Relaxation):
    """No slopes: the output's interval, (B, *N_out)."""

    lower: Tensor
    upper: Tensor
    shapes: Shapes

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Zero rows on every input; the bias is the interval's own lower bound of the rows."""
        bias = offset(*signs(rows), self.lower, self.upper)
        return tuple(rows.new_zeros(*bias.shape, *shape) for shape in self.shapes), bias

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """Zero slopes."""
        batch, k = inputs[0].lower_slope.shape[:2]
        zero = self.lower.new_zeros(batch, k, *self.lower.shape[1:])
        return Affine(zero, self.lower.expand(zero[:, 0].shape), zero, self.upper.expand(zero[:, 0].shape))


class Plane(NamedTuple):
    """sum over the inputs j of slopes[j] * input[j] + bias, elementwise with broadcasting; slopes and bias (B, *N)."""

    slopes: tuple[Tensor, ...]
    bias: Tensor

    def at(self, points: Sequence[Tensor]) -> Tensor:
        """Its values at points (B, *N_in)."""
        return sum((slope * x for slope, x in zip(self.slopes, points, strict=True)), self.bias)

    def negate(self) -> Plane:
        """Minus the plane."""
        return Plane(tuple(-slope for slope in self.slopes), -self.bias)

    def choose(self, mask: Tensor, other: Plane) -> Plane:
        """This plane where the mask is set, the other elsewhere."""
        slopes = tuple(torch.where(mask, a, b) for a, b in zip(self.slopes, other.slopes, strict=True))
        return Plane(slopes, torch.where(mask, self.bias, other.bias))

    def or_constant(self, constant: Tensor) -> Plane:
        """The plane where all of it is finite, else a constant."""
        good = self.bias.isfinite()
        for slope in self.slopes:
            good = good & slope.isfinite()
        zero = torch.zeros_like(self.bias)
        return self.choose(good, Plane(tuple(zero for _ in self.slopes), constant))


@dataclass(frozen=True)
class Planes(Relaxation):
    """One plane below and one above for each entry of an elementwise op of several inputs (sizes 1 broadcast)."""

    lower_slopes: tuple[Tensor, ...]
    lower_bias: Tensor
    upper_slopes: tuple[Tensor, ...]
    upper_bias: Tensor
    shapes: Shapes

    @classmethod
    def of(cls, lower: Plane, upper: Plane, hull: Interval, shapes: Shapes) -> Planes:
        """From two planes of full shape; where one is not finite, the output's interval `hull` takes its place."""
        lower, upper = lower.or_constant(hull.lower), upper.or_constant(hull.upper)
        return cls(lower.slopes, lower.bias, upper.slopes, upper.bias, shapes)

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Lower planes under positive rows, upper planes under negative ones."""
        positive, negative = signs(rows)
        pulled = tuple(
            unbroadcast(torch.addcmul(positive * low.unsqueeze(1), negative, high.unsqueeze(1)), shape)
            for low, high, shape in zip(self.lower_slopes, self.upper_slopes, self.shapes, strict=True)
        )
        return pulled, offset(positive, negative, self.lower_bias, self.upper_bias)

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """Lower planes of the inputs under positive slopes, upper planes under negative ones."""
        below = _push_plane(self.lower_slopes, self.lower_bias, inputs)
        flipped = [Affine(*(-t for t in (a.upper_slope, a.upper_bias, a.lower_slope, a.lower_bias))) for a in inputs]
        above = _push_plane(self.upper_slopes, -self.upper_bias, flipped)
        return Affine(*below, -above[0], -above[1])


def _push_plane(slopes: tuple[Tensor, ...], bias: Tensor, inputs: Sequence[Affine]) -> tuple[Tensor, Tensor]:
    """Slope and bias of a lower bound of the plane, given bounds of its inputs."""
    pairs = list(zip(slopes, inputs, strict=True))
    slope = sum(scaled(s.unsqueeze(1), a.lower_slope, a.upper_slope) for s, a in pairs)
    bias = sum((scaled(s, a.lower_bias, a.upper_bias) for s, a in pairs), bias)
    assert isinstance(slope, Tensor)
    return slope, bias


@dataclass(frozen=True)
class Picks(Relaxation):
    """Every output entry lies between lines of *one* input entry each: slope * entry + bias.

    Indices (B, *N_out) count positions in all inputs, flattened and joined; slopes are >= 0, (B, *N_out).
    """

    lower_index: Tensor
    lower_slope: Tensor
    lower_bias: Tensor
    upper_index: Tensor
    upper_slope: Tensor
    upper_bias: Tensor
    shapes: Shapes

    def negate(self) -> Picks:
        """Bounds of -f(-x), where these are bounds of f(x)."""
        upper = (self.upper_index, self.upper_slope, -self.upper_bias)
        return Picks(*upper, self.lower_index, self.lower_slope, -self.lower_bias, self.shapes)

    def or_constant(self, hull: Interval) -> Picks:
        """The lines where they are finite, else the ends of the output's interval."""
        good_low, good_high = (
            slope.isfinite() & bias.isfinite() & end.isfinite()
            for slope, bias, end in (
                (self.lower_slope, self.lower_bias, hull.lower),
                (self.upper_slope, self.upper_bias, hull.upper),
            )
        )
        return replace(
            self,
            lower_slope=torch.where(good_low, self.lower_slope, 0),
            lower_bias=torch.where(good_low, self.lower_bias, hull.lower),
            upper_slope=torch.where(good_high, self.upper_slope, 0),
            upper_bias=torch.where(good_high, self.upper_bias, hull.upper),
        )

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Each row entry is added to the input entry that its side picks."""
        positive, negative = signs(rows)
        bias = offset(positive, negative, self.lower_bias, self.upper_bias)
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        pulled = rows.new_zeros(*bias.shape, sum(sizes))
        for part, index, slope in (
            (positive, self.lower_index, self.lower_slope),
            (negative, self.upper_index, self.upper_slope),
        ):
            values = flat(part * slope.unsqueeze(1), 2)
            pulled = pulled.scatter_add(2, flat(index, 1).unsqueeze(1).expand_as(values), values)
        parts = torch.split(pulled, sizes, 2)
        return tuple(p.reshape(*bias.shape, *shape) for p, shape in zip(parts, self.shapes, strict=True)), bias

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """Gather the picked entries' bounds."""
        low_slope, low_bias, high_slope, high_bias = (
            torch.cat([flat(part, depth) for part in parts], depth)
            for depth, parts in zip((2, 1, 2, 1), zip(*inputs, strict=True), strict=True)
        )
        below = _gather(low_slope, low_bias, self.lower_index, self.lower_slope, self.lower_bias)
        above = _gather(high_slope, high_bias, self.upper_index, self.upper_slope, self.upper_bias)
        return Affine(*below, *above)


def _gather(slopes: Tensor, biases: Tensor, index: Tensor, slope: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    batch, k = slopes.shape[:2]
    index = index.expand(batch, *index.shape[1:])
    places = flat(index, 1)
    picked = slopes.gather(2, places.unsqueeze(1).expand(-1, k, -1)).reshape(batch, k, *index.shape[1:])
    level = biases.gather(1, places).reshape(index.shape)
    return picked * slope.unsqueeze(1), torch.where(slope == 0, bias, level * slope + bias)
