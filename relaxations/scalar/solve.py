"""Roots of monotone functions, many at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def where_needed(needed: Tensor, solve: Callable[..., Tensor], otherwise: Tensor, *args: Tensor) -> Tensor:
    """solve(*args) on the entries that need it (the others are not computed), else `otherwise`."""
    if not bool(needed.any()):
        return otherwise
    found = solve(*(arg.expand(needed.shape)[needed] for arg in args))
    return otherwise.expand(needed.shape).masked_scatter(needed, found)


def root(h: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, steps: int = 20) -> Tensor:
    """About where the increasing function h changes sign in [a, b]; the end nearest to it where it does not.

    Secant steps and bisections in turn: bisections bound the work, secants give the last digits (the error falls like
    2^(-steps^2 / 8) on smooth functions). No gradient; callers must be sound for any answer in [a, b].
    """
    with torch.no_grad():
        low, high = a, b
        below, above = h(low), h(high)
        none_below, none_above = below >= 0, above <= 0
        for number in range(steps):
            x = 0.5 * (low + high)
            if number % 2:
                secant = low - below * ((high - low) / (above - below))
                x = torch.where((secant > low) & (secant < high), secant, x)
            value = h(x)
            left = value < 0
            low, below = torch.where(left, x, low), torch.where(left, value, below)
            high, above = torch.where(left, high, x), torch.where(left, above, value)
        x = torch.where(-below < above, low, high)
        return torch.where(none_below, a, torch.where(none_above, b, x))
