"""Curved functions: lines of any slope with a proved intercept, and the slopes of least area.

A function is cut into pieces on which its slope is monotone. The tightest lower line of slope k touches f at an end of
the box or where f' = k on a convex piece; the upper line is minus the lower line of -f, so everything below works on
F = side * f with side 1 (lower) or -1 (upper).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.rule import Call, Interval
from relaxations.scalar.lines import ScalarLines
from relaxations.scalar.rule import ScalarRule
from relaxations.scalar.solve import root, where_needed

Map = Callable[[Tensor], Tensor]


class Piece(NamedTuple):
    """A stretch of the axis on which f' rises (`bend` 1), falls (-1) or stays (0); its ends may differ by entry.

    `df` is f' there, up to and including both ends; `inverse` solves f'(x) = k on it in closed form (only where f' is
    strictly monotone), and may return anything where there is no solution. Both work on any selection of entries.
    """

    start: float | Tensor
    end: float | Tensor
    bend: int
    df: Map
    inverse: Map | None = None


class Stretch(NamedTuple):
    """A part of the box on which F is convex, the point where F - k x is about least, and F' there."""

    start: Tensor
    end: Tensor
    x: Tensor
    slope: Tensor


class CurveRule(ScalarRule):
    """Base of the rules of curved functions: a rule gives the pieces.

    Intercepts are sound whatever the solver returns: on a convex piece F - k x lies above its tangent at the point
    found, and the tangent's fall towards the ends of the piece is subtracted (it is rounding when the point is right).
    Slopes are those of the supporting line of the envelope at the midpoint, which leaves the least area.
    """

    slope_noise: float = 0.0  # absolute error of f', in units of eps, beside the relative one

    @abstractmethod
    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """The pieces from left to right; together they cover the domain, and f is continuous where they meet."""

    def lines(self, call: Call, box: Interval) -> ScalarLines:
        """Least area between the two lines."""
        inside = self.inside(call, box)
        return self.lines_at(call, box, self.slope(call, inside, 1), self.slope(call, inside, -1))

    def lines_at(self, call: Call, box: Interval, lower_slope: Tensor, upper_slope: Tensor) -> ScalarLines:
        """The tightest intercepts, rounded outward; gradients by the envelope theorem."""
        inside = self.inside(call, box)
        lower = self.touch(call, inside, lower_slope, 1)
        upper = -self.touch(call, inside, -upper_slope, -1)
        return self.guarded(call, box, ScalarLines(lower_slope, lower, upper_slope, upper))

    def inside(self, call: Call, box: Interval) -> Interval:
        """The box, with every entry that has no lines replaced by one harmless point."""
        if self.usual(call, box):
            return box
        good = self.known(call, box)
        return Interval(torch.where(good, box.lower, 1.0), torch.where(good, box.upper, 1.0))

    # --- intercepts ---

    def touch(self, call: Call, box: Interval, k: Tensor, side: int) -> Tensor:
        """A lower bound of F(x) - k x over the box that is the minimum up to rounding."""
        best = self._gap(call, box.lower, k, side).minimum(self._gap(call, box.upper, k, side))
        with torch.no_grad():
            stretches = self.stretches(call, box, k.detach(), side)
        for stretch in stretches:
            best = best.minimum(self._tangent(call, k, side, stretch))
        return best

    def stretches(self, call: Call, box: Interval, k: Tensor, side: int) -> list[Stretch]:
        """The parts of the box on which F is convex."""
        found = []
        for piece in self.pieces(call, box):
            start = box.lower.clamp(min=piece.start).minimum(box.upper)
            end = box.upper.clamp(max=piece.end).maximum(start)
            if piece.bend == side and bool((start < end).any()):
                x = _solve(piece, k, side, start, end)
                found.append(Stretch(start, end, x, side * piece.df(x)))
        return found

    def _gap(self, call: Call, x: Tensor, k: Tensor, side: int) -> Tensor:
        """F(x) - k x, rounded down."""
        value, product = self.f(call, x), k * x
        gap = side * value - product
        rounding = torch.finfo(gap.dtype).eps * (product.abs() + gap.abs())
        return gap - (self.noise(x, value) + rounding).detach()

    def _tangent(self, call: Call, k: Tensor, side: int, stretch: Stretch) -> Tensor:
        """The least value over the stretch of the tangent of F - k x at its point."""
        start, end, x, slope = stretch
        gap = self._gap(call, x, k, side)
        with torch.no_grad():
            noise = torch.finfo(x.dtype).eps * (2 * self.ulps * k.abs() + self.slope_noise) * (end - start)
            fall = ((slope - k) * (x - start)).maximum((slope - k) * (x - end))
            fall = torch.where(start < end, fall.clamp(min=0) + noise, 0)
        return gap - fall

    # --- slopes ---

    def slope(self, call: Call, box: Interval, side: int) -> Tensor:
        """The slope of f's supporting line of least area: through two points of contact, or a tangent."""
        middle = 0.5 * (box.lower + box.upper)
        valley, box = self.valley(call, box, side)
        lower, upper = box
        left, right = lower, upper
        if valley is not None:
            with torch.no_grad():
                start, end = lower.clamp(min=valley.start), upper.clamp(max=valley.end)
                convex = start < end
                end = end.maximum(start)
                first, last = self._contacts(call, box, valley._replace(start=start, end=end), side)
                hull = convex & (first < last)
                on_left, on_right = middle <= first, middle >= last
            left = torch.where(hull, torch.where(on_right, last, torch.where(on_left, lower, middle)), lower)
            right = torch.where(hull, torch.where(on_left, first, torch.where(on_right, upper, middle)), upper)
        return self._secant(call, left, right, middle)

    def valley(self, call: Call, box: Interval, side: int) -> tuple[Piece | None, Interval]:
        """The convex piece of F that the envelope follows, and the part of the box that its slope depends on.

        Of two pieces with a concave one between, the envelope follows the right one as soon as the box reaches it:
        true for functions like GELU, that have no line touching both.
        """
        pieces = self.pieces(call, box)
        found = [piece for piece in pieces if piece.bend == side]
        if len(found) < 2:
            return (found[0] if found else None), box

        def df(x: Tensor) -> Tensor:
            return _derivative(pieces, x)

        first, last = found[0], found[-1]
        if len(found) == len(pieces):
            return Piece(first.start, last.end, side, df), box
        reached = box.upper > last.start
        ends = [[torch.as_tensor(end).to(box.upper) for end in (p.start, p.end)] for p in (first, last)]
        start, end = (torch.where(reached, right, left) for left, right in zip(*ends, strict=True))
        return Piece(start, end, side, df), box

    def _contacts(self, call: Call, box: Interval, valley: Piece, side: int) -> tuple[Tensor, Tensor]:
        """Where the lines from the two ends of the box touch the valley; the ends themselves if they lie in it."""
        start, end = torch.as_tensor(valley.start), torch.as_tensor(valley.end)

        def touching(anchor: Tensor, start: Tensor, end: Tensor) -> Tensor:
            return self._contact(call, anchor, valley._replace(start=start, end=end), side)

        convex = start < end
        first = where_needed(convex & (box.lower < start), touching, start, box.lower, start, end)
        return first, where_needed(convex & (box.upper > end), touching, end, box.upper, start, end)

    def _contact(self, call: Call, anchor: Tensor, valley: Piece, side: int) -> Tensor:
        """The point of the valley whose tangent goes through the graph at the anchor, which lies outside of it."""
        start, end = torch.as_tensor(valley.start), torch.as_tensor(valley.end)
        height, right = side * self.f(call, anchor), anchor >= end
        if valley.inverse is None:

            def above(x: Tensor) -> Tensor:
                tangent = side * (self.f(call, x) + valley.df(x) * (anchor - x))
                return torch.where(right, tangent - height, height - tangent)

            return root(above, start, end)
        x = torch.where(right, end, start)
        for _ in range(6):  # Newton's method on the slope: its steps are secants, from one side after the first
            secant = (height - side * self.f(call, x)) / (anchor - x)
            following = valley.inverse(side * secant)
            x = torch.where(following.isnan(), x, following).maximum(start).minimum(end)
        return x

    def _secant(self, call: Call, left: Tensor, right: Tensor, middle: Tensor) -> Tensor:
        """Slope of f between two points; f' in the middle where they are too close for a difference."""
        low, high, width = self.f(call, left), self.f(call, right), right - left
        tiny = torch.finfo(width.dtype).eps ** 0.5
        far = (width > tiny * (1 + middle.abs())) | ((high - low).abs() > tiny * low.abs().maximum(high.abs()))
        tangent = _derivative(self.pieces(call, Interval(left, right)), middle)
        return torch.where(far, (high - low) / torch.where(far, width, 1.0), tangent)


def _derivative(pieces: Sequence[Piece], x: Tensor) -> Tensor:
    """f'(x); where two pieces meet, of the left one."""
    slope = pieces[0].df(x)
    for before, piece in pairwise(pieces):
        if piece.df != before.df:
            slope = torch.where(x > piece.start, piece.df(x), slope)
    return slope


def _solve(piece: Piece, k: Tensor, side: int, start: Tensor, end: Tensor) -> Tensor:
    """About where F' = k in [start, end], on which F' rises; an end where F' does not reach k."""
    low, high = side * piece.df(start) >= k, side * piece.df(end) <= k

    def inside(k: Tensor, start: Tensor, end: Tensor) -> Tensor:
        if piece.inverse is None:
            return root(lambda x: side * piece.df(x) - k, start, end)
        x = piece.inverse(side * k)
        return torch.where(x.isnan(), start, x).maximum(start).minimum(end)

    return where_needed(~(low | high), inside, torch.where(low, start, end), k, start, end)
