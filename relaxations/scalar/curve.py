"""Curved functions: lines of any slope with a proved intercept, and the slopes of least area.

A function is cut into pieces on which its slope is monotone. The tightest lower line of slope k touches f at an end of
the box or where f' = k on a convex piece; the upper line is minus the lower line of -f, so everything below works on
F = side * f with side 1 (lower) or -1 (upper).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from relaxations.rule import Call, Interval
from relaxations.scalar.lines import STRETCHES, ScalarLines, Turns
from relaxations.scalar.pieces import Map, Piece, Point, Stretch, derivative, solve
from relaxations.scalar.rule import ScalarRule
from relaxations.scalar.solve import root, where_needed

CHORDS = 8  # by which the slopes at the ends of an envelope are found: any slopes are sound


class CurveRule(ScalarRule):
    """Base of the rules of curved functions: a rule gives the pieces.

    Intercepts are sound whatever the solver returns: on a convex piece F - k x lies above its tangent at the point
    found, and the tangent's fall towards the ends of the piece is subtracted (it is rounding when the point is right).
    Slopes are those of the supporting line of the envelope at the midpoint, which leaves the least area; such a line is
    a tangent at a known point, so that its intercept needs no solver.
    """

    slope_noise: float = 0.0  # absolute error of f', in units of eps, beside the relative one
    contact_steps: int = 6  # of a contact: slopes may be a little off, intercepts are exact for any
    kinked: bool = False  # whether f has kinks: a line through one need not be a tangent
    reach: float = math.inf  # beyond it f is so straight that contacts there are not told apart

    @abstractmethod
    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """The pieces from left to right; together they cover the domain, and f is continuous where they meet."""

    def slopes(self, call: Call, box: Interval) -> Interval:
        """From the ends of the pieces, between which f' is monotone."""
        low = torch.full_like(box.lower, math.inf)
        high = -low
        for piece in self.pieces(call, box):
            start, end = box.lower.clamp(min=piece.start), box.upper.clamp(max=piece.end)
            for x in (start, end):
                slope = piece.df(x)
                lost, outside = slope.isnan(), ~(start <= end)
                low = low.fmin(torch.where(lost, -math.inf, slope).masked_fill(outside, math.nan))
                high = high.fmax(torch.where(lost, math.inf, slope).masked_fill(outside, math.nan))
        return Interval(low, high)

    def value_and_slope(self, call: Call, x: Tensor, df: Map) -> tuple[Tensor, Tensor]:
        """f(x) and f'(x) on the piece whose f' is df; only for the search of contacts."""
        return self.f(call, x), df(x)

    def lines(self, call: Call, box: Interval) -> ScalarLines:
        """Least area between the two lines."""
        inside = self.inside(call, box)
        ends = self._ends(call, inside)
        found: list[Tensor] = []
        chord = self._secant(call, ends[0], ends[1])
        for side in (1, -1):
            slope, x = self.slope(call, inside, chord, side)
            found += slope, side * self.touch(call, inside, ends, (side * slope, x), side)
        return self.guarded(call, box, ScalarLines(*found))

    def lines_at(self, call: Call, box: Interval, lower_slope: Tensor, upper_slope: Tensor) -> ScalarLines:
        """The tightest intercepts, rounded outward; gradients by the envelope theorem."""
        inside = self.inside(call, box)
        ends = self._ends(call, inside)
        lower = self.touch(call, inside, ends, (lower_slope, None), 1)
        upper = -self.touch(call, inside, ends, (-upper_slope, None), -1)
        return self.guarded(call, box, ScalarLines(lower_slope, lower, upper_slope, upper))

    def choices(self, call: Call, box: Interval, own: ScalarLines) -> Turns:
        """Lines that touch f near the left and near the right end of its envelopes."""
        with torch.no_grad():
            inside = self.inside(call, box)
            share = torch.linspace(0, 1, CHORDS + 1, dtype=box.lower.dtype, device=box.lower.device)
            x = inside.lower + inside.width * share.reshape(-1, *(1 for _ in inside.lower.shape))
            y = self.f(call, x)
            first = ((y[1:] - y[0]) / (x[1:] - x[0])).nan_to_num(0.0, 0.0, 0.0)
            last = ((y[-1] - y[:-1]) / (x[-1] - x[:-1])).nan_to_num(0.0, 0.0, 0.0)
            low, high = self.slopes(call, inside)  # a difference of near values may be anything
            first, last = (slope.maximum(low).minimum(high) for slope in (first, last))
            left, right = (first.amin(0), first.amax(0)), (last.amax(0), last.amin(0))
            lines = [own, *self._way(call, box, own, left), *self._way(call, box, own, right)]
            moved = _outward(lines, box)
            return Turns(moved[0], moved[1 : STRETCHES + 1], moved[STRETCHES + 1 :])

    def _way(self, call: Call, box: Interval, own: ScalarLines, end: tuple[Tensor, Tensor]) -> Iterator[ScalarLines]:
        """Lines with slopes between its own and those at the end of the way."""
        for i in range(1, STRETCHES + 1):
            slopes = (a.lerp(b, i / STRETCHES) for a, b in zip((own.lower_slope, own.upper_slope), end, strict=True))
            yield self.lines_at(call, box, *slopes)

    def inside(self, call: Call, box: Interval) -> Interval:
        """The box, with every entry that has no lines replaced by one harmless point."""
        if self.usual(call, box):
            return box
        good = self.known(call, box)
        return Interval(torch.where(good, box.lower, 1.0), torch.where(good, box.upper, 1.0))

    # --- intercepts ---

    def touch(
        self, call: Call, box: Interval, ends: Sequence[Point], line: tuple[Tensor, Tensor | None], side: int
    ) -> Tensor:
        """A lower bound of F(x) - k x over the box that is the minimum up to rounding.

        `line` is k and, where it is known, a point at which the line of slope k supports the envelope.
        """
        k, x = line
        best = self._gap(ends[0], k, side).minimum(self._gap(ends[1], k, side))
        with torch.no_grad():
            stretches = self.stretches(call, box, k.detach(), side, x)
        for stretch in stretches:
            best = best.minimum(self._tangent(call, k, side, stretch))
        return best

    def stretches(self, call: Call, box: Interval, k: Tensor, side: int, x: Tensor | None) -> list[Stretch]:
        """The parts of the box on which F is convex; `x` as in `touch`."""
        found = []
        for piece in self.pieces(call, box):
            if piece.bend != side:
                continue
            start = box.lower.clamp(min=piece.start).minimum(box.upper)
            end = box.upper.clamp(max=piece.end).maximum(start)
            if bool((start < end).any()):
                at = solve(piece, k, side, (start, end), x)
                found.append(Stretch(start, end, at.x, side * piece.df(at.x), at.low, at.high))
        return found

    def _ends(self, call: Call, box: Interval) -> list[Point]:
        return [self._point(call, x) for x in box]

    def _point(self, call: Call, x: Tensor) -> Point:
        value = self.f(call, x)
        return Point(x, value, self.noise(x.detach(), value.detach()))

    def _gap(self, at: Point, k: Tensor, side: int) -> Tensor:
        """F(x) - k x, rounded down."""
        product = k * at.x
        gap = (at.value if side > 0 else -at.value) - product
        rounding = (product.detach().abs() + gap.detach().abs()) * torch.finfo(gap.dtype).eps
        return gap - (at.noise + rounding)

    def _tangent(self, call: Call, k: Tensor, side: int, stretch: Stretch) -> Tensor:
        """The least value over the stretch of the tangent of F - k x at its point.

        Outside of `low` to `high` F - k x is not less than at these two, up to the error of f'.
        """
        start, end, x, slope, low, high = stretch
        gap = self._gap(self._point(call, x), k, side)
        with torch.no_grad():
            steep, width = slope - k, end - start
            noise = (k.abs() * (2 * self.ulps) + self.slope_noise) * (torch.finfo(x.dtype).eps * width)
            fall = (steep * (x - low)).maximum(steep * (x - high)).clamp(min=0) + noise
            fall = torch.where(width > 0, fall, 0)  # where the stretch is a point, F' may be infinite
        return gap - fall

    # --- slopes ---

    def slope(self, call: Call, box: Interval, chord: Tensor, side: int) -> tuple[Tensor, Tensor | None]:
        """The slope of f's supporting line of least area, and where F minus that line is about least on the valley.

        The line goes through two points of contact, or is a tangent, or else the chord; None: the point is not known.
        """
        middle, whole = 0.5 * (box.lower + box.upper), box
        valley, box = self.valley(call, box, side)
        if valley is None:
            return chord, None
        lower, upper = box
        with torch.no_grad():
            start, end = lower.clamp(min=valley.start), upper.clamp(max=valley.end)
            convex = start < end
            end = end.maximum(start)
            first, last = self._contacts(call, box, valley._replace(start=start, end=end), side)
            hull = convex & (first < last)
            x = middle.maximum(first).minimum(last)
        if not (self.kinked or (torch.is_grad_enabled() and (lower.requires_grad or upper.requires_grad))):
            if box is not whole:
                chord = self._secant(call, *self._ends(call, box))
            slope = torch.where(hull, valley.df(x), chord)
            return slope, torch.where(hull, x, torch.where(side * (valley.df(end) - slope) <= 0, end, start))
        with torch.no_grad():
            on_left, on_right = middle <= first, middle >= last
        left = torch.where(hull, torch.where(on_right, last, torch.where(on_left, lower, middle)), lower)
        right = torch.where(hull, torch.where(on_left, first, torch.where(on_right, upper, middle)), upper)
        secant = self._secant(call, *self._ends(call, Interval(left, right)))
        if self.kinked:
            return secant, None
        exact = torch.where(hull, valley.df(x) - secant, 0).detach()  # gradients are those of the secant
        return secant + exact, None

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
            return derivative(pieces, x)

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

        def touching(anchor: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor]:
            return (self._contact(call, anchor, valley._replace(start=start, end=end), side),)

        convex = start < end
        (first,) = where_needed(convex & (box.lower < start), touching, [start], box.lower, start, end)
        (last,) = where_needed(convex & (box.upper > end), touching, [end], box.upper, start, end)
        return first, last

    def _contact(self, call: Call, anchor: Tensor, valley: Piece, side: int) -> Tensor:
        """The point of the valley whose tangent goes through the graph at the anchor, which lies outside of it."""
        start, end = torch.as_tensor(valley.start), torch.as_tensor(valley.end)
        height, right = side * self.f(call, anchor), anchor >= end
        if valley.inverse is None:
            towards = torch.where(right, 1.0, -1.0).to(anchor)

            def above(x: Tensor) -> Tensor:
                """By how much the tangent passes the anchor, over the square of the distance: about straight in x."""
                reach = anchor - x
                value, slope = self.value_and_slope(call, x, valley.df)
                passed = side * (value + slope * reach) - height
                return towards * passed / (reach * reach).clamp(min=torch.finfo(x.dtype).tiny)

            left, right_end = (x.clamp(-self.reach, self.reach) for x in (start, end))
            x = root(above, left, right_end, self.contact_steps).x
            return torch.where(x <= left, start, torch.where(x >= right_end, end, x))
        x = torch.where(right, end, start)
        for _ in range(self.contact_steps):  # Newton's method on the slope: secants, from one side after the first
            secant = (height - side * self.f(call, x)) / (anchor - x)
            following = valley.inverse(side * secant)
            x = torch.where(following.isnan(), x, following).maximum(start).minimum(end)
        return x

    def _secant(self, call: Call, left: Point, right: Point) -> Tensor:
        """Slope of f between two points; f' in the middle where they are too close for a difference."""
        rise, width, middle = right.value - left.value, right.x - left.x, 0.5 * (left.x + right.x)
        tiny = torch.finfo(width.dtype).eps ** 0.5
        far = width > tiny * (1 + middle.abs())
        if bool(far.all()):
            return rise / width
        far = far | (rise.abs() > tiny * left.value.abs().maximum(right.value.abs()))
        tangent = derivative(self.pieces(call, Interval(left.x, right.x)), middle)
        return torch.where(far, rise / torch.where(far, width, 1.0), tangent)


def _outward(family: Sequence[ScalarLines], box: Interval) -> list[ScalarLines]:
    """Lines moved by what rounding may add to a mean of two of them in the box: that of the largest terms of all."""
    reach, eps = box.lower.abs().maximum(box.upper.abs()), 4 * torch.finfo(box.lower.dtype).eps
    sides = []
    for slope, bias, side in (("lower_slope", "lower_bias", -1), ("upper_slope", "upper_bias", 1)):
        slopes = [getattr(lines, slope) for lines in family]
        held = [getattr(lines, bias) for lines in family]
        biases = [torch.zeros_like(k) if b is None else b for k, b in zip(slopes, held, strict=True)]
        terms = [(k * reach).abs() + b.abs() for k, b in zip(slopes, biases, strict=True)]
        largest = reduce(torch.maximum, [t.nan_to_num(0.0, 0.0, 0.0) for t in terms])
        sides.append([(k, b + side * eps * largest) for k, b in zip(slopes, biases, strict=True)])
    return [ScalarLines(*below, *above) for below, above in zip(*sides, strict=True)]
