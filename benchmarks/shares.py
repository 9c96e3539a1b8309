"""Published bounds of softmax and StableMax at the midpoint of a box, to compare ours with.

A linear bound that is tangent at the midpoint has there its mean gap over the box but for the mean of the function, so
that values at midpoints are all that a comparison needs. Boxes are (B, K), and every function gives all K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from graphs import GraphBuilder
from graphs.ops import OPS
from graphs.ops.scalar import signed_log
from relaxations import RULES, Call, Interval, stablemax
from relaxations.envelopes import sigmoid_above, sigmoid_below
from relaxations.exponentials import exp_chords
from relaxations.softmax import hull_of
from relaxations.stablemax import chord_of_s, h_above, h_below, s_and_slope

Values = Interval  # of a bound below and one above, at the midpoint, each (B, K)


def node(op: str, size: int) -> Call:
    """An op along the one axis of a vector."""
    builder = GraphBuilder()
    name = builder.add(op, [builder.input("x", (size,))], attrs={"axis": 0})
    graph = builder.build([name])
    return Call.of(graph, graph[name])


def midpoint(x: Interval) -> Tensor:
    """Of every box."""
    return (x.lower + x.upper) / 2


def ours(op: str, x: Interval) -> Values:
    """The planes of our rule."""
    planes, middle = RULES[op].relax(node(op, x.lower.shape[1]), [x]), midpoint(x).unsqueeze(1)
    return Values(planes.lower.at(middle)[:, 0], planes.upper.at(middle)[:, 0])  # type: ignore[attr-defined]


def constant(op: str, x: Interval) -> Values:
    """The exact interval."""
    return RULES[op].interval(node(op, x.lower.shape[1]), [x])


def log_form(x: Interval) -> Values:
    """LSE and LSE* of Wei et al. (2023, arXiv 2303.01713)."""
    middle, hull = midpoint(x), hull_of(x)
    above = _log_chord(hull, middle.log_softmax(-1))
    below = (middle - exp_chords(x, middle).value.logsumexp(-1, keepdim=True)).exp()
    return Values(below, above)


def reciprocal_form(x: Interval) -> Values:
    """ER of Wei et al. (2023)."""
    middle, hull = midpoint(x), hull_of(x)
    above = hull.lower + hull.upper - hull.lower * hull.upper / middle.softmax(-1)
    return Values(1 / _chords_of_differences(x), above)


def differences(x: Interval) -> Values:
    """1 over the sum of lines of exp(x_j - x_i): the linear baseline of Wei et al.; DeepT uses the same form."""
    high = _chords_of_differences(x)
    gap, wide = _gaps(x), x.lower.unsqueeze(2) * 0
    steep = exp_chords(gap, midpoint(gap)).slope
    touch = torch.minimum(steep.where(steep.isfinite(), midpoint(gap)), gap.lower + 1)
    lines = touch.exp() * (midpoint(gap) - touch + 1) + wide
    low = 1 + _without_own(lines)
    least = 1 + _without_own(touch.exp() * (gap.lower - touch + 1))
    most = 1 + _without_own(gap.upper.exp())
    at = torch.maximum((least * most).sqrt(), most / 2)
    return Values((2 - high / at) / at, 1 / least + 1 / most - low / (least * most))


def composed(op: str, x: Interval) -> Values:
    """exp or s, sum, reciprocal and product, each relaxed on its own: the best of three mixtures of McCormick."""
    return _composed(_exponentials(x) if op == "softmax" else _stable(x))


def log_form_of_stablemax(x: Interval) -> Values:
    """LSE on lines of log s, and the interval below."""
    middle, h = midpoint(x), Interval(signed_log(x.lower), signed_log(x.upper))
    own, rest, hull = h_above(x, middle).value, h_below(x, middle).value, hull_of(h)
    others = torch.stack(
        [torch.cat([rest[:, :i], own[:, i : i + 1], rest[:, i + 1 :]], 1) for i in range(own.shape[1])]
    )
    share = others.log_softmax(-1).diagonal(dim1=0, dim2=2)
    return Values(hull.lower, _log_chord(hull, share))


def concave_and_chords(x: Interval) -> Values:
    """B above and C below, each alone, as far as the exact interval goes."""
    box, hull = stablemax.Box.of(x, midpoint(x)), constant("stablemax", x)
    below, _ = stablemax.plane_below(box, sigmoid_below)
    return Values(below.bias.maximum(hull.lower), stablemax.plane_above(box, sigmoid_above).value.minimum(hull.upper))


def tangent_sum_and_product(x: Interval) -> Values:
    """C above and D below, each alone, as far as the exact interval goes."""
    box, hull, g = stablemax.Box.of(x, midpoint(x)), constant("stablemax", x), _stable(x)
    most = g.high.sum(-1, keepdim=True)
    below = g.low / g.chord.sum(-1, keepdim=True) + (g.tangent - g.low) / most
    return Values(below.maximum(hull.lower), stablemax.sum_above(box, sigmoid_above).value.minimum(hull.upper))


def _log_chord(hull: Interval, log_share: Tensor) -> Tensor:
    width = hull.upper.log() - hull.lower.log()
    chord = torch.where(width > 0, hull.width / width, hull.lower)
    return hull.lower + chord * (log_share - hull.lower.log())


def _gaps(x: Interval) -> Interval:
    """x_j - x_i in row i, column j."""
    return Interval(x.lower.unsqueeze(1) - x.upper.unsqueeze(2), x.upper.unsqueeze(1) - x.lower.unsqueeze(2))


def _without_own(values: Tensor) -> Tensor:
    return (values * (1 - torch.eye(values.shape[-1], dtype=values.dtype))).sum(-1)


def _chords_of_differences(x: Interval) -> Tensor:
    gap = _gaps(x)
    return 1 + _without_own(exp_chords(gap, midpoint(gap)).value.exp())


class Parts(NamedTuple):
    """Of a positive function g: at the ends of the box, and its tangent's and chord's values at the midpoint."""

    low: Tensor
    high: Tensor
    tangent: Tensor
    chord: Tensor


def _exponentials(x: Interval) -> Parts:
    top = x.upper.amax(-1, keepdim=True)
    low, high = x.lower - top, x.upper - top
    touch = torch.minimum((low + high) / 2, low + 0.99)  # so that the sum of tangents stays positive
    tangent = touch.exp() * ((low + high) / 2 - touch + 1)
    return Parts(low.exp(), high.exp(), tangent, (low.exp() + high.exp()) / 2)


def _stable(x: Interval) -> Parts:
    middle = midpoint(x)
    low, high, tangent = (s_and_slope(point)[0] for point in (x.lower, x.upper, middle))
    return Parts(low, high, tangent, chord_of_s(x, middle).value)


def _composed(g: Parts) -> Values:
    least, most = (end.sum(-1, keepdim=True) for end in (g.low, g.high))
    centre, small, large = (least + most) / 2, 1 / most, 1 / least
    inverse_low = (2 - g.chord.sum(-1, keepdim=True) / centre) / centre
    inverse_high = small + large - g.tangent.sum(-1, keepdim=True) * small * large
    lows, highs = [], []
    for t in (0.0, 0.5, 1.0):
        share = t * g.low + (1 - t) * g.high
        first, second = t * small + (1 - t) * large, t * large + (1 - t) * small
        lows.append(first * g.tangent + share * inverse_low - t * small * g.low - (1 - t) * large * g.high)
        highs.append(second * g.chord + share * inverse_high - t * large * g.low - (1 - t) * small * g.high)
    return Values(torch.stack(lows).amax(0), torch.stack(highs).amin(0))


Rule = Callable[[Interval], Values]
SOFTMAX: dict[str, Rule] = {
    "constant": lambda x: constant("softmax", x),
    "composed": lambda x: composed("softmax", x),
    "differences": differences,
    "ER": reciprocal_form,
    "LSE": log_form,
    "ours": lambda x: ours("softmax", x),
}
STABLEMAX: dict[str, Rule] = {
    "constant": lambda x: constant("stablemax", x),
    "composed": lambda x: composed("stablemax", x),
    "LSE of log s": log_form_of_stablemax,
    "B above, C below": concave_and_chords,
    "C above, D below": tangent_sum_and_product,
    "ours": lambda x: ours("stablemax", x),
}


def boxes(count: int, size: int, width: float, random: torch.Generator) -> Interval:
    """Centres N(0, 2), widths U(0.2, 1) times `width`, float64: what relaxations are compared on."""
    centre = 2 * torch.randn(count, size, generator=random, dtype=torch.float64)
    each = width * (0.2 + 0.8 * torch.rand(count, size, generator=random, dtype=torch.float64))
    return Interval(centre - each / 2, centre + each / 2)


def mean_value(op: str, x: Interval, random: torch.Generator, count: int = 6000) -> Tensor:
    """The mean of the op over each box by sampling inside (half) and corners (half), as in the note: (B, K)."""
    total = torch.zeros_like(x.lower)
    for number in range(count):
        t = torch.rand(x.lower.shape, generator=random, dtype=torch.float64)
        total += OPS[op].forward(x.lower + (t.round() if number % 2 else t) * x.width, axis=0)
    return total / count
