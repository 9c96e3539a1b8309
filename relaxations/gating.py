"""The k largest entries, and sparse gating: softmax among the k largest entries of a lane, 0 elsewhere.

An entry is *sure* to be among the k largest where at most k - 1 others reach it, and *never* where k others are always
above it. A gate is at most the softmax among its entry and any k - 1 others (it also holds where the gate is 0): its
plane is SIG among those with the largest midpoints. A sure gate is at least the softmax among all that are not never.
Ties may be broken either way. Lanes are (B, L, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.envelopes import sigmoid_above
from relaxations.exponentials import Terms, shifted
from relaxations.lanes import LaneRelaxation, LaneRule, Lanes, Side, others
from relaxations.maximum import MaximumRule
from relaxations.planes import Picks, Plane, ordered, shapes_of
from relaxations.products import middle, quotient_planes
from relaxations.rule import Affine, Call, Interval, Relaxation, rule
from relaxations.shares import Product, smaller, tangents
from relaxations.softmax import logits, out_of_reach, softmax_below


class Places(NamedTuple):
    """Which entries are always among the k largest of their lane, and which are never (bool, (B, L, n))."""

    sure: Tensor
    never: Tensor

    @classmethod
    def of(cls, gaps: Interval, k: int) -> Places:
        """From the gaps x_j - x_i in row i: ties count against both, and an entry reaches itself."""
        reach = (gaps.upper >= 0).sum(-1) - 1
        above = (gaps.lower > 0).sum(-1)
        return cls(reach <= k - 1, above >= k)


def gaps_of(x: Interval, known: Interval | None = None) -> Interval:
    """Differences x_j - x_i in row i, (B, L, n, n), met with what is known of them; 0 to 0 for an entry itself.

    Only their signs and sums of their exponentials count, so that a limit next to 0 is as good as 0.
    """
    low = x.lower.unsqueeze(-2) - x.upper.unsqueeze(-1)
    high = x.upper.unsqueeze(-2) - x.lower.unsqueeze(-1)
    if known is not None:
        low = torch.fmax(low, torch.fmax(known.lower, -known.upper.transpose(-1, -2)))
        high = torch.fmin(high, torch.fmin(known.upper, -known.lower.transpose(-1, -2)))
    own = torch.eye(low.shape[-1], dtype=torch.bool, device=low.device)
    return Interval(low.masked_fill(own, 0), high.masked_fill(own, 0))


def leaders(gaps: Tensor, k: int) -> Tensor:
    """For each entry the log-sum-exp of the k - 1 largest gaps to others (-inf for k = 1)."""
    if k == 1:
        return torch.full_like(gaps[..., 0], -torch.inf)
    own = torch.eye(gaps.shape[-1], dtype=torch.bool, device=gaps.device)
    return gaps.masked_fill(own, -torch.inf).topk(k - 1, -1).values.logsumexp(-1)


def hull_of(gaps: Interval, k: int) -> Interval:
    """Ranges of the gates: exact over a box but for the lower end of those that are neither sure nor never, 0."""
    sure, never = Places.of(gaps, k)
    low, high = ((-leaders(end, k)).sigmoid() for end in (gaps.upper, gaps.lower))
    return ordered(torch.where(sure, low, 0), torch.where(never, 0, high))


def gates_above(x: Interval, at: Tensor, k: int) -> Side:
    """SIG among the k entries with the largest midpoints, or the k - 1 largest and the entry itself; k > 1."""
    order = middle(x)[0].topk(k, -1).indices
    inside = torch.zeros_like(at).scatter(-1, order, 1.0) > 0
    first = torch.zeros_like(at).scatter(-1, order[..., :-1], 1.0) > 0
    near = out_of_reach(x, inside)
    point = torch.where(inside, at, near.lower)
    found = tangents(logits(near), point, Terms(point, point), sigmoid_above)
    ends = [torch.where(first, end, -torch.inf).logsumexp(-1, keepdim=True) for end in (x.upper, x.lower, at)]
    value, steep = sigmoid_above(Interval(x.lower - ends[0], x.upper - ends[1]), at - ends[2])
    right = torch.where(first, at - ends[2], -torch.inf).exp()
    outside = Product(torch.where(inside, torch.inf, value), steep, -steep, right)
    return smaller(found._replace(value=torch.where(inside, found.value, torch.inf)), outside)


@dataclass(frozen=True)
class GateRelaxation(Relaxation):
    """Planes in the entries, and none in their gaps (shape of one sample)."""

    planes: LaneRelaxation
    gaps: tuple[int, ...] | None

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Rows on the gates to rows on the entries, and zeros on the gaps where they are an input."""
        parts, bias = self.planes.pull(rows)
        return (*parts, *([] if self.gaps is None else [rows.new_zeros(*bias.shape, *self.gaps)])), bias

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """As the planes do."""
        return self.planes.push(inputs[:1])

    def take(self, owner: Tensor) -> GateRelaxation:
        """Of the boxes of rows."""
        return GateRelaxation(self.planes.take(owner), self.gaps)


@rule("top_k_softmax")
class GateRule(LaneRule):
    """Softmax among the k largest entries of a lane."""

    compared = (1,)

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """`hull_of`."""
        lanes, _, gaps = self._lanes(call, inputs)
        hull = hull_of(gaps, call.attrs["k"])
        return Interval(lanes.join(hull.lower), lanes.join(hull.upper))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> GateRelaxation:
        """Planes that touch at the midpoint, constants below gates that are not sure."""
        lanes, x, gaps = self._lanes(call, inputs)
        hull, k = hull_of(gaps, call.attrs["k"]), call.attrs["k"]
        shape = tuple(inputs[1].lower.shape[1:]) if len(inputs) > 1 else None
        if k == 1:
            lower, upper = Side.constant(hull.lower), Side.constant(hull.upper)
            return GateRelaxation(LaneRelaxation(lanes, lower, upper, level=hull), shape)
        at = middle(x)[0]
        near, point = shifted(x, at)
        sure, never = Places.of(gaps, k)
        upper = gates_above(near, point, k).touching(at, hull, hull.upper)
        near = out_of_reach(near, ~never)
        lower = softmax_below(near, middle(near)[0]).touching(at, hull, hull.lower)
        lower, upper = lower.or_constant(sure, hull.lower), upper.or_constant(~never, hull.upper)
        return GateRelaxation(LaneRelaxation.of_shares(lanes, lower, upper, at, hull), shape)

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries of positive width; of the gaps those above the diagonal that may have either sign."""
        wide = inputs[0].width != 0
        if len(inputs) == 1:
            return (wide,)
        _, _, gaps = self._lanes(call, inputs)
        either = ((gaps.lower <= 0) & (gaps.upper >= 0)).triu(1)
        return wide, either.reshape(inputs[1].lower.shape)

    @staticmethod
    def _lanes(call: Call, inputs: Sequence[Interval]) -> tuple[Lanes, Interval, Interval]:
        lanes = Lanes(tuple(inputs[0].lower.shape[1:]), (call.attrs["axis"],))
        x, known = lanes.interval(inputs[0]), None
        if len(inputs) > 1:
            n = x.lower.shape[-1]
            known = Interval(*(end.reshape(len(end), -1, n, n) for end in inputs[1]))
        return lanes, x, gaps_of(x, known)


@rule("shares")
class SharesRule(LaneRule):
    """x_i / (sum of x + eps) for x >= 0 (ends below 0 are cut): exact interval, planes of a quotient by the sum."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Each entry at one end, the others at the opposite ones."""
        lanes = Lanes(tuple(inputs[0].lower.shape[1:]), (call.attrs["axis"],))
        hull = self._hull(lanes.interval(inputs[0]), call.attrs["eps"])
        return Interval(lanes.join(hull.lower), lanes.join(hull.upper))

    @staticmethod
    def _hull(x: Interval, eps: float) -> Interval:
        low, high = (end.clamp(min=0) for end in x)
        least, most = low / (low + others(high) + eps), high / (high + others(low) + eps)
        return ordered(torch.where(least.isfinite(), least, 0), torch.where(most.isfinite(), most, 1))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> LaneRelaxation:
        """The planes of x / S for S between the sums of the ends, where they are not worse at the midpoint."""
        lanes, eps = Lanes(tuple(inputs[0].lower.shape[1:]), (call.attrs["axis"],)), call.attrs["eps"]
        given = lanes.interval(inputs[0])
        hull, x = self._hull(given, eps), Interval(*(end.clamp(min=0) for end in given))
        total = Interval(*(end.sum(-1, keepdim=True).expand_as(end) + eps for end in x))
        below, above = quotient_planes(x, total)
        at, whole = middle(x)[0], middle(total)[0]
        tiny = 4 * torch.finfo(at.dtype).eps  # where x is 0, nothing but the rounding of the bias is left
        lower, upper = (
            Side(slope, value, ((left, torch.ones_like(at)),)).touching(at, hull, end)
            for (slope, left), value, end in (
                (below.slopes, below.at((at, whole)) - tiny * _size(below, at, whole), hull.lower),
                (above.slopes, above.at((at, whole)) + tiny * _size(above, at, whole), hull.upper),
            )
        )
        return LaneRelaxation(lanes, lower, upper)


def _size(plane: Plane, x: Tensor, y: Tensor) -> Tensor:
    return plane.slopes[0].abs() * x + plane.slopes[1].abs() * y


@rule("top_k")
class TopRule(MaximumRule):
    """The k largest entries of each lane in falling order: lines where it is known which entry comes where."""

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Picks:
        """The entry itself where exactly r others are above it and all the rest below, else constants."""
        (box,) = inputs
        shape, axis = tuple(box.lower.shape[1:]), call.attrs["axis"]
        lanes, out = Lanes(shape, (axis,)), Lanes(call.node.shape, (axis,))
        x, rank = lanes.interval(box), torch.arange(call.attrs["k"], device=box.lower.device)
        entry = middle(x)[0].nan_to_num().topk(len(rank), -1).indices
        low, high = x.lower.gather(-1, entry).unsqueeze(-1), x.upper.gather(-1, entry).unsqueeze(-1)
        above, below = (x.lower.unsqueeze(-2) >= high).sum(-1), (x.upper.unsqueeze(-2) <= low).sum(-1)
        point = (low == high).squeeze(-1).to(above)  # which counts itself on both sides
        known = (above - point >= rank) & (below - point >= x.lower.shape[-1] - 1 - rank)
        place = torch.arange(torch.Size(shape).numel(), device=box.lower.device).reshape(1, *shape)
        index = out.join(lanes.split(place).expand_as(x.lower).gather(-1, entry))
        hull = self.interval(call, inputs)
        slope = out.join(known).to(hull.lower)
        bias = Interval(*(torch.where(slope > 0, 0, end) for end in hull))
        return Picks(index, slope, bias.lower, index, slope, bias.upper, shapes_of(inputs)).or_constant(hull)

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries of positive width."""
        return (inputs[0].width != 0,)
