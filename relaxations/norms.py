"""Layer norm and RMS norm: c / sqrt(mean of c^2 + eps) with c = x (RMS) or x minus its lane's mean (layer norm).

Intervals: with the sum of squares of the other entries S, an entry is x / sqrt((x^2 + S) / n + eps), increasing in
x and monotone in S; for layer norm the same holds for the distance from the mean of the others. Planes: the mean
square is within a constant of a linear function, its inverse root within two lines, and c times that by McCormick.
Lanes are (B, L, n).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.lanes import LaneRelaxation, LaneRule, Lanes, Side, others
from relaxations.planes import ordered
from relaxations.products import mccormick_below, middle
from relaxations.rule import Call, Interval, rule


def squares(x: Interval) -> Interval:
    """Exact range of x^2."""
    low, high = x.lower.square(), x.upper.square()
    crosses = (x.lower <= 0) & (x.upper >= 0)
    return Interval(torch.where(crosses, 0, torch.minimum(low, high)), torch.maximum(low, high))


Curve = Callable[[Tensor], tuple[Tensor, Tensor]]  # value and derivative of a convex function


def _prefix(keys: Tensor, *values: Tensor) -> list[Tensor]:
    """Keys (B, L, n) in order, then for each of the values its sums over the first 0 .. n entries in that order."""
    keys, order = keys.sort(-1)
    zero = torch.zeros_like(keys[..., :1])
    return [keys.contiguous(), *(torch.cat([zero, v.gather(-1, order).cumsum(-1)], -1) for v in values)]


def _below(table: list[Tensor], c: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Number of keys below each c, and the sums over them: O(log n) for each c."""
    count = torch.searchsorted(table[0], c.detach().contiguous())
    return count, [sums.gather(-1, count) for sums in table[1:]]


def nearest(x: Interval, leave_out: bool) -> Curve:
    """The sum over j of the squared distance from c to [l_j, u_j]; with `leave_out` c_i is measured without entry i."""
    tables = [_prefix(ends, ends, ends.square()) for ends in (x.upper, -x.lower)]

    def at(c: Tensor) -> tuple[Tensor, Tensor]:
        value = slope = torch.zeros_like(c)
        for table, sign in zip(tables, (1, -1), strict=True):
            count, (first, second) = _below(table, sign * c)
            value = value + c * (count * c - 2 * sign * first) + second
            slope = slope + 2 * (count * c - sign * first)
        own = (c - x.upper).clamp(min=0) - (x.lower - c).clamp(min=0)
        return (value - own.square(), slope - 2 * own) if leave_out else (value, slope)

    return at


def farthest(x: Interval, leave_out: bool) -> Curve:
    """The same for the squared distance from c to the farther end, (|c - m_j| + r_j)^2."""
    m, r = middle(x)
    table = _prefix(m, r, r * m)
    n, total = m.shape[-1], [t.sum(-1, keepdim=True) for t in (m, r, r * m, m.square() + r.square())]

    def at(c: Tensor) -> tuple[Tensor, Tensor]:
        _, (weight, moment) = _below(table, c)
        weight, moment = 2 * weight - total[1], 2 * moment - total[2]  # sums of r and r m, negative for m_j above c
        value = c * (n * c - 2 * total[0]) + 2 * (c * weight - moment) + total[3]
        slope = 2 * (n * c - total[0] + weight)
        own = (c - m).abs() + r
        return (value - own.square(), slope - 2 * own * (c - m).sign()) if leave_out else (value, slope)

    return at


def spread(x: Interval, leave_out: bool) -> Interval:
    """Range of min over c of sum_j (x_j - c)^2 (sound), with every entry left out in turn or none: (B, L, n).

    Below, the minimum of `nearest`: bisection on its derivative, then the tangent at the left end over the last
    bracket. Above, `farthest` at any c: at the end of its own bisection.
    """
    shift = middle(x)[0].mean(-1, keepdim=True)
    x = Interval(x.lower - shift, x.upper - shift)
    rounding = 16 * torch.finfo(shift.dtype).eps * (x.lower.square() + x.upper.square()).sum(-1, keepdim=True)
    near, far = nearest(x, leave_out), farthest(x, leave_out)
    low, high = _bracket(near, x)
    value, slope = near(low)
    least = (value + slope.clamp(max=0) * (high - low) - rounding).clamp(min=0)
    return Interval(least, far(_bracket(far, x)[1])[0].clamp(min=0) + rounding)


def _bracket(curve: Curve, x: Interval) -> tuple[Tensor, Tensor]:
    """Two points around the minimum of each convex function."""
    with torch.no_grad():
        low = x.lower.amin(-1, keepdim=True).expand_as(x.lower)
        high = x.upper.amax(-1, keepdim=True).expand_as(x.lower)
        for _ in range(40):
            c = low + (high - low) / 2
            left = curve(c)[1] <= 0
            low, high = torch.where(left, c, low), torch.where(left, high, c)
    return low, high


class Ranges(NamedTuple):
    """What both rules need of an input box, by lanes.

    `entry` (B, L, n): range of the entry whose square is split off (x, or the distance from the mean of the others);
    `share`: weight of its square, and of itself in the result; `rest` (B, L, n): range of the remaining sum of squares;
    `total` (B, L, 1): range of the whole sum of squares.
    """

    entry: Interval
    share: float
    rest: Interval
    total: Interval


def ranges(x: Interval, centred: bool) -> Ranges:
    """Ranges of an RMS norm (exact), or of a layer norm (entry exact, the others sound)."""
    if not centred:
        square = squares(x)
        total = Interval(*(end.sum(-1, keepdim=True) for end in square))
        return Ranges(x, 1.0, Interval(*(others(end) for end in square)), total)
    n = x.lower.shape[-1]
    entry = Interval(x.lower - others(x.upper) / (n - 1), x.upper - others(x.lower) / (n - 1))
    total = spread(x, leave_out=False)
    rest = Interval(torch.zeros_like(x.lower), torch.zeros_like(x.lower)) if n == 2 else spread(x, leave_out=True)
    return Ranges(entry, (n - 1) / n, rest, Interval(total.lower[..., :1], total.upper[..., :1]))


@rule("layer_norm", "rms_norm")
class NormRule(LaneRule):
    """Division by the root mean square, after centring for layer norm."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact for RMS norm; for layer norm sound (the mean of the others and their spread vary independently)."""
        lanes = Lanes(tuple(inputs[0].lower.shape[1:]), tuple(call.attrs["axes"]))
        x = lanes.interval(inputs[0])
        if self._constant(call, x):
            return Interval(torch.zeros_like(inputs[0].lower), torch.zeros_like(inputs[0].lower))
        hull = _hull(ranges(x, call.node.op == "layer_norm"), x.lower.shape[-1], call.attrs["eps"])
        return Interval(lanes.join(hull.lower), lanes.join(hull.upper))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> LaneRelaxation:
        """See the module's docstring; constants where they are better at the midpoint, or a bound is infinite."""
        lanes = Lanes(tuple(inputs[0].lower.shape[1:]), tuple(call.attrs["axes"]))
        x, eps, centred = lanes.interval(inputs[0]), call.attrs["eps"], call.node.op == "layer_norm"
        if self._constant(call, x):
            zero = Side.constant(torch.zeros_like(x.lower))
            return LaneRelaxation(lanes, zero, zero, centred)
        found = ranges(x, centred)
        hull = _hull(found, x.lower.shape[-1], eps)
        c = Interval(found.entry.lower * found.share, found.entry.upper * found.share)
        root = InverseRoot.over(c, middle(x)[1].square().mean(-1, keepdim=True), found.total, eps)
        m, _ = middle(c)
        below, low = _times_root(c, root)
        above, high = _times_root(Interval(-c.upper, -c.lower), root)  # y = -((-c) root), so its slopes stay
        return LaneRelaxation(
            lanes,
            below.through(m, low).or_constant(low >= hull.lower, hull.lower),
            above.through(m, -high).or_constant(-high <= hull.upper, hull.upper),
            centred,
        )

    @staticmethod
    def _constant(call: Call, x: Interval) -> bool:
        return call.node.op == "layer_norm" and x.lower.shape[-1] == 1


def _hull(found: Ranges, n: int, eps: float) -> Interval:
    """Range of the result, (B, L, n)."""
    (low, high), rest, share = found.entry, found.rest, found.share

    def value(entry: Tensor, rest: Tensor) -> Tensor:
        y = share * entry / ((share * entry.square() + rest) / n + eps).sqrt()
        return torch.where(entry == 0, 0, y)

    below = value(low, torch.where(low > 0, rest.upper, rest.lower))
    above = value(high, torch.where(high > 0, rest.lower, rest.upper))
    most = math.sqrt(n * share)  # no entry exceeds it
    return ordered(
        torch.where(below.isnan(), -most, below).clamp(-most, most),
        torch.where(above.isnan(), most, above).clamp(-most, most),
    )


class InverseRoot(NamedTuple):
    """(mean of c^2 + eps)^(-1/2): its range, and lines in G = 2 (mean of m c), all (B, L, 1); m is c's midpoint.

    It is at least low_value + low_slope (G - G at m) and at most the same with `high`; slopes are negative.
    """

    range: Interval
    low_value: Tensor
    low_slope: Tensor
    high_value: Tensor
    high_slope: Tensor

    @classmethod
    def over(cls, c: Interval, slack: Tensor, total: Interval, eps: float) -> InverseRoot:
        """From c's range and that of its sum of squares.

        The mean square s of c is G - mean m^2 plus the mean square of the deviations, which is between 0 and `slack`
        (deviations of x are not shorter than those of c, a projection of x). Then a tangent and a chord of s^(-1/2).
        """
        n = c.lower.shape[-1]
        low, high = total.lower / n + eps, total.upper / n + eps
        least = middle(c)[0].square().mean(-1, keepdim=True) + eps
        most = least + slack
        touch = torch.minimum(torch.maximum(most, low), high)
        low_slope = -0.5 * touch.pow(-1.5)
        high_slope = -1 / (low.sqrt() * high.sqrt() * (low.sqrt() + high.sqrt()))
        return cls(
            Interval(high.rsqrt(), low.rsqrt()),
            touch.rsqrt() + low_slope * (most - touch), low_slope,
            low.rsqrt() + high_slope * (least - low), high_slope,
        )  # fmt: skip


def _times_root(c: Interval, root: InverseRoot) -> tuple[Side, Tensor]:
    """Slopes and value at the midpoint of the best of three McCormick planes below c_i times the inverse root."""
    m, _ = middle(c)
    shared = 2 * m / m.shape[-1]
    best = (torch.full_like(m, -torch.inf), m, m)
    for weight in (None, torch.ones_like(m), -torch.ones_like(m)):
        plane = mccormick_below(c, root.range, weight)
        on_c, on_root = plane.slopes
        rises = on_root >= 0
        value = on_c * m + on_root * torch.where(rises, root.low_value, root.high_value) + plane.bias
        gain = on_root * torch.where(rises, root.low_slope, root.high_slope)
        wins = value > best[0]
        best = (torch.where(wins, value, best[0]), torch.where(wins, on_c, best[1]), torch.where(wins, gain, best[2]))
    value, on_c, gain = best
    return Side(on_c, torch.zeros_like(m), ((gain, shared),)), value
