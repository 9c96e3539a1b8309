"""Planes of shares g(x_i) / sum of g(x_j): what softmax (g = exp) and StableMax have in common. Lanes are (B, L, n)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.envelopes import Envelope
from relaxations.exponentials import Terms, rest
from relaxations.lanes import Side
from relaxations.rule import Interval

_RANGE = 30.0  # of the logarithm of the sum, up to which products are tried


def pick(values: Tensor, largest: Tensor) -> Tensor:
    """The values at the places (0 or 1), (B, L, 1)."""
    return torch.where(largest > 0, values, 0).sum(-1, keepdim=True)


def zero_at(places: Tensor, values: Tensor) -> Tensor:
    """The values, 0 at the places (0 or 1)."""
    return torch.where(places > 0, 0, values)


class Tangents(NamedTuple):
    """Tangents at a point of envelope(t_i) with t_i = line_i - log(sum of the terms of the others), for each entry i.

    `slope` is that in line_i and left_i right_j that in x_j, but for the entry of the largest term, the only one whose
    own term would cancel: its slopes are a row of their own, `pivot`, and its left factor is 0.
    """

    value: Tensor
    slope: Tensor
    left: Tensor
    right: Tensor
    largest: Tensor
    pivot: Tensor


def tangents(t: Interval, line: Tensor, terms: Terms, envelope: Envelope) -> Tangents:
    """From the values of the lines and the terms at the point, and an envelope of s or log s on the range of t_i."""
    total = rest(terms.value)
    value, k = envelope(t, line - total.others)
    right, r = (terms.slope - total.top).exp(), total.largest
    left = zero_at(r, -k * (total.top - total.others).clamp(max=0).exp())
    pivot = zero_at(r, -pick(k, r) * zero_at(r, terms.slope - pick(total.others, r)).exp())
    return Tangents(value, k, left, right, r, pivot)


class Product(NamedTuple):
    """A plane own_i x_i + left_i (right . x) for every entry, and its value at a point."""

    value: Tensor
    own: Tensor
    left: Tensor
    right: Tensor


def product_above(logs: Interval, point: Tensor, chord: Terms, steep: Tensor) -> Product:
    """McCormick planes above g(x_i) times the inverse of the sum S of all g: the better of two at the point.

    From logarithms: of g at both ends and at the point, of the chord of g and of g's slope at the point. In units of
    the largest sum, 1 / S is at most its chord 1 + r (1 - S) from S = 1 / r to 1, and S at least the sum of tangents.
    """
    whole = logs.upper.logsumexp(-1, keepdim=True)
    spread = whole - logs.lower.logsumexp(-1, keepdim=True)
    r = spread.clamp(max=_RANGE).exp()
    least, most = ((end - whole).exp() for end in logs)
    value, slope = ((part - whole).exp() for part in chord)
    inverse = 1 + r * (most * -torch.expm1(point - logs.upper)).sum(-1, keepdim=True)  # without cancellation
    first, second = least * inverse + r * (value - least), most * inverse + value - most
    better = first < second
    return Product(
        torch.where(spread <= _RANGE, torch.minimum(first, second), torch.inf),
        torch.where(better, r, 1.0) * slope,
        -r * torch.where(better, least, most),
        (steep - whole).exp(),
    )


def smaller(sig: Tangents, *others: Product) -> Side:
    """The smallest of tangents and other planes at the point: values and slopes."""
    value, own, left = sig.value, sig.slope - sig.left * sig.right, sig.left
    kept, lefts = torch.ones_like(value) > 0, list[Tensor]()
    for other in others:
        wins = other.value < value
        value, own, kept = torch.where(wins, other.value, value), torch.where(wins, other.own, own), kept & ~wins
        lefts = [*(torch.where(wins, 0, before) for before in lefts), torch.where(wins, other.left, 0)]
    pivot = torch.where((~kept & (sig.largest > 0)).any(-1, keepdim=True), 0, sig.pivot)
    pairs = [(torch.where(kept, left, 0), sig.right), (sig.largest, pivot)]
    return Side(own, value, (*pairs, *((each, other.right) for each, other in zip(lefts, others, strict=True))))
