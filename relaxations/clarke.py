"""The slopes of kinked functions and their products with cotangents (Shi et al. 2022, section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from relaxations.planes import ConstantPlanes, Plane, Planes, shapes_of
from relaxations.products import MulRule, full, mccormick_below, middle
from relaxations.rule import Call, Interval, Rule, rule


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


@rule("chain")
class ChainRule(MulRule):
    """x d for a slope d of which only its interval is known: the hull over x, by the plane that does not depend on d.

    Where x has one sign the plane touches at the end of d that is extreme (relaxations.md, section 4.2).
    """

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Planes:
        """The hull of (x, x d), below and above."""
        x, d = full(inputs)
        below = self._below(x, d)
        above = self._below(Interval(-x.upper, -x.lower), d)  # x d = -((-x) d)
        above = Plane((above.slopes[0], -above.slopes[1]), -above.bias)
        return Planes.of(below, above, self.interval(call, (x, d)), shapes_of(inputs))

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Factors of either sign whose slope varies; of the slope only the interval is of use."""
        wide = super().undecided(call, inputs)[0]
        return (None if wide is None else wide & (inputs[0].lower < 0) & (inputs[0].upper > 0)), None

    @staticmethod
    def _below(x: Interval, d: Interval) -> Plane:
        mid, radius = middle(x)
        weight = (mid / torch.where(radius > 0, radius, 1.0)).clamp(-1, 1)
        weight = torch.where(radius > 0, weight, 0.0)
        return mccormick_below(x, d, weight)
