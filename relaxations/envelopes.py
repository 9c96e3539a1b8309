"""Least concave functions above and greatest convex ones below the logistic sigmoid s(t), and log s, on an interval.

Softmax and StableMax are s of a number whose exact range is known; their planes are tangents of these envelopes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from relaxations.products import ratio
from relaxations.rule import Interval

Envelope = Callable[[Interval, Tensor], tuple[Tensor, Tensor]]  # value and slope at a point, of one on a range

_STEPS = 7  # Newton's method from above: the last digits are there after 6, whatever the left end
_SMALL = 0.05


def slope(t: Tensor) -> Tensor:
    """s'(t) = s(t) s(-t): no cancellation."""
    return t.sigmoid() * (-t).sigmoid()


def _tangent_point(left: Tensor) -> Tensor:
    """A point d >= 0 whose tangent of s is not under s at `left`: the least one, up to rounding.

    It is the root of h(d) = (s(d) - s(left)) / s'(d) - (d - left), which rises and is convex for d > 0, so that
    Newton's method from its right stays there. Every such point gives a sound line, so d needs no derivative.
    """
    with torch.no_grad():
        left = left.clamp(-1e30, 0)
        low = left.sigmoid()
        d = torch.minimum(-left, torch.log1p(-left) + 1)
        for _ in range(_STEPS):
            gap = d.sigmoid() - low
            h = gap * (2 + 2 * d.cosh()) - (d - left)
            d = torch.where(h > 0, d - ratio(h, 2 * gap * d.sinh()), d)
    return torch.where(left > -_SMALL, -left / 2, d)  # d < -left / 2 everywhere, by little near 0, where h is rounding


def _chord(t: Interval) -> Tensor:
    """Slope of the chord of s; 0 where the width is."""
    return ratio(t.upper.sigmoid() - t.lower.sigmoid(), t.width)


def sigmoid_above(t: Interval, at: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope at `at` of the least concave function above s on t (all of one shape), constant right of it.

    It is s to the right of a point d > 0 and the tangent at d, which passes through the left end, before. Lines are
    raised to pass through the left end where rounding has put them under it; then they are sound for any d.
    """
    beyond, at = at > t.upper, torch.minimum(torch.maximum(at, t.lower), t.upper)
    d, left = _tangent_point(t.lower), t.lower.sigmoid()
    touch = torch.maximum(at, d)
    bent, steep, chord = d < t.upper, slope(touch), _chord(t)
    tangent = torch.maximum(touch.sigmoid() + steep * (at - touch), left + steep * (at - t.lower))
    curve = torch.where(at < d, tangent, touch.sigmoid())
    value = torch.where(bent, curve, left + chord * (at - t.lower))
    flat = beyond | (t.width <= 0)
    return torch.where(flat, t.upper.sigmoid(), value), torch.where(flat, 0, torch.where(bent, steep, chord))


def sigmoid_below(t: Interval, at: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope at `at` of the greatest convex function below s on t, constant left of it.

    It is `sigmoid_above` turned by 180 degrees, written out since 1 minus the other would lose small values.
    """
    beyond, at = at < t.lower, torch.minimum(torch.maximum(at, t.lower), t.upper)
    d, right = -_tangent_point(-t.upper), t.upper.sigmoid()
    touch = torch.minimum(at, d)
    bent, steep, chord = d > t.lower, slope(touch), _chord(t)
    tangent = torch.minimum(touch.sigmoid() + steep * (at - touch), right - steep * (t.upper - at))
    curve = torch.where(at > d, tangent, touch.sigmoid())
    value = torch.where(bent, curve, t.lower.sigmoid() + chord * (at - t.lower))
    flat = beyond | (t.width <= 0)
    return torch.where(flat, t.lower.sigmoid(), value), torch.where(flat, 0, torch.where(bent, steep, chord))


def log_above(t: Interval, at: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope at `at` of log s, which is concave and rises, constant right of t."""
    beyond, at = at > t.upper, torch.minimum(torch.maximum(at, t.lower), t.upper)
    return F.logsigmoid(at), torch.where(beyond, 0, (-at).sigmoid())


def log_below(t: Interval, at: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope at `at` of the chord of log s on t, which goes on left of it."""
    low = F.logsigmoid(t.lower)
    chord = ratio(F.logsigmoid(t.upper) - low, t.width)
    return low + chord * (torch.minimum(at, t.upper) - t.lower), chord
