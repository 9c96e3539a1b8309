"""Softmax: exact intervals and planes.

With t_i = x_i minus the log-sum-exp of the others, softmax_i = s(t_i): the logistic sigmoid of one number that is
concave in x. Exact intervals come from t_i at opposite ends. The upper plane is a tangent of (concave envelope of s) of
t_i, which is below the upper bounds ER and LSE of Wei et al. (2023, arXiv 2303.01713) everywhere; the lower plane is
the best of tangents of convex functions in which chords stand for the exponentials of the other entries. Every point of
the box is a sound place for the tangents; the midpoint is the best one on average, others serve single rows better, and
one for all entries of a lane is as good as one for each. Nothing is added to a denominator or clamped: bounds hold on
boxes of any width. Lanes are (B, L, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.envelopes import sigmoid_above, sigmoid_below
from relaxations.exponentials import Terms, exp_chords, others_logsumexp, rest, shifted
from relaxations.lanes import LaneRelaxation, LaneRule, Lanes, Side
from relaxations.planes import ordered
from relaxations.products import middle
from relaxations.rule import Call, Interval, rule
from relaxations.shares import pick, product_above, smaller, tangents, zero_at


def logits(x: Interval) -> Interval:
    """Exact range of t_i, (B, L, n)."""
    x, _ = shifted(x, x.upper)
    return Interval(x.lower - others_logsumexp(x.upper), x.upper - others_logsumexp(x.lower))


def softmax_above(x: Interval, at: Tensor) -> Side:
    """The smaller at `at` of SIG and a product, values and slopes.

    SIG: tangents of envelope(t_i), concave because t_i is and the envelope rises. With many entries of similar size the
    sum of all hardly moves, and the product of e^(x_i) and the inverse of the sum may be the smaller one.
    """
    sig = tangents(logits(x), at, Terms(at, at), sigmoid_above)
    return smaller(sig, product_above(x, at, exp_chords(x, at), at))


def softmax_below(x: Interval, at: Tensor) -> Side:
    """The best at `at` of tangents of convex functions, values and slopes.

    A sums chords of exp over the others, r is the entry of the largest chord.

    SIG: envelope(x_i - log A). LSE: e^(x_i) over the sum of all chords. SIG of differences: the same with x_j - x_r in
    place of x_j, which for two entries needs no chord at all. For r itself also ER, s(-log A) with x_j - x_r, and SIG
    of differences to the second largest.
    """
    t, chords = logits(x), exp_chords(x, at)
    sig = tangents(t, at, chords, sigmoid_below)
    r, right = sig.largest, sig.right
    whole = chords.value.logsumexp(-1, keepdim=True)
    share = (at - whole).exp()  # LSE; its own entry is not left out
    wins = share > sig.value
    left = torch.where(wins, -share * (pick(chords.value, r) - whole).exp(), sig.left)
    own = torch.where(wins, share, sig.slope - sig.left * right)
    pivot = torch.where(pick(wins.to(share), r) > 0, 0, sig.pivot)
    value = torch.maximum(share, sig.value)

    moved = _differences(x, at, t, r)
    better = moved.value > value
    left, own = torch.where(better, 0, left), torch.where(better, moved.own, own)
    moved_left, lift = torch.where(better, moved.left, 0), torch.where(better, moved.lift, 0)
    value = torch.maximum(value, moved.value)

    row, on_r, value_r = _pivot(x, at, t, r)
    pays = value_r > pick(value, r)
    here = pays & (r > 0)
    pivot = torch.where(pays, row, pivot)
    own, left = torch.where(here, on_r, own), torch.where(here, 0, left)
    value = torch.where(here, value_r, value)
    pairs = ((left, right), (moved_left, moved.right), (lift, r), (r, pivot))
    return Side(own, value, pairs)


class Moved(NamedTuple):
    """SIG of differences to one entry r: value, slopes on the own entry, on the others (left x right), and on r."""

    value: Tensor
    own: Tensor
    left: Tensor
    right: Tensor
    lift: Tensor


def _relative(x: Interval, at: Tensor, r: Tensor) -> tuple[Interval, Tensor]:
    """x_j - x_r over the box and at the points; exactly 0 for r itself."""
    low, high, point = pick(x.lower, r), pick(x.upper, r), pick(at, r)
    return Interval(zero_at(r, x.lower - high), zero_at(r, x.upper - low)), zero_at(r, at - point)


def _differences(x: Interval, at: Tensor, t: Interval, r: Tensor) -> Moved:
    """For every entry but r, and but the largest chord where that is not r's 1 (its own slope would cancel)."""
    y, point = _relative(x, at, r)
    reach = Interval(torch.minimum(t.lower, y.lower - others_logsumexp(y.upper)), t.upper)
    found = tangents(reach, point, exp_chords(y, point), sigmoid_below)
    if at.shape[-1] == 2:  # there are no others but r
        right = left = cancels = torch.zeros_like(at)
    else:
        right, left, cancels = found.right, found.left, found.largest  # right is 0 for r: its difference has no width
    value = torch.where((r > 0) | (cancels > 0), -torch.inf, found.value)
    lift = -found.slope - left * (right.sum(-1, keepdim=True) - right)
    return Moved(value, found.slope - left * right, left, right, lift)


def _pivot(x: Interval, at: Tensor, t: Interval, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For r: slopes on the others (B, L, n), on itself, and the value (B, L, 1), of the better of ER and SIG.

    Both are functions of differences: their slopes have the sum 0.
    """
    y, point = _relative(x, at, r)
    chords = exp_chords(y, point)
    whole = pick(rest(chords.value).others, r)
    er, k = torch.sigmoid(-whole), torch.sigmoid(-whole) * torch.sigmoid(whole)
    er_row = zero_at(r, -k * zero_at(r, chords.slope - whole).exp())
    second = rest(torch.where(r > 0, -torch.inf, at)).largest
    y, point = _relative(x, at, second)
    chords = exp_chords(y, point)
    whole = torch.where(r > 0, -torch.inf, chords.value).logsumexp(-1, keepdim=True)
    low = pick(y.lower, r) - torch.where(r > 0, -torch.inf, y.upper).logsumexp(-1, keepdim=True)
    high = pick(t.upper, r)
    low = torch.minimum(low, pick(t.lower, r))
    sig, k = sigmoid_below(Interval(low, high), pick(point, r) - whole)
    both = r + second
    sig_row = zero_at(both, -k * zero_at(both, chords.slope - whole).exp())
    sig_row = sig_row - second * (k + sig_row.sum(-1, keepdim=True))
    row = torch.where(er > sig, er_row, sig_row)
    return row, -row.sum(-1, keepdim=True), torch.maximum(er, sig)


def relax_lanes(x: Interval, at: Tensor, hull: Interval) -> tuple[Side, Side]:
    """Planes below and above that touch at `at`; the ends of `hull` where they are not worse there."""
    near, point = shifted(x, at)
    lower, upper = softmax_below(near, point), softmax_above(near, point)
    return lower.touching(at, hull, hull.lower), upper.touching(at, hull, hull.upper)


def hull_of(x: Interval) -> Interval:
    """Exact range of the softmax; 0 to 1 where ends are infinite and nothing is known."""
    t = logits(x)
    low, high = t.lower.sigmoid(), t.upper.sigmoid()
    return ordered(torch.where(low.isnan(), 0, low), torch.where(high.isnan(), 1, high))


def out_of_reach(x: Interval, kept: Tensor) -> Interval:
    """Entries that a mask (L, n) or (B, L, n) drops, put so far below all others that their exponentials are 0."""
    lowest = torch.where(kept, x.lower, torch.inf).amin(-1, keepdim=True)
    far = lowest - 2000 - lowest.abs() / 256
    return Interval(torch.where(kept, x.lower, far), torch.where(kept, x.upper, far))


@rule("softmax")
class SoftmaxRule(LaneRule):
    """exp(x_i) over its sum, among the entries that a mask keeps where there is one."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact."""
        lanes, x, kept = self._lanes(call, inputs[0])
        hull = self._hull(x, kept)
        return Interval(lanes.join(hull.lower), lanes.join(hull.upper))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> LaneRelaxation:
        """Tangents at the midpoint."""
        return self.relax_at(call, inputs, middle(inputs[0])[0])

    def relax_at(self, call: Call, inputs: Sequence[Interval], at: Tensor) -> LaneRelaxation:
        """Tangents at points `at` (B, *N), which are moved into the box: any are sound, and gradients flow to them.

        For a point of its own for every row, repeat the boxes: one a row.
        """
        lanes, x, kept = self._lanes(call, inputs[0])
        hull = self._hull(x, kept)
        if x.lower.shape[-1] == 1:  # always 1
            return LaneRelaxation(lanes, Side.constant(hull.lower), Side.constant(hull.upper))
        point = torch.minimum(torch.maximum(lanes.split(at), x.lower), x.upper)
        lower, upper = relax_lanes(x, point, hull)
        if kept is not None:
            lower, upper = (side.or_constant(kept, torch.zeros_like(point)) for side in (lower, upper))
            if not bool(kept.any(-1).all()):  # a lane without entries has no sum
                return LaneRelaxation(lanes, lower, upper)
        return LaneRelaxation.of_shares(lanes, lower, upper, point, hull)

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries of positive width that the mask keeps."""
        wide = inputs[0].width != 0
        return (wide & (call.params["mask"] > 0) if "mask" in call.params else wide,)

    @staticmethod
    def _lanes(call: Call, x: Interval) -> tuple[Lanes, Interval, Tensor | None]:
        lanes = Lanes(tuple(x.lower.shape[1:]), (call.attrs["axis"],))
        by_lanes = lanes.interval(x)
        if "mask" not in call.params:
            return lanes, by_lanes, None
        kept = lanes.split(call.params["mask"].expand(1, *lanes.shape)) > 0
        return lanes, out_of_reach(by_lanes, kept), kept

    @staticmethod
    def _hull(x: Interval, kept: Tensor | None) -> Interval:
        hull = hull_of(x)
        return hull if kept is None else Interval(*(torch.where(kept, end, 0) for end in hull))
