"""Split trees over boxes. What a walk through one has not refuted is on its stack: an empty stack is a whole tree.

A tree covers its box whatever its numbers are, as long as every cut lies inside the box that it cuts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verif.checker.bounds import Bounds
from verif.checker.claims import Region, above
from verif.checker.errors import Refused
from verif.checker.network import Array, Network

LEAF = -1
Boxes = tuple[Array, Array]


@dataclass(frozen=True)
class Part:
    """A box (n,) and its share of the input set."""

    lower: Array
    upper: Array
    share: float


class BoxWalk:
    """The open boxes of one region."""

    def __init__(self, region: Region, share: float) -> None:
        self.stack = [Part(region.lower, region.upper, share)]

    def take(self, axis: Array, cut: Array) -> list[Part]:
        """The leaves among the last boxes; the others are cut."""
        first, found = len(self.stack) - len(axis), []
        if first < 0 or not len(axis):
            raise Refused("the tree goes on after its last leaf")
        batch = self.stack[first:]
        del self.stack[first:]
        for part, along, at in zip(batch, axis.tolist(), cut.tolist(), strict=True):
            if along == LEAF:
                found.append(part)
                continue
            if not 0 <= along < len(part.lower) or not part.lower[along] < at < part.upper[along]:
                raise Refused("a node does not cut its box")
            low, high = halves(part.lower, part.upper, along, at)
            below = part.share * (at - part.lower[along]) / (part.upper[along] - part.lower[along])
            below = below if 0 <= below <= part.share else part.share / 2  # sizes that overflow
            self.stack += [Part(*low, below), Part(*high, part.share - below)]
        return found


def halves(lower: Array, upper: Array, along: int, at: float) -> tuple[Boxes, Boxes]:
    """A box cut in two, which share the face."""
    low, high = upper.copy(), lower.copy()
    low[along] = high[along] = at
    return (lower, low), (high, upper)


def gaps(network: Network, region: Region, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Of boxes (B, n): proved gaps (B, C), a clause being refuted where its gap is positive, and slopes (B, C, n)."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        bounds = Bounds(network, lower, upper)
        found = bounds.rows(network.output, region.rows) if len(region.rows) else None
    values, slopes = [], []
    for clause in region.clauses:
        if found is None or not clause:
            values.append(np.full(len(lower), -np.inf))
            slopes.append(np.ones_like(lower))
            continue
        limit = np.array([above(region.limits[row]) for row in clause])
        beyond = np.where(found.lower[:, clause] > limit, 1.0, -1.0)
        size = np.nan_to_num(np.abs(found.lower[:, clause] - limit), nan=np.inf)
        gap = np.where(beyond > 0, np.maximum(size, 2.0**-1000), -size)
        best = gap.argmax(1)
        values.append(gap.max(1))
        slopes.append(found.slopes[np.arange(len(lower)), np.array(clause)[best]])
    return np.stack(values, 1), np.stack(slopes, 1)
