"""Matrix products of two variables: out[i, j] = sum over k of x[i, k] y[k, j], every product by McCormick planes.

Shape letters: B boxes, S rows, L leading axes; x (B, *L, i, k), y (B, *L, k, j).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from relaxations.planes import (
    ConstantPlanes,
    Shapes,
    any_broadcast,
    common_shape,
    offset,
    shapes_of,
    signs,
    unbroadcast,
)
from relaxations.products import mccormick, middle, product_interval
from relaxations.rule import Affine, Call, Interval, Relaxation, Rule, rule

TRIPLES = 1 << 24  # most products x[i, k] y[k, j] that a relaxation stores planes for; beyond, planes by midpoints


def _mul(left: Tensor, right: Tensor) -> Tensor:
    """Rows (B, S, ...) times a relaxation's matrices (B, ...), or the other way round; whichever lacks S gets it."""
    rank = max(left.dim(), right.dim())
    left, right = (t if t.dim() == rank else t.unsqueeze(1) for t in (left, right))
    return torch.matmul(left, right)


@dataclass(frozen=True)
class MatmulRelaxation(Relaxation):
    """Planes for x[i, k] y[k, j] summed over k.

    `planes` (each (B, *L, i, k, j)): slopes of x below, of y below, of x above, of y above; empty where there would
    be too many. Then all slopes are midpoints, |dx dy| <= rx ry, and only matrix products are needed.
    `lower`, `upper` (B, *L, i, j) are the planes' biases.
    """

    x: Interval
    y: Interval
    planes: tuple[Tensor, ...]
    lower: Tensor
    upper: Tensor
    shapes: Shapes

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Rows (B, S, *L, i, j) to rows on x and y; flops as two matrix products (four with stored planes)."""
        positive, negative = signs(rows)
        bias = offset(positive, negative, self.lower, self.upper)
        if not self.planes:
            (mx, _), (my, _) = middle(self.x), middle(self.y)
            on_x, on_y = _mul(rows, my.transpose(-1, -2)), _mul(mx.transpose(-1, -2), rows)
        else:
            x_low, y_low, x_high, y_high = self.planes
            on_x = _along_j(positive, negative, x_low, x_high)
            on_y = _along_i(positive, negative, y_low, y_high)
        return (unbroadcast(on_x, self.shapes[0]), unbroadcast(on_y, self.shapes[1])), bias

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """By midpoints: my X + mx Y plus a constant, with the signs of mx and my."""
        x, y = inputs
        lower, upper = midpoint_biases(self.x, self.y)
        ends = [
            self._push(x.lower_slope, x.upper_slope, y.lower_slope, y.upper_slope),
            self._push(x.lower_bias, x.upper_bias, y.lower_bias, y.upper_bias),
        ]
        return Affine(ends[0][0], ends[1][0] + lower, ends[0][1], ends[1][1] + upper)

    def _push(self, x_low: Tensor, x_high: Tensor, y_low: Tensor, y_high: Tensor) -> tuple[Tensor, Tensor]:
        (xp, xn), (yp, yn) = signs(middle(self.x)[0]), signs(middle(self.y)[0])
        low = _mul(x_low, yp) + _mul(x_high, yn) + _mul(xp, y_low) + _mul(xn, y_high)
        high = _mul(x_high, yp) + _mul(x_low, yn) + _mul(xp, y_high) + _mul(xn, y_low)
        return low, high

    def take(self, owner: Tensor) -> Self:
        """As the base's; drops the stored planes where there would be too many."""
        if self.planes and len(owner) * self.planes[0][0].numel() > TRIPLES:
            lower, upper = midpoint_biases(self.x, self.y)
            return replace(self, planes=(), lower=lower, upper=upper).take(owner)
        return super().take(owner)


def _along_j(positive: Tensor, negative: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """sum over j of rows (B, S, *L, i, j), both signs, times slopes (B, *L, i, k, j): (B, S, *L, i, k)."""
    if low.shape[-1] == 1:
        return _entries(positive, negative, low.squeeze(-1), high.squeeze(-1))
    rows = torch.cat([positive.movedim(1, -2), negative.movedim(1, -2)], -1)
    return torch.matmul(rows, torch.cat([low, high], -1).transpose(-1, -2)).movedim(-2, 1)


def _along_i(positive: Tensor, negative: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """sum over i of rows (B, S, *L, i, j), both signs, times slopes (B, *L, i, k, j): (B, S, *L, k, j)."""
    if low.shape[-3] == 1:
        return _entries(positive, negative, low.squeeze(-3), high.squeeze(-3))
    rows = torch.cat([positive, negative], -2).movedim(1, -1).movedim(-2, -3)  # (B, *L, j, 2 i, S)
    slopes = torch.cat([low, high], -3).movedim(-1, -3)  # (B, *L, j, 2 i, k)
    return torch.matmul(slopes.transpose(-1, -2), rows).movedim(-3, -2).movedim(-1, 1)


def _entries(positive: Tensor, negative: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The same where the sum has one term: each sign through its slopes (B, ...), broadcast."""
    return torch.addcmul(positive * low.unsqueeze(1), negative, high.unsqueeze(1))


def midpoint_biases(x: Interval, y: Interval) -> tuple[Tensor, Tensor]:
    """Biases below and above for midpoint slopes: -(mx my) -+ rx ry, as matrix products."""
    (mx, rx), (my, ry) = middle(x), middle(y)
    level, reach = -torch.matmul(mx, my), torch.matmul(rx, ry)
    return level - reach, level + reach


def _triples(x: Interval, y: Interval, start: int, stop: int) -> tuple[Interval, Interval]:
    """x[i, k] and y[k, j] side by side for start <= k < stop: (B, *L, i, k, 1) and (B, *L, 1, k, j)."""
    return (
        Interval(x.lower[..., start:stop].unsqueeze(-1), x.upper[..., start:stop].unsqueeze(-1)),
        Interval(y.lower[..., start:stop, :].unsqueeze(-3), y.upper[..., start:stop, :].unsqueeze(-3)),
    )


def _count(x: Interval, y: Interval) -> int:
    lead = common_shape([x.lower.shape[:-2], y.lower.shape[:-2]])
    return math.prod((*lead, *x.lower.shape[-2:], y.lower.shape[-1]))


@rule("matmul")
class MatmulRule(Rule):
    """Matrix product of two variables."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact, summed over blocks of k so that memory stays bounded."""
        x, y = inputs
        inner = x.lower.shape[-1]
        step = max(1, TRIPLES * inner // max(1, 8 * _count(x, y)))
        parts = [product_interval(*_triples(x, y, k, min(k + step, inner))) for k in range(0, inner, step)]
        low, high = (sum(end[1:], end[0]) for end in ([p[e].sum(-2) for p in parts] for e in (0, 1)))
        return Interval(torch.where(low.isnan(), -torch.inf, low), torch.where(high.isnan(), torch.inf, high))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Relaxation:
        """McCormick planes for every product; midpoint slopes where those are too many."""
        x, y = inputs
        finite = all(bool(end.isfinite().all()) for interval in inputs for end in interval)
        if finite and _count(x, y) <= TRIPLES:
            below, above = mccormick(*_triples(x, y, 0, x.lower.shape[-1]))
            planes = tuple(s.expand(below.bias.shape) for s in (*below.slopes, *above.slopes))
            return MatmulRelaxation(x, y, planes, below.bias.sum(-2), above.bias.sum(-2), shapes_of(inputs))
        if finite:
            return MatmulRelaxation(x, y, (), *midpoint_biases(x, y), shapes_of(inputs))
        return ConstantPlanes(*self.interval(call, inputs), shapes_of(inputs))

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries of x that vary with some entry of their row of y, and the other way round."""
        x, y = (i.width != 0 for i in inputs)
        masks = x & y.any(-1).unsqueeze(-2), y & x.any(-2).unsqueeze(-1)
        return tuple(any_broadcast(mask, shape) for mask, shape in zip(masks, shapes_of(inputs), strict=True))
