"""What every rule of a scalar op shares: exact intervals, and lines by default or of any given slopes.

Rounding. Values of f are assumed to be within `ulps` units in the last place of the true ones (4 for what the math
library computes, 0 for comparisons and selections); intervals and intercepts are moved outward by that much, plus the
rounding of the products and sums that make an intercept.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from graphs.ops import OPS
from relaxations.finite import all_finite
from relaxations.rule import Call, Interval, Rule
from relaxations.scalar.lines import ScalarLines, Turns


class ScalarRule(Rule):
    """Base of the rules of scalar ops.

    `ulps`: error of f in units in the last place; `image`: values that f cannot leave; `turns`: where f changes
    between rising and falling (f must be continuous unless `interval` is overridden).
    """

    ulps: float = 4.0
    image: tuple[float, float] = (-math.inf, math.inf)
    turns: tuple[float, ...] = ()

    def f(self, call: Call, x: Tensor) -> Tensor:
        """The op itself, or a more accurate way to compute it."""
        return call.forward(x)

    def range(self, call: Call) -> tuple[float, float]:
        """Values that f cannot leave, where they depend on the node."""
        return self.image

    def noise(self, x: Tensor, value: Tensor) -> Tensor:
        """A bound on the error of `value` as f(x); the constant covers factors that underflow."""
        info = torch.finfo(value.dtype)
        return value.abs() * (self.ulps * info.eps) + (1024 * info.tiny if self.ulps else 0.0)

    def valid(self, call: Call, box: Interval) -> Tensor | None:
        """Boxes on which f is defined and continuous (bool, (B, *N)); None: all."""
        return None

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """The exact range, rounded outward; infinite where the box leaves the op's domain."""
        (box,) = inputs
        turning = [box.lower.clamp(min=t).minimum(box.upper) for t in self.turns]
        points = [box.lower, *turning, box.upper]
        values, valid = [self.f(call, x) for x in points], self.valid(call, box)
        usual = all_finite(*values) and (valid is None or bool(valid.all()))
        if not usual:
            values = [self._limit(call, x, value) for x, value in zip(points, values, strict=True)]
        noises = [self.noise(x, v) for x, v in zip(points, values, strict=True)]
        if not usual:
            noises = [noise.nan_to_num(posinf=0.0) for noise in noises]
        lows = [v - e for v, e in zip(values, noises, strict=True)]
        highs = [v + e for v, e in zip(values, noises, strict=True)]
        if self.turns or not OPS[call.node.op].monotone:
            low, high = reduce(torch.minimum, lows), reduce(torch.maximum, highs)
        else:
            low, high = lows[0], highs[-1]
        image = self.range(call)
        if image != (-math.inf, math.inf):
            low, high = low.clamp(*image), high.clamp(*image)
        if usual:
            return Interval(low, high)
        lost = low.isnan() | high.isnan()
        lost = lost if valid is None else lost | ~valid
        return Interval(torch.where(lost, -math.inf, low), torch.where(lost, math.inf, high))

    def _limit(self, call: Call, x: Tensor, value: Tensor) -> Tensor:
        """f(x), also at infinity, where forms like 0 times infinity are computed at the last finite number."""
        lost = value.isnan() & x.isinf()
        if not bool(lost.any()):
            return value
        largest = torch.finfo(x.dtype).max
        return torch.where(lost, self.f(call, x.clamp(-largest, largest)), value)

    def relax(self, call: Call, inputs: Sequence[Interval]) -> ScalarLines:
        """The default lines."""
        return self.lines(call, inputs[0])

    @abstractmethod
    def lines(self, call: Call, box: Interval) -> ScalarLines:
        """The lower and the upper line of least area between them and f."""

    @abstractmethod
    def lines_at(self, call: Call, box: Interval, lower_slope: Tensor, upper_slope: Tensor) -> ScalarLines:
        """The tightest lines of the given slopes; any slopes are sound, and gradients flow to them."""

    def lower_slopes(self, call: Call) -> tuple[float, float] | None:
        """The range of slopes that a lower line may have instead of its own, on any box and with the same bias.

        For entries whose two lines differ in slope; None: its own only.
        """
        return None

    def choices(self, call: Call, box: Interval, own: ScalarLines) -> Turns | None:
        """Its own lines with others to either side of them; None: there are only its own.

        Intercepts are moved outward so that every line between is sound in floating point too.
        """
        return None

    def slopes(self, call: Call, box: Interval) -> Interval | None:
        """Bounds of f' over boxes, up to rounding; no line's slope is outside of them. None where there are none."""
        return None

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries whose interval has a width: a curved function gains from any tightening."""
        (box,) = inputs
        size = box.lower.abs().maximum(box.upper.abs())
        return (box.width > torch.finfo(size.dtype).eps ** 0.75 * size,)

    def usual(self, call: Call, box: Interval) -> bool:
        """Whether all ends are finite and in the op's domain; may say no by mistake."""
        if not all_finite(*box):
            return False
        valid = self.valid(call, box)
        return valid is None or bool(valid.all())

    def known(self, call: Call, box: Interval) -> Tensor:
        """Entries with finite ends in the op's domain."""
        finite, valid = box.lower.isfinite() & box.upper.isfinite(), self.valid(call, box)
        return finite if valid is None else finite & valid

    def guarded(self, call: Call, box: Interval, lines: ScalarLines) -> ScalarLines:
        """`lines` where they are finite, elsewhere the constant lines of the interval."""
        fields = (lines.lower_slope, lines.lower_bias, lines.upper_slope, lines.upper_bias)
        if all_finite(*fields) and self.usual(call, box):
            return lines
        good = self.known(call, box)
        for part in fields:
            good = good if part is None else good & part.isfinite()
        low, high = self.interval(call, [box])
        zero = torch.zeros_like(low)
        return ScalarLines(
            torch.where(good, lines.lower_slope, zero),
            torch.where(good, zero if lines.lower_bias is None else lines.lower_bias, low),
            torch.where(good, lines.upper_slope, zero),
            torch.where(good, zero if lines.upper_bias is None else lines.upper_bias, high),
        )
