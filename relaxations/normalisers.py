"""Softmax, log-softmax and log-sum-exp.

With t_i = x_i minus the log-sum-exp of the others, softmax_i = sigmoid(t_i): a function of one number that is
concave in x. Exact intervals come from t_i at opposite ends; planes are tangents, at the box's midpoint, of a
concave function above and a convex one below (Wei et al. 2023, arXiv 2303.01713, with envelopes of the sigmoid in
place of its chords). Nothing is added to a denominator or clamped: bounds hold on boxes of any width. Lanes are (B,
L, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from relaxations.lanes import LaneRelaxation, Lanes, Side, others
from relaxations.planes import flat, offset, ordered, scaled, signs
from relaxations.products import middle, ratio
from relaxations.rule import Affine, Call, Interval, Relaxation, Rule, rule


def others_logsumexp(x: Tensor) -> Tensor:
    """For each entry the log-sum-exp of the others along the last axis (-inf where there are none)."""
    if x.shape[-1] == 1:
        return torch.full_like(x, -torch.inf)
    before, after = x.logcumsumexp(-1), x.flip(-1).logcumsumexp(-1).flip(-1)
    middle_ = torch.logaddexp(before[..., :-2], after[..., 2:])
    return torch.cat([after[..., 1:2], middle_, before[..., -2:-1]], -1)


def logits(x: Interval) -> Interval:
    """Exact range of t_i, (B, L, n)."""
    return Interval(x.lower - others_logsumexp(x.upper), x.upper - others_logsumexp(x.lower))


def _tangent_point(left: Tensor) -> Tensor:
    """A point d >= 0 whose tangent of the sigmoid is not under the sigmoid at `left`: least up to bisection.

    Every such point gives a sound line, so d needs no derivative.
    """
    with torch.no_grad():
        low, high = torch.zeros_like(left), (-left).clamp(min=0, max=1e4)
        for _ in range(60):
            d = (low + high) / 2
            enough = d.sigmoid() - left.sigmoid() >= _slope(d) * (d - left)
            low, high = torch.where(enough, low, d), torch.where(enough, d, high)
    return high


def _chord(t: Interval) -> Tensor:
    """Slope of the sigmoid's chord; 0 where the width is."""
    return ratio(t.upper.sigmoid() - t.lower.sigmoid(), t.width)


def sigmoid_above(t: Interval, at: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope at `at` of the least concave function above the sigmoid on t (all of one shape).

    It is the sigmoid to the right of a point d > 0 and the tangent at d, which passes through the left end, before.
    """
    d, left = _tangent_point(t.lower), t.lower.sigmoid()
    touch = torch.maximum(at, d)
    bent, slope = d < t.upper, _slope(touch)
    # the tangent read from either end: from d, and from the left where values may be tiny
    line = torch.maximum(touch.sigmoid() + slope * (at - touch), left + slope * (at - t.lower).clamp(min=0))
    curve = torch.where(at < d, line, touch.sigmoid())
    chord = _chord(t)
    value = torch.where(bent, curve, left + chord * (at - t.lower))
    flat_ = t.width <= 0
    return torch.where(flat_, t.upper.sigmoid(), value), torch.where(flat_, 0, torch.where(bent, slope, chord))


def sigmoid_below(t: Interval, at: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope at `at` of the greatest convex function below the sigmoid on t.

    It is `sigmoid_above` turned by 180 degrees, written out since 1 minus the other would lose small values.
    """
    d = -_tangent_point(-t.upper)
    touch = torch.minimum(at, d)
    bent, slope, chord = d > t.lower, _slope(touch), _chord(t)
    value = torch.where(bent, touch.sigmoid() + slope * (at - touch), t.lower.sigmoid() + chord * (at - t.lower))
    flat_ = t.width <= 0
    return torch.where(flat_, t.lower.sigmoid(), value), torch.where(flat_, 0, torch.where(bent, slope, chord))


def _slope(t: Tensor) -> Tensor:
    return t.sigmoid() * (-t).sigmoid()


def exp_chord(x: Interval) -> tuple[Tensor, Tensor]:
    """Value at the midpoint and slope of the chord of exp, divided by exp of each lane's largest upper end."""
    top = x.upper.amax(-1, keepdim=True)
    low, high, width = (x.lower - top).exp(), (x.upper - top).exp(), x.width
    safe = torch.where(width > 0, width, torch.ones_like(width))
    return (low + high) / 2, torch.where(width > 0, high * -torch.expm1(-safe) / safe, 0)


def softmax_above(x: Interval, hull: Interval) -> Side:
    """Tangents of envelope(t_i), concave because t_i is and the envelope rises."""
    m, _ = middle(x)
    rest = others_logsumexp(m)
    value, slope = sigmoid_above(logits(x), m - rest)
    share = (m - m.logsumexp(-1, keepdim=True)).exp()
    remain = (rest - m.logsumexp(-1, keepdim=True)).exp()  # 1 - share, without cancellation
    large_enough = remain > torch.finfo(m.dtype).tiny ** 0.5
    gain = slope / torch.where(large_enough, remain, torch.ones_like(remain))
    side = Side(slope, -gain, share, value).through(m, value)
    return side.or_constant(large_enough & _within(value, hull), hull.upper)


def softmax_below(x: Interval, hull: Interval) -> Side:
    """The better at the midpoint of two convex functions, with A_i = sum over j != i of chords of exp(x_j).

    envelope(x_i - log A_i), and exp(x_i) over the sum of all chords (never under- or overflows). With two entries the
    first is a sigmoid of x_i - x_j, without chords.
    """
    m, _ = middle(x)
    t = logits(x)
    chord, slope_exp = exp_chord(x)
    share = (m - x.upper.amax(-1, keepdim=True)).exp() / chord.sum(-1, keepdim=True)
    gain_log = share / chord.sum(-1, keepdim=True)
    if x.lower.shape[-1] == 2:
        slope_exp, rest = torch.ones_like(m), torch.ones_like(m)
        tau = m - m.flip(-1)
        gain_log = torch.zeros_like(m)
        allowed = torch.zeros_like(m, dtype=torch.bool)
    else:
        rest = others(chord)
        tau = m - x.upper.amax(-1, keepdim=True) - rest.log()
        allowed = torch.ones_like(m, dtype=torch.bool)
    value, slope = sigmoid_below(t, torch.minimum(torch.maximum(tau, t.lower), t.upper))
    large_enough = rest > torch.finfo(m.dtype).tiny ** 0.5
    gain = slope / torch.where(large_enough, rest, torch.ones_like(rest))
    log_wins = allowed & (~large_enough | (share > value))
    side = Side(
        torch.where(log_wins, share - gain_log * slope_exp, slope),
        -torch.where(log_wins, gain_log, gain),
        slope_exp,
        value,
    )
    best = torch.where(log_wins, share, value)
    return side.through(m, best).or_constant(_within(best, hull), hull.lower)


def _within(value: Tensor, hull: Interval) -> Tensor:
    """Whether a plane's value at the midpoint is inside the output's interval; else a constant is not worse."""
    return (hull.lower <= value) & (value <= hull.upper)


def logsumexp_slopes(x: Interval) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Planes of log-sum-exp of each lane: value (B, L, 1) at the midpoint and slopes (B, L, n), below and above.

    Below is the tangent; above, the smaller at the midpoint of two functions log(sum of chords of exp), concave: of x
    itself, and of x minus its largest entry r (its own chord is then exact).
    """
    m, _ = middle(x)
    low = m.logsumexp(-1, keepdim=True)
    chord, slope = exp_chord(x)
    total = chord.sum(-1, keepdim=True)
    high, rises = x.upper.amax(-1, keepdim=True) + total.log(), slope / total
    r = m.argmax(-1, keepdim=True)
    own = torch.zeros_like(m).scatter(-1, r, 1.0)
    gap = Interval(x.lower - x.upper.gather(-1, r), x.upper - x.lower.gather(-1, r))
    gap = Interval(torch.where(own > 0, 0, gap.lower), torch.where(own > 0, 0, gap.upper))
    chord, slope = exp_chord(gap)
    total, top = chord.sum(-1, keepdim=True), gap.upper.amax(-1, keepdim=True)
    shifted, weights = m.gather(-1, r) + top + total.log(), slope / total
    better = shifted < high
    weights = weights + own * (1 - weights.sum(-1, keepdim=True))
    return low, (m - low).exp(), torch.where(better, shifted, high), torch.where(better, weights, rises)


class LaneRule(Rule):
    """What rules along lanes share: every entry that varies would relax better if tighter."""

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries of positive width."""
        return (inputs[0].width != 0,)


@rule("softmax", "log_softmax")
class SoftmaxRule(LaneRule):
    """exp(x_i) over its sum, or its logarithm."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact."""
        lanes = _lanes(call, inputs[0])
        return Interval(*(lanes.join(end) for end in self._hull(call, lanes.interval(inputs[0]))))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> LaneRelaxation:
        """Tangents at the midpoint, see `softmax_above`, `softmax_below`, `logsumexp_slopes`."""
        lanes = _lanes(call, inputs[0])
        x = lanes.interval(inputs[0])
        hull = self._hull(call, x)
        if x.lower.shape[-1] == 1:  # always 1, or its logarithm
            zero = torch.zeros_like(x.lower)
            return LaneRelaxation(lanes, Side(zero, zero, zero, hull.lower), Side(zero, zero, zero, hull.upper))
        if call.node.op == "softmax":
            return LaneRelaxation(lanes, softmax_below(x, hull), softmax_above(x, hull))
        m, _ = middle(x)
        low, falls, high, rises = logsumexp_slopes(x)
        one = torch.ones_like(m)
        below = Side(1 - rises, -one, rises, one).through(m, m - high)
        above = Side(others(falls), -one, falls, one).through(m, m - low)
        return LaneRelaxation(
            lanes,
            below.or_constant(_within(m - high, hull), hull.lower),
            above.or_constant(_within(m - low, hull), hull.upper),
        )

    def _hull(self, call: Call, x: Interval) -> Interval:
        t = logits(x)
        if call.node.op == "softmax":
            low, high = t.lower.sigmoid(), t.upper.sigmoid()
            return ordered(torch.where(low.isnan(), 0, low), torch.where(high.isnan(), 1, high))
        low, high = F.logsigmoid(t.lower), F.logsigmoid(t.upper)
        return ordered(torch.where(low.isnan(), -torch.inf, low), torch.where(high.isnan(), 0, high))


def _lanes(call: Call, x: Interval) -> Lanes:
    attrs = call.attrs
    return Lanes(tuple(x.lower.shape[1:]), tuple(attrs["axes"]) if "axes" in attrs else (attrs["axis"],))


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
        """`logsumexp_slopes`."""
        lanes = _lanes(call, inputs[0])
        x = lanes.interval(inputs[0])
        m, _ = middle(x)
        low, falls, high, rises = logsumexp_slopes(x)
        sides: list[Tensor] = []
        for value, slope, end in ((low, falls, x.lower), (high, rises, x.upper)):
            bias = (value - (slope * m).sum(-1, keepdim=True)).squeeze(-1)
            good = bias.isfinite() & slope.isfinite().all(-1)
            sides += [torch.where(good.unsqueeze(-1), slope, 0), torch.where(good, bias, end.logsumexp(-1))]
        return LaneSum(lanes, sides[0], sides[1], sides[2], sides[3], call.node.shape)
