"""Parts of the axis on which a function's slope is monotone, and where that slope takes a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.scalar.solve import Root, root, where_needed

Map = Callable[[Tensor], Tensor]


class Piece(NamedTuple):
    """A stretch of the axis on which f' rises (`bend` 1), falls (-1) or stays (0); its ends may differ by entry.

    `df` is f' there, up to and including both ends; `inverse` solves f'(x) = k on it in closed form (only where f' is
    strictly monotone), and may return anything where there is no solution. Both work on any selection of entries.
    """

    start: float | Tensor
    end: float | Tensor
    bend: int
    df: Map
    inverse: Map | None = None


class Stretch(NamedTuple):
    """A part of the box on which F is convex, a point near the minimum of F - k x on it, F' there, and two points
    between which the minimum is.
    """

    start: Tensor
    end: Tensor
    x: Tensor
    slope: Tensor
    low: Tensor
    high: Tensor


class Point(NamedTuple):
    """A point of the graph: x, f(x) and a bound on the error of that value."""

    x: Tensor
    value: Tensor
    noise: Tensor


def derivative(pieces: Sequence[Piece], x: Tensor) -> Tensor:
    """f'(x); where two pieces meet, of the left one."""
    slope = pieces[0].df(x)
    for before, piece in pairwise(pieces):
        if piece.df != before.df:
            slope = torch.where(x > piece.start, piece.df(x), slope)
    return slope


def solve(piece: Piece, k: Tensor, side: int, ends: tuple[Tensor, Tensor], near: Tensor | None) -> Root:
    """About where F' = k between the ends, where F' rises; an end where F' does not reach k. `near`: if it is known."""
    start, end = ends
    if near is not None:
        x = near.maximum(start).minimum(end)
        other = (x != near) & (start < end)  # where the known point is on another piece, an end is least on this one
        if bool(other.any()):
            x = torch.where(other, torch.where(side * piece.df(start) >= k, start, end), x)
        return Root(x, start, end)
    low, high = side * piece.df(start) >= k, side * piece.df(end) <= k
    at, needed = torch.where(low, start, end), ~(low | high)
    if piece.inverse is not None:
        inverse = piece.inverse

        def closed(k: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor]:
            x = inverse(side * k)
            return (torch.where(x.isnan(), start, x).maximum(start).minimum(end),)

        return Root(where_needed(needed, closed, [at], k, start, end)[0], start, end)

    def iterated(k: Tensor, start: Tensor, end: Tensor) -> Root:
        return root(lambda x: side * piece.df(x) - k, start, end)

    return Root(*where_needed(needed, iterated, (at, start, end), k, start, end))
