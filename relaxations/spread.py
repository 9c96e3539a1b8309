"""Values between -x and x: what is left open, such as parameters that may move."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from relaxations.rule import Call, Interval, Rule, rule
from relaxations.scalar.lines import ScalarLines


@rule("spread")
class SpreadRule(Rule):
    """Both lines are exact."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """The largest x on both sides."""
        reach = inputs[0].upper.clamp(min=0)
        return Interval(-reach, reach)

    def relax(self, call: Call, inputs: Sequence[Interval]) -> ScalarLines:
        """-x and x."""
        ones = torch.ones_like(inputs[0].upper)
        return ScalarLines(-ones, None, ones, None)
