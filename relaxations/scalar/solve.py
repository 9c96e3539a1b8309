"""Roots of monotone functions, many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 8


class Root(NamedTuple):
    """About where an increasing function changes sign, and two points between which it does."""

    x: Tensor
    low: Tensor
    high: Tensor


def where_needed(
    needed: Tensor, solve: Callable[..., Sequence[Tensor]], otherwise: Sequence[Tensor], *args: Tensor
) -> list[Tensor]:
    """The results of solve(*args) on the entries that need it (the others are not computed), else `otherwise`."""
    index = needed.reshape(-1).nonzero()[:, 0]
    if not len(index):
        return list(otherwise)
    found = solve(*(arg.expand(needed.shape).reshape(-1)[index] for arg in args))
    return [
        held.expand(needed.shape).reshape(-1).index_put((index,), part).reshape(needed.shape)
        for held, part in zip(otherwise, found, strict=True)
    ]


def root(h: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, steps: int = STEPS) -> Root:
    """About where the increasing function h changes sign in [a, b]; the end nearest to it where it does not.

    A bisection, then false position with the weights of Anderson and Bjorck (1973): the line goes through the last
    point and the last one with the other sign, whose value is weighed down as long as it stays.
    No gradient; callers must be sound for any answer in [a, b].
    """
    with torch.no_grad():
        below, above = h(a), h(b)
        middle = 0.5 * (a + b)
        value = h(middle)
        left = value < 0
        other, held = torch.where(left, b, a), torch.where(left, above, below)
        last = middle
        for number in range(steps):
            x = last - value * ((last - other) / (value - held))
            if number == steps - 1:
                break
            following = h(x)
            crossed = (following < 0) != (value < 0)
            weight = 1 - following / value
            held = torch.where(crossed, value, held * torch.where(weight > 0, weight, 0.5))
            other, last, value = torch.where(crossed, last, other), x, following
        x = torch.where(x.isnan(), middle, x)
        ends = x, last.fmin(other), last.fmax(other)
        return Root(*(torch.where(below >= 0, a, torch.where(above <= 0, b, end)) for end in ends))
