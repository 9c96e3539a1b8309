"""The slopes of kinked functions and their products with cotangents (Shi et al. 2022, section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from relaxations.planes import ConstantPlanes, Plane, Planes, Shapes, shapes_of
from relaxations.products import both_vary, full, product_interval
from relaxations.rule import Affine, Call, Interval, Relaxation, Rule, rule
from relaxations.scalar.lines import ScalarLines


@rule("clarke")
class ClarkeRule(Rule):
    """All slopes of the pieces that the box reaches: at a kink inside of it [f'-, f'+]. No line in x is of any use.

    (Lines in x gain at most 1 % of a Lipschitz bound; constants let a sweep end here.)
    """

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """The smallest and the largest slope; exact."""
        (box,) = inputs
        low, high = torch.full_like(box.lower, math.inf), torch.full_like(box.lower, -math.inf)
        ends = (-math.inf, *call.attrs["at"], math.inf)
        for (start, end), slope in zip(pairwise(ends), call.attrs["slopes"], strict=True):
            reached = (box.upper > start) & (box.lower <= end) | box.upper.isnan() | box.lower.isnan()
            if start == -math.inf:
                reached = reached | (box.upper == start)
            low, high = (
                torch.where(reached, low.clamp(max=slope), low),
                torch.where(reached, high.clamp(min=slope), high),
            )
        return Interval(low, high)

    def relax(self, call: Call, inputs: Sequence[Interval]) -> ConstantPlanes:
        """The interval."""
        return ConstantPlanes(*self.interval(call, inputs), shapes_of(inputs))

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries that reach several slopes."""
        low, high = self.interval(call, inputs)
        return (low < high,)


@dataclass(frozen=True)
class ChainLines(ScalarLines):
    """Lines in x around x d: nothing depends on d, whose rows are zeros that no sweep needs to follow."""

    idle: ClassVar[tuple[int, ...]] = (1,)
    shapes: Shapes

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Lower lines under positive rows, upper lines under negative ones; zeros for d."""
        (pulled,), bias = super().pull(rows)
        return (pulled, rows.new_zeros(()).expand(*rows.shape[:2], *self.shapes[1])), bias

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """The lines of x."""
        return super().push(inputs[:1])


@rule("chain")
class ChainRule(Rule):
    """x d for a slope d of which only its interval is known: lines in x, the hull over x (relaxations.md, section 4.2).

    Where x has one sign that is the end of d that is extreme; else the chord between the ends of x. (Where x is
    repeated to the shape of d, planes with the same values.)
    """

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact."""
        return product_interval(*inputs)

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Relaxation:
        """The hull of (x, x d), below and above."""
        x, d = full(inputs)
        hull, shapes = self.interval(call, (x, d)), shapes_of(inputs)
        below, low = self._below(x, d)
        above, high = self._below(Interval(-x.upper, -x.lower), d)  # x d = -((-x) d)
        if x.lower.shape == inputs[0].lower.shape:
            good = (below + low).isfinite(), (above + high).isfinite()
            lower = torch.where(good[0], below, 0), torch.where(good[0], low, hull.lower)
            upper = torch.where(good[1], above, 0), torch.where(good[1], -high, hull.upper)
            return ChainLines(*lower, *upper, shapes)
        none = torch.zeros_like(below)
        return Planes.of(Plane((below, none), low), Plane((above, none), -high), hull, shapes)

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Factors of either sign whose slope varies; of the slope only the interval is of use."""
        wide = both_vary(inputs)[0]
        return (None if wide is None else wide & (inputs[0].lower < 0) & (inputs[0].upper > 0)), None

    @staticmethod
    def _below(x: Interval, d: Interval) -> tuple[Tensor, Tensor]:
        """Slope and bias of the chord from (xl, xl du) to (xu, xu dl); of one sign: a line through 0."""
        positive, negative = x.lower >= 0, x.upper <= 0
        width = torch.where(positive | negative, 1.0, x.width)
        chord = (x.upper * d.lower - x.lower * d.upper) / width
        level = x.upper * (x.lower / width) * (d.upper - d.lower)
        slope = torch.where(positive, d.lower, torch.where(negative, d.upper, chord))
        return slope, torch.where(positive | negative, 0.0, level)
