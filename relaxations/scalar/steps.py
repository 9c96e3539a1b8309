"""Piecewise linear functions, with kinks (clip) or jumps (sign, floor and their like): lines from vertices.

The hull of such a graph over a box is the hull of its vertices, where a vertex at a jump takes the limit that is lower
for the lower line and higher for the upper one.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from relaxations.finite import all_finite
from relaxations.rule import Call, Interval, rule
from relaxations.scalar.lines import ScalarLines
from relaxations.scalar.rule import ScalarRule

Vertices = Sequence[tuple[Tensor, Tensor]]


class VertexRule(ScalarRule):
    """Base: a rule gives the vertices of the graph over a box from left to right, its two ends included."""

    ulps = 0.0
    steepest: float = 2.0**10  # slope of a line: any are sound, and a steeper one shows less than it loses by rounding

    @abstractmethod
    def vertices(self, call: Call, box: Interval, side: int) -> Vertices:
        """(x, f(x)) that bound the graph from below (side 1) or above (-1); repeated ones do not matter."""

    def lines(self, call: Call, box: Interval) -> ScalarLines:
        """The hull's edges over the midpoint."""
        inside = self.inside(box)
        slopes = [
            _edge(self.vertices(call, inside, side), 0.5 * (inside.lower + inside.upper), side) for side in (1, -1)
        ]
        return self.lines_at(call, box, *(slope.clamp(-self.steepest, self.steepest) for slope in slopes))

    def slopes(self, call: Call, box: Interval) -> Interval | None:
        """As far as lines go, for f need not have any."""
        return Interval(torch.full_like(box.lower, -self.steepest), torch.full_like(box.lower, self.steepest))

    def lines_at(self, call: Call, box: Interval, lower_slope: Tensor, upper_slope: Tensor) -> ScalarLines:
        """The tightest intercepts, rounded outward."""
        inside = self.inside(box)
        lower = _intercept(self.vertices(call, inside, 1), lower_slope, 1)
        upper = _intercept(self.vertices(call, inside, -1), upper_slope, -1)
        return self.guarded(call, box, ScalarLines(lower_slope, lower, upper_slope, upper))

    def inside(self, box: Interval) -> Interval:
        """The box, with 0 for entries without end."""
        if all_finite(*box):
            return box
        good = box.lower.isfinite() & box.upper.isfinite()
        return Interval(torch.where(good, box.lower, 0.0), torch.where(good, box.upper, 0.0))

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries over which f is not one line."""
        (box,) = inputs
        lines = self.lines(call, box)
        assert lines.lower_bias is not None and lines.upper_bias is not None
        rounding = 16 * torch.finfo(lines.lower_bias.dtype).eps * (lines.lower_bias.abs() + lines.upper_bias.abs())
        same = (lines.lower_slope == lines.upper_slope) & (lines.upper_bias - lines.lower_bias <= rounding)
        return (~same,)


def _edge(vertices: Vertices, middle: Tensor, side: int) -> Tensor:
    """Slope of the lower (side 1) or upper hull of the vertices at a point; of all chords over it the outermost."""
    best, slope = torch.full_like(middle, math.inf), torch.zeros_like(middle)
    for (left, low), (right, high) in combinations(vertices, 2):
        over = (left < middle) & (middle < right)  # strictly: at a vertex every chord that ends there ties
        k = (high - low) / torch.where(over, right - left, 1.0)
        value = side * (low + k * (middle - left))
        best, slope = torch.where(over & (value < best), value, best), torch.where(over & (value < best), k, slope)
    return slope


def _intercept(vertices: Vertices, k: Tensor, side: int) -> Tensor:
    """The outermost intercept of slope k; slopes -1, 0 and 1 multiply exactly and need less rounding."""
    eps = torch.finfo(k.dtype).eps
    exact = (k.abs() == 1) | (k == 0)
    best: Tensor | None = None
    for x, value in vertices:
        product = k * x
        gap = side * (value - product)
        gap = gap - eps * (gap.abs() + torch.where(exact, 0.0, product.abs())).detach()
        best = gap if best is None else best.minimum(gap)
    assert best is not None
    return side * best


@rule("clip")
class ClipRule(VertexRule):
    """min(max(x, lower), upper): two kinks."""

    steepest = 1.0

    def vertices(self, call: Call, box: Interval, side: int) -> Vertices:
        """Ends and kinks."""
        kinks = [box.lower.clamp(min=call.attrs[end]).minimum(box.upper) for end in ("lower", "upper")]
        return [(x, call.forward(x)) for x in (box.lower, *kinks, box.upper)]

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries with a kink inside."""
        (box,) = inputs
        low, high = call.attrs["lower"], call.attrs["upper"]
        return (((box.lower < low) & (box.upper > low)) | ((box.lower < high) & (box.upper > high)),)


class JumpRule(VertexRule):
    """Base of functions that are constant between jumps and rise at each; jumps lie at `offset` plus integers."""

    offset: float = 0.0

    def before(self, call: Call, jump: Tensor) -> Tensor:
        """The limit at a jump from the left."""
        raise NotImplementedError

    def after(self, call: Call, jump: Tensor) -> Tensor:
        """The limit at a jump from the right."""
        raise NotImplementedError

    def jumps(self, box: Interval, side: int) -> Sequence[Tensor]:
        """Jumps whose vertices make the hull; those outside of the box are ignored."""
        low, high = box.lower - self.offset, box.upper - self.offset
        ends = (low.floor() + 1, high.floor()) if side == 1 else (low.ceil(), high.ceil() - 1)
        return [end + self.offset for end in ends]

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries over which f, which never falls, rises."""
        (box,) = inputs
        return (call.forward(box.lower) != call.forward(box.upper),)

    def vertices(self, call: Call, box: Interval, side: int) -> Vertices:
        """Ends and jumps; below, a jump counts where the box holds a point before it, above, a point after it."""
        lower, upper = box
        value = call.forward(lower)
        found = []
        for jump in self.jumps(box, side):
            held = (lower < jump) & (jump <= upper) if side == 1 else (lower <= jump) & (jump < upper)
            limit = self.before(call, jump) if side == 1 else self.after(call, jump)
            found.append((torch.where(held, jump, lower), torch.where(held, limit, value)))
        return [(lower, value), *found, (upper, call.forward(upper))]


@rule("floor")
class FloorRule(JumpRule):
    """Jumps to n at each integer n."""

    def before(self, call: Call, jump: Tensor) -> Tensor:
        """n - 1."""
        return jump - 1

    def after(self, call: Call, jump: Tensor) -> Tensor:
        """n."""
        return jump


@rule("ceil")
class CeilRule(JumpRule):
    """Jumps to n + 1 after each integer n."""

    def before(self, call: Call, jump: Tensor) -> Tensor:
        """n."""
        return jump

    def after(self, call: Call, jump: Tensor) -> Tensor:
        """n + 1."""
        return jump + 1


@rule("round")
class RoundRule(JumpRule):
    """Jumps by 1 at each half."""

    offset = 0.5

    def before(self, call: Call, jump: Tensor) -> Tensor:
        """The integer below."""
        return jump - 0.5

    def after(self, call: Call, jump: Tensor) -> Tensor:
        """The integer above."""
        return jump + 0.5


@rule("trunc")
class TruncRule(JumpRule):
    """Like ceil left of the origin and like floor right of it; no jump in the origin."""

    def before(self, call: Call, jump: Tensor) -> Tensor:
        """n left of the origin, n - 1 right of it."""
        return torch.where(jump > 0, jump - 1, jump)

    def after(self, call: Call, jump: Tensor) -> Tensor:
        """n + 1 left of the origin, n right of it."""
        return torch.where(jump < 0, jump + 1, jump)

    def jumps(self, box: Interval, side: int) -> Sequence[Tensor]:
        """Also -1 and 1: the jumps of the two sides lie on different lines."""
        first, last = super().jumps(box, side)
        return first, -torch.ones_like(first), torch.ones_like(first), last


@rule("sign", "step")
class StepRule(JumpRule):
    """One jump, in the origin; what f is exactly there matters only for a box that ends there."""

    def before(self, call: Call, jump: Tensor) -> Tensor:
        """f left of the origin."""
        return torch.full_like(jump, -1.0 if call.node.op == "sign" else 0.0)

    def after(self, call: Call, jump: Tensor) -> Tensor:
        """f right of the origin."""
        return torch.ones_like(jump)

    def jumps(self, box: Interval, side: int) -> Sequence[Tensor]:
        """The origin."""
        return (torch.zeros_like(box.lower),)


@rule("is_zero")
class IsZeroRule(VertexRule):
    """1 in the origin, else 0."""

    turns = (0.0,)

    def vertices(self, call: Call, box: Interval, side: int) -> Vertices:
        """Below, 0 unless the box is the origin itself; above, the origin stands out."""
        lower, upper = box
        if side == 1:
            value = torch.where(lower < upper, 0.0, call.forward(lower))
            return [(lower, value), (upper, value)]
        return [(x, call.forward(x)) for x in (lower, lower.clamp(min=0).minimum(upper), upper)]
