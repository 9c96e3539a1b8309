"""Sums of exponentials along the last axis, in logarithms: leave-one-out sums, and chords of exp.

Everything is measured from the largest entry, as in the two-pass softmax of Dukhan and Ablavatski (2020, arXiv
2001.04438), so nothing over- or underflows before a ratio is taken. A sum over all entries but one is never a total
minus a term that dominates it. Lanes are (B, L, n).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.products import ratio
from relaxations.rule import Interval


class Rest(NamedTuple):
    """Of entries a (B, L, n): log-sum-exp of the others for each, the largest one's place (0 or 1), and its value."""

    others: Tensor
    largest: Tensor
    top: Tensor


def rest(a: Tensor) -> Rest:
    """Leave-one-out sums. Beside the largest no term is more than half of the sum, and its own rest is summed apart."""
    top, place = a.max(-1, keepdim=True)
    largest = torch.zeros_like(a).scatter(-1, place, 1.0)
    if a.shape[-1] == 1:
        return Rest(torch.full_like(a, -torch.inf), largest, top)
    first = largest > 0
    spread = torch.where(first, 0, (a - top).exp())
    small = spread.sum(-1, keepdim=True)
    alone = a.masked_fill(first, -torch.inf).logsumexp(-1, keepdim=True)
    return Rest(torch.where(first, alone, top + torch.log1p((small - spread).clamp(min=0))), largest, top)


def others_logsumexp(a: Tensor) -> Tensor:
    """For each entry the log-sum-exp of the others along the last axis (-inf where there are none)."""
    return rest(a).others


class Terms(NamedTuple):
    """Logarithms of positive terms of a sum at a point, and of their slopes (-inf: 0), each (B, L, n)."""

    value: Tensor
    slope: Tensor


def exp_chords(x: Interval, at: Tensor) -> Terms:
    """Chords of exp over boxes, at points, stable for widths w of every size.

    They are e^u (e^-w + (1 - e^-w) (at - l) / w), with slopes e^u (1 - e^-w) / w. A width of 0 has slope 0 and value
    e^u; a tangent in its place would not be an upper bound.
    """
    width = x.width
    fall, rise = (-width).exp(), -torch.expm1(-width)
    inside = (fall + rise * ratio(at - x.lower, width)).clamp(min=torch.finfo(at.dtype).tiny, max=1)
    wide = width > 0
    steep = torch.where(wide, rise, 1) / torch.where(wide, width, 1)
    return Terms(x.upper + inside.log(), torch.where(wide, x.upper + steep.log(), -torch.inf))


def summit(x: Interval) -> Tensor:
    """The largest upper end of each lane, (B, L, 1); 0 where it is infinite."""
    top = x.upper.amax(-1, keepdim=True)
    return torch.where(top.isfinite(), top, 0)


def shifted(x: Interval, at: Tensor) -> tuple[Interval, Tensor]:
    """A box and a point less its summit: large numbers are subtracted before logarithms."""
    top = summit(x)
    return Interval(x.lower - top, x.upper - top), at - top
