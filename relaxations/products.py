"""Products and quotients of two variables: exact intervals and McCormick planes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from relaxations.planes import Plane, Planes, any_broadcast, common_shape, shapes_of
from relaxations.rule import Call, Interval, Rule, rule


def middle(x: Interval) -> tuple[Tensor, Tensor]:
    """Midpoint and radius; the midpoint is exact where the width is zero."""
    radius = x.width / 2
    return x.lower + radius, radius


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, 0 where the denominator is."""
    nonzero = denominator != 0
    return torch.where(nonzero, numerator / torch.where(nonzero, denominator, torch.ones_like(denominator)), 0)


def times(a: Tensor, b: Tensor) -> Tensor:
    """a b with 0 * inf = 0: an end of an interval may be infinite, the value itself is not."""
    return torch.where((a == 0) | (b == 0), 0, a * b)


def product_interval(x: Interval, y: Interval) -> Interval:
    """Exact range of x y: the extremes over the four corners."""
    corners = [times(a, b) for a in x for b in y]
    return Interval(
        torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(corners[2], corners[3])),
        torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3])),
    )


def balance(p: Tensor, q: Tensor) -> Tensor:
    """The number nearest to p + q between p and q, cut to [-1, 1]."""
    return torch.maximum(torch.minimum(p, q), torch.minimum(torch.maximum(p, q), p + q)).clamp(-1, 1)


def mccormick_below(x: Interval, y: Interval, weight: Tensor | None = None) -> Plane:
    """A plane below x y over a box; every weight t in [-1, 1] gives one, and all of them have the same volume.

    t mixes the two planes of McCormick (1976): t = 1 touches at the lower ends, t = -1 at the upper ends. Slopes are
    my - t ry and mx - t rx for midpoints m and radii r, so that every t between mx / rx and my / ry attains the exact
    interval bound on the box. The default is the one of them nearest to the sum of the two: where both have one sign
    the slope of one factor is 0, and nothing that is lost in front of it counts.
    """
    t = balance(ratio(*middle(x)), ratio(*middle(y))) if weight is None else weight
    p, q = (1 + t) / 2, (1 - t) / 2
    slopes = (p * y.lower + q * y.upper, p * x.lower + q * x.upper)
    return Plane(slopes, -p * x.lower * y.lower - q * x.upper * y.upper)


def mccormick(x: Interval, y: Interval) -> tuple[Plane, Plane]:
    """Planes below and above x y over a box."""
    above = mccormick_below(Interval(-x.upper, -x.lower), y)  # x y = -((-x) y)
    return mccormick_below(x, y), Plane((above.slopes[0], -above.slopes[1]), -above.bias)


def corner_planes(x: Interval, y: Interval) -> tuple[Plane, Plane]:
    """Those that touch at the lower end of y, and of x below and above: at times better than the default ones."""
    one = torch.ones_like(x.lower)
    above = mccormick_below(Interval(-x.upper, -x.lower), y, -one)
    return mccormick_below(x, y, one), Plane((above.slopes[0], -above.slopes[1]), -above.bias)


def full(inputs: Sequence[Interval]) -> list[Interval]:
    """The intervals, repeated to their common shape."""
    shape = common_shape([i.lower.shape for i in inputs])
    return [Interval(i.lower.expand(shape), i.upper.expand(shape)) for i in inputs]


def both_vary(inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
    """Entries of positive width whose partner varies, too."""
    spread = [i.width != 0 for i in full(inputs)]
    both = spread[0] & spread[1]
    return tuple(any_broadcast(both, shape) for shape in shapes_of(inputs))


@rule("mul")
class MulRule(Rule):
    """x y; x x is a square."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact."""
        x, y = inputs
        hull = product_interval(x, y)
        if not _is_square(call):
            return hull
        crosses = (x.lower <= 0) & (x.upper >= 0)
        low = torch.minimum(times(x.lower, x.lower), times(x.upper, x.upper))
        return Interval(torch.where(crosses, 0, low), hull.upper)

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Planes:
        """McCormick planes; for a square the tangent at the midpoint and the chord."""
        x, y = full(inputs)
        if _is_square(call):
            m, _ = middle(x)
            none = torch.zeros_like(m)
            below, above = Plane((2 * m, none), -m * m), Plane((2 * m, none), -x.lower * x.upper)
        else:
            below, above = mccormick(x, y)
        return Planes.of(below, above, self.interval(call, (x, y)), shapes_of(inputs))

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries whose partner varies, too."""
        return both_vary(inputs)


@rule("smooth_chain")
class SmoothChainRule(MulRule):
    """x d for a slope d that mostly has one sign: where one factor alone has a sign, planes do not depend on it.

    There the other factor's coefficient is an end of an interval that is most of what is known, as at kinks.
    """

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Planes:
        """McCormick planes."""
        x, d = full(inputs)
        below = mccormick_below(x, d, self._weight(x, d))
        turned = Interval(-x.upper, -x.lower)
        above = mccormick_below(turned, d, self._weight(turned, d))  # x d = -((-x) d)
        above = Plane((above.slopes[0], -above.slopes[1]), -above.bias)
        return Planes.of(below, above, self.interval(call, (x, d)), shapes_of(inputs))

    @staticmethod
    def _weight(x: Interval, d: Interval) -> Tensor:
        """Midpoint by radius of the factor without a sign; where both or none have one, the nearest to 0 between."""
        p, q = ratio(*middle(x)), ratio(*middle(d))
        low, high = torch.minimum(p, q), torch.maximum(p, q)
        nearest = low.maximum(high.minimum(torch.zeros_like(p))).clamp(-1, 1)
        signs = p.abs() >= 1, q.abs() >= 1
        return torch.where(signs[1] & ~signs[0], p, torch.where(signs[0] & ~signs[1], q, nearest))


def _is_square(call: Call) -> bool:
    return call.node.inputs[0] == call.node.inputs[1]


@rule("div")
class DivRule(Rule):
    """x / y. Where the denominator's interval contains 0 nothing is known."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact where y has one sign; else infinite."""
        x, y = full(inputs)
        known = (y.lower > 0) | (y.upper < 0)
        safe = Interval(torch.where(known, y.lower, 1), torch.where(known, y.upper, 1))
        corners = torch.stack([torch.where(a == 0, 0, a / b) for a in x for b in safe])
        low, high = corners.amin(0), corners.amax(0)
        known = known & ~low.isnan() & ~high.isnan()
        return Interval(torch.where(known, low, -torch.inf), torch.where(known, high, torch.inf))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Planes:
        """The best at the midpoint of several planes, below and above."""
        x, y = full(inputs)
        hull = self.interval(call, (x, y))
        turn = y.upper < 0  # x / y = (-x) / (-y)
        flip = torch.where(turn, -1.0, 1.0).to(x.lower)
        known = turn | (y.lower > 0)
        nx = Interval(torch.where(turn, -x.upper, x.lower), torch.where(turn, -x.lower, x.upper))
        ny = Interval(torch.where(turn, -y.upper, y.lower), torch.where(turn, -y.lower, y.upper))
        ny = Interval(torch.where(known, ny.lower, 1), torch.where(known, ny.upper, 1))
        below, above = quotient_planes(nx, ny)
        unknown = Plane((torch.zeros_like(flip),) * 2, torch.full_like(flip, torch.nan))
        turned = [Plane(tuple(s * flip for s in p.slopes), p.bias).choose(known, unknown) for p in (below, above)]
        return Planes.of(turned[0], turned[1], hull, shapes_of(inputs))

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Numerators that vary with their denominators; every denominator that varies."""
        return both_vary(inputs)[0], inputs[1].width != 0


def quotient_planes(x: Interval, y: Interval) -> tuple[Plane, Plane]:
    """Planes below and above x / y for y > 0."""
    above = _quotient_below(Interval(-x.upper, -x.lower), y)  # x / y = -((-x) / y)
    return _quotient_below(x, y), Plane((above.slopes[0], -above.slopes[1]), -above.bias)


def _quotient_below(x: Interval, y: Interval) -> Plane:
    """The best plane at the midpoint below x / y for y > 0: McCormick planes of x (1 / y), or the convex envelope's.

    The envelope's is the tangent of q(x)^2 / y with q = (x + sqrt(xl xu)) / (sqrt xl + sqrt xu), for x >= 0
    (Zamora and Grossmann 1999).
    """
    (mx, _), (my, _) = middle(x), middle(y)
    z = Interval(1 / y.upper, 1 / y.lower)
    weight = balance(ratio(*middle(x)), ratio(*middle(z)))
    candidates = [
        _times_reciprocal(mccormick_below(x, z, t), y) for t in (weight, -torch.ones_like(mx), torch.ones_like(mx))
    ]
    low, high = (torch.where(end > 0, torch.where(end > 0, end, 1).sqrt(), 0) for end in x)  # finite gradients at 0
    q, dq = ratio(mx + low * high, low + high), ratio(torch.ones_like(mx), low + high)
    slope_x, slope_y = 2 * q * dq / my, -((q / my) ** 2)
    tangent = Plane((slope_x, slope_y), q * q / my - slope_x * mx - slope_y * my)
    usable = (x.lower >= 0) & (x.upper > 0)
    best = candidates[0]
    for other, allowed in ((candidates[1], None), (candidates[2], None), (tangent, usable)):
        better = other.at((mx, my)) > best.at((mx, my))
        best = other.choose(better if allowed is None else better & allowed, best)
    return best


def _times_reciprocal(plane: Plane, y: Interval) -> Plane:
    """A plane below x z, z = 1 / y, as one in x and y: tangent of 1 / y where z's slope is positive, else its chord."""
    slope, at_z = plane.slopes
    m, _ = middle(y)
    line = torch.where(at_z >= 0, -1 / (m * m), -1 / (y.lower * y.upper))
    level = torch.where(at_z >= 0, 2 / m, 1 / y.lower + 1 / y.upper)
    return Plane((slope, at_z * line), plane.bias + at_z * level)
