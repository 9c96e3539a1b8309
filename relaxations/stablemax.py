"""StableMax (Prieto et al. 2025): s(x_i) over the sum of s, with s(x) = 1 + x for x >= 0 and 1 / (1 - x) for x < 0.

s rises and is convex, and its logarithm h(x) = sign(x) log(1 + |x|) is odd, convex below 0 and concave above. So
StableMax is the softmax of h(x), and a share is the sigmoid of t_i = h(x_i) - log S_i, where S_i sums s over the
others: exact intervals are those of the softmax. Planes are tangents of envelopes of the sigmoid at concave functions
above t_i,
    B: (upper line of h)(x_i) - log(sum of exp of lower lines of h),
    C: (upper line of h)(x_i) - (chord of log)(sum of tangents of s),
or at the convex function (lower line of h)(x_i) - log(sum of chords of s) below it (C), or of D, McCormick planes of
s(x_i) times the inverse of the sum of all. Each is sound at any point of the box. Lanes are (B, L, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from graphs.ops.scalar import signed_log
from relaxations.envelopes import Envelope, log_above, log_below, sigmoid_above, sigmoid_below
from relaxations.exponentials import Terms, others_logsumexp
from relaxations.lanes import LaneRelaxation, LaneRule, Lanes, Side
from relaxations.logsumexp import log_hull
from relaxations.products import middle, ratio
from relaxations.rule import Call, Interval, rule
from relaxations.shares import Product, Tangents, product_above, smaller, tangents
from relaxations.softmax import hull_of, logits

_STEPS = 7  # Newton's method from the right
_SMALL = 1e-3
_CANCELS = 1e3  # how much larger than the diagonal a product of a pair may be there


def s_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """s(x) and s'(x)."""
    low = (1 - x.clamp(max=0)).reciprocal()
    return torch.where(x >= 0, x + 1, low), low * low


class Line(NamedTuple):
    """A line's value at a point, and its slope."""

    value: Tensor
    slope: Tensor


def chord_of_s(x: Interval, at: Tensor) -> Line:
    """The chord of s; sums and products of positive numbers only, and exact where the width is 0."""
    low, steep = s_and_slope(x.lower)
    left = 1 / (1 - x.upper.clamp(max=0))  # the chord between two negative ends is the product of this and s(l)
    crossing = ratio(x.upper.clamp(min=0) - x.lower.clamp(max=0) * low, x.width)
    chord = torch.where(x.lower >= 0, torch.ones_like(low), torch.where(x.upper <= 0, low * left, crossing))
    chord = torch.where(x.width > 0, chord, steep)
    return Line(low + chord * (at - x.lower), chord)


def _touch(left: Tensor) -> Tensor:
    """A point d >= 0 whose tangent of h is not under h at `left` < 0: the least one, up to rounding.

    With y = 1 + d and c = 1 - left it is the root of y log(y c) = y + c - 2, whose left side minus its right side is
    convex and not negative at y = c, so that Newton's method from there stays to its right. d needs no derivative.
    """
    with torch.no_grad():
        left = left.clamp(-1e30, 0)
        c = 1 - left
        y = c
        for _ in range(_STEPS):
            fall = y.log() + c.log()
            y = torch.maximum(y - ratio(y * fall - y - c + 2, fall), torch.ones_like(y))
        return torch.where(left > -_SMALL, -left * 0.4143, y - 1)  # the root of 2 less 1, near 0 where h is rounding


def h_above(x: Interval, at: Tensor) -> Line:
    """The line above h of least gap at `at`: the tangent there, or the one through the left end, or the chord.

    A tangent is raised to pass through the left end where it would be under it: then it is sound at any d > 0.
    """
    low, high = signed_log(x.lower), signed_log(x.upper)
    d = torch.where(x.lower < 0, _touch(x.lower), x.lower)
    point = torch.maximum(at, d)
    steep = (1 + point.abs()).reciprocal()
    tangent = torch.maximum(signed_log(point) + steep * (at - point), low + steep * (at - x.lower))
    chord = torch.where(x.width > 0, ratio(high - low, x.width), 0)
    bent = d < x.upper
    value = torch.where(bent, tangent, torch.maximum(low + chord * (at - x.lower), high - chord * (x.upper - at)))
    flat = x.width <= 0
    return Line(torch.where(flat, high, value), torch.where(flat, 0, torch.where(bent, steep, chord)))


def h_below(x: Interval, at: Tensor) -> Line:
    """The same below, by oddness."""
    value, slope = h_above(Interval(-x.upper, -x.lower), -at)
    return Line(-value, slope)


class Box(NamedTuple):
    """What both sides need: the box, the point, the ranges of h and of t, and h's lines."""

    x: Interval
    at: Tensor
    h: Interval
    t: Interval
    above: Line
    below: Line

    @classmethod
    def of(cls, x: Interval, at: Tensor) -> Box:
        """For planes that touch at a point of the box."""
        h = Interval(signed_log(x.lower), signed_log(x.upper))
        return cls(x, at, h, logits(h), h_above(x, at), h_below(x, at))


def plane_above(box: Box, envelope: Envelope) -> Tangents:
    """B, as tangents whose slopes in x_i are those of the line of h."""
    terms = Terms(box.below.value, box.below.value + box.below.slope.log())
    found = tangents(box.t, box.above.value, terms, envelope)
    return found._replace(slope=found.slope * box.above.slope)


def sum_above(box: Box, envelope: Envelope) -> Product:
    """C; infinite where its slope in the own entry would cancel."""
    sums = Interval(*(others_logsumexp(end) for end in box.h))  # of the logarithm of S_i
    low = sums.lower.exp()
    m = torch.where(sums.width > 0, ratio(sums.width, sums.upper.exp() - low), 1 / low)  # chord of log
    steep, tangent_sum = s_and_slope(box.at)[1], others_logsumexp(signed_log(box.at)).exp()
    value, k = envelope(box.t, box.above.value - sums.lower - m * (tangent_sum - low))
    fits = (m * steep <= _CANCELS * box.above.slope) & m.isfinite()
    return Product(torch.where(fits, value, torch.inf), k * (box.above.slope + m * steep), -k * m, steep)


def shares_above(box: Box) -> Side:
    """The smallest of B, C and D at the point."""
    chord = chord_of_s(box.x, box.at)
    d = product_above(
        box.h, signed_log(box.at), Terms(chord.value.log(), chord.slope.log()), s_and_slope(box.at)[1].log()
    )
    return smaller(plane_above(box, sigmoid_above), sum_above(box, sigmoid_above), d)


def logs_above(box: Box) -> Side:
    """The smaller of B and C at the point."""
    return smaller(plane_above(box, log_above), sum_above(box, log_above))


def plane_below(box: Box, envelope: Envelope) -> tuple[Side, Line]:
    """C, and the sum of chords of s with its slope in every entry, as logarithms."""
    chord = chord_of_s(box.x, box.at)
    terms = Terms(chord.value.log(), chord.slope.log())
    found = tangents(box.t, box.below.value, terms, envelope)
    own = found.slope * box.below.slope - found.left * found.right
    pairs = ((found.left, found.right), (found.largest, found.pivot))
    whole = terms.value.logsumexp(-1, keepdim=True)
    return Side(own, found.value, pairs), Line(whole, (terms.slope - whole).exp())


def shares_below(box: Box) -> Side:
    """The larger of C and D at the point."""
    c, (whole, rises) = plane_below(box, sigmoid_below)
    s, steep = s_and_slope(box.at)
    least, inverse = box.h.lower, -box.h.upper.logsumexp(-1, keepdim=True)  # logarithms of the least s and 1 / sum
    base = (least - whole).exp()
    value = base + inverse.exp() * s - (least + inverse).exp()
    return _better(c, value, inverse.exp() * steep, -base, rises)


def logs_below(box: Box) -> Side:
    """The larger at the point of C by the chord of log s, and of the line of h minus log(sum of chords of s)."""
    c, (whole, rises) = plane_below(box, log_below)
    value = box.below.value - whole
    one = torch.ones_like(value)
    return _better(c, value, box.below.slope, -one, rises)


def _better(c: Side, value: Tensor, own: Tensor, left: Tensor, right: Tensor) -> Side:
    """Values and slopes of c, or of own_i x_i + left_i (right . x) where that has the larger value at the point."""
    wins = value > c.bias
    (left_c, right_c), (largest, pivot) = c.pairs
    pivot = torch.where((wins & (largest > 0)).any(-1, keepdim=True), 0, pivot)
    pairs = ((torch.where(wins, 0, left_c), right_c), (largest, pivot), (torch.where(wins, left, 0), right))
    return Side(torch.where(wins, own, c.own), torch.maximum(value, c.bias), pairs)


@rule("stablemax", "log_stablemax")
class StableMaxRule(LaneRule):
    """StableMax, or its logarithm."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact: that of the softmax of h(x)."""
        lanes = Lanes(tuple(inputs[0].lower.shape[1:]), (call.attrs["axis"],))
        x = lanes.interval(inputs[0])
        hull = self._hull(call, Interval(signed_log(x.lower), signed_log(x.upper)))
        return Interval(lanes.join(hull.lower), lanes.join(hull.upper))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> LaneRelaxation:
        """Planes that touch at the midpoint."""
        return self.relax_at(call, inputs, middle(inputs[0])[0])

    def relax_at(self, call: Call, inputs: Sequence[Interval], at: Tensor) -> LaneRelaxation:
        """Planes that touch at points `at` (B, *N), which are moved into the box; gradients flow to them."""
        lanes = Lanes(tuple(inputs[0].lower.shape[1:]), (call.attrs["axis"],))
        x = lanes.interval(inputs[0])
        point = torch.minimum(torch.maximum(lanes.split(at), x.lower), x.upper)
        box = Box.of(x, point)
        hull = self._hull(call, box.h)
        if point.shape[-1] == 1:  # always 1, or its logarithm
            return LaneRelaxation(lanes, Side.constant(hull.lower), Side.constant(hull.upper))
        shares = call.node.op == "stablemax"
        lower = shares_below(box) if shares else logs_below(box)
        upper = shares_above(box) if shares else logs_above(box)
        lower, upper = lower.touching(point, hull, hull.lower), upper.touching(point, hull, hull.upper)
        return (
            LaneRelaxation.of_shares(lanes, lower, upper, point, hull)
            if shares
            else LaneRelaxation(lanes, lower, upper)
        )

    @staticmethod
    def _hull(call: Call, h: Interval) -> Interval:
        return hull_of(h) if call.node.op == "stablemax" else log_hull(h)
