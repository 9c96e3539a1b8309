"""Log-sum-exp and log-softmax: planes from the tangent of one and from logarithms of sums of chords of exp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relaxations.exponentials import exp_chords, shifted, summit
from relaxations.lanes import LaneRelaxation, LaneRule, Lanes, Side
from relaxations.planes import flat, offset, ordered, scaled, signs
from relaxations.products import middle
from relaxations.rule import Affine, Call, Interval, Relaxation, rule
from relaxations.softmax import logits


class SumPlanes(NamedTuple):
    """Planes of log-sum-exp of each lane: values (B, L, 1) at a point and slopes (B, L, n), below and above."""

    low: Tensor
    falls: Tensor
    high: Tensor
    rises: Tensor


def logsumexp_planes(x: Interval, at: Tensor) -> SumPlanes:
    """Below is the tangent at `at`; above, the smaller there of two functions log(sum of chords of exp), concave: of x
    itself, and of x minus its largest entry r (its own chord is then exact).
    """
    low = at.logsumexp(-1, keepdim=True)
    chords = exp_chords(x, at)
    high = chords.value.logsumexp(-1, keepdim=True)
    rises = (chords.slope - high).exp()
    r = at.argmax(-1, keepdim=True)
    own = torch.zeros_like(at).scatter(-1, r, 1.0)
    gap = Interval(*(torch.where(own > 0, 0, end) for end in (x.lower - x.upper.gather(-1, r),
                                                             x.upper - x.lower.gather(-1, r))))  # fmt: skip
    chords = exp_chords(gap, torch.where(own > 0, 0, at - at.gather(-1, r)))
    total = chords.value.logsumexp(-1, keepdim=True)
    shifted, weights = at.gather(-1, r) + total, (chords.slope - total).exp()
    weights = weights + own * (1 - weights.sum(-1, keepdim=True))
    better = shifted < high
    return SumPlanes(low, at.softmax(-1), torch.where(better, shifted, high), torch.where(better, weights, rises))


@dataclass(frozen=True)
class LaneSum(Relaxation):
    """One number per lane between two planes: slopes (B, L, n), biases (B, L)."""

    lanes: Lanes
    lower_slope: Tensor
    lower_bias: Tensor
    upper_slope: Tensor
    upper_bias: Tensor
    out_shape: tuple[int, ...]

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Rows (B, S, *N_out) to rows on the one input."""
        positive, negative = signs(flat(rows, 2))
        bias = offset(positive, negative, self.lower_bias, self.upper_bias)
        pulled = positive.unsqueeze(-1) * self.lower_slope.unsqueeze(1)
        return (self.lanes.join(torch.addcmul(pulled, negative.unsqueeze(-1), self.upper_slope.unsqueeze(1))),), bias

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """Sums along lanes by the signs of the slopes."""
        low_slope, low_bias, high_slope, high_bias = (self.lanes.split(part) for part in inputs[0])
        low, high = self.lower_slope.unsqueeze(1), -self.upper_slope.unsqueeze(1)
        parts = (
            scaled(low, low_slope, high_slope).sum(-1),
            scaled(self.lower_slope, low_bias, high_bias).sum(-1) + self.lower_bias,
            -scaled(high, low_slope, high_slope).sum(-1),
            self.upper_bias - scaled(-self.upper_slope, low_bias, high_bias).sum(-1),
        )
        return Affine(*(part.reshape(*part.shape[:-1], *self.out_shape) for part in parts))


@rule("logsumexp")
class LogSumExpRule(LaneRule):
    """log of the sum of exp along each lane."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact: the op is monotone."""
        return Interval(call.forward(inputs[0].lower), call.forward(inputs[0].upper))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> LaneSum:
        """Planes that touch at the midpoint."""
        return self.relax_at(call, inputs, middle(inputs[0])[0])

    def relax_at(self, call: Call, inputs: Sequence[Interval], at: Tensor) -> LaneSum:
        """Planes that touch at points `at` (B, *N), which are moved into the box."""
        lanes = Lanes(tuple(inputs[0].lower.shape[1:]), tuple(call.attrs["axes"]))
        x = lanes.interval(inputs[0])
        at = torch.minimum(torch.maximum(lanes.split(at), x.lower), x.upper)
        planes = logsumexp_planes(*shifted(x, at))
        top = summit(x)
        sides: list[Tensor] = []
        for value, slope, end in ((planes.low, planes.falls, x.lower), (planes.high, planes.rises, x.upper)):
            bias = (value + top - (slope * at).sum(-1, keepdim=True)).squeeze(-1)
            good = bias.isfinite() & slope.isfinite().all(-1)
            sides += [torch.where(good.unsqueeze(-1), slope, 0), torch.where(good, bias, end.logsumexp(-1))]
        return LaneSum(lanes, sides[0], sides[1], sides[2], sides[3], call.node.shape)


@rule("log_softmax")
class LogSoftmaxRule(LaneRule):
    """x minus its log-sum-exp."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact: minus the softplus of minus t_i."""
        lanes = Lanes(tuple(inputs[0].lower.shape[1:]), (call.attrs["axis"],))
        hull = log_hull(lanes.interval(inputs[0]))
        return Interval(lanes.join(hull.lower), lanes.join(hull.upper))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> LaneRelaxation:
        """Planes that touch at the midpoint."""
        return self.relax_at(call, inputs, middle(inputs[0])[0])

    def relax_at(self, call: Call, inputs: Sequence[Interval], at: Tensor) -> LaneRelaxation:
        """x minus the planes of log-sum-exp that touch at points `at` (B, *N), which are moved into the box."""
        lanes = Lanes(tuple(inputs[0].lower.shape[1:]), (call.attrs["axis"],))
        x = lanes.interval(inputs[0])
        hull = log_hull(x)
        if x.lower.shape[-1] == 1:  # always 0
            return LaneRelaxation(lanes, Side.constant(hull.lower), Side.constant(hull.upper))
        at = torch.minimum(torch.maximum(lanes.split(at), x.lower), x.upper)
        near, point = shifted(x, at)
        planes, one = logsumexp_planes(near, point), torch.ones_like(at)
        lower = Side(one, point - planes.high, ((-one, planes.rises),))
        upper = Side(one, point - planes.low, ((-one, planes.falls),))
        return LaneRelaxation(lanes, lower.touching(at, hull, hull.lower), upper.touching(at, hull, hull.upper))


def log_hull(x: Interval) -> Interval:
    """Exact range of the log-softmax; at most 0 where ends are infinite and nothing is known."""
    t = logits(x)
    low, high = F.logsigmoid(t.lower), F.logsigmoid(t.upper)
    return ordered(torch.where(low.isnan(), -torch.inf, low), torch.where(high.isnan(), 0, high))
