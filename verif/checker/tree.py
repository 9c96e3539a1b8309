"""Split trees over boxes. What a walk through one has not refuted is on its stack: an empty stack is a whole tree.

A tree covers its box whatever its numbers are, as long as every cut lies inside the box that it cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from verif.checker.bounds import Bounds
from verif.checker.claims import Region
from verif.checker.errors import Refused
from verif.checker.network import Array, Network

LEAF = -1
BATCH = 400_000  # numbers of one batch's largest value
Boxes = tuple[Array, Array]


@dataclass(frozen=True)
class Part:
    """A box (n,) of a region, and its share of the input set."""

    region: Region
    lower: Array
    upper: Array
    share: float


class BoxWalk:
    """The open boxes of one region."""

    def __init__(self, region: Region, share: float) -> None:
        self.stack = [Part(region, region.lower, region.upper, share)]

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
            self.stack += [Part(part.region, *low, below), Part(part.region, *high, part.share - below)]
        return found


def halves(lower: Array, upper: Array, along: int, at: float) -> tuple[Boxes, Boxes]:
    """A box cut in two, which share the face."""
    low, high = upper.copy(), lower.copy()
    low[along] = high[along] = at
    return (lower, low), (high, upper)


def gaps(
    network: Network, parts: Sequence[Part], bounded: Callable[[Network, Array, Array], Bounds] = Bounds
) -> tuple[Array, Array]:
    """Of boxes of regions that are alike: proved gaps (B, C), a clause being refuted where its gap is positive, and
    slopes (B, C, n).
    """
    region, lower = parts[0].region, np.stack([part.lower for part in parts])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        bounds = bounded(network, lower, np.stack([part.upper for part in parts]))
        found = bounds.rows(network.output, region.rows) if len(region.rows) else None
    limits = np.stack([part.region.beyond for part in parts])
    values, slopes = [], []
    for clause in region.clauses:
        if found is None or not clause:
            values.append(np.full(len(lower), -np.inf))
            slopes.append(np.ones_like(lower))
            continue
        low, limit = found.lower[:, clause], limits[:, clause]
        size = np.nan_to_num(np.abs(low - limit), nan=np.inf)
        gap = np.where(low > limit, np.maximum(size, 2.0**-1000), -size)
        best = gap.argmax(1)
        values.append(gap.max(1))
        slopes.append(found.slopes[np.arange(len(lower)), np.array(clause)[best]])
    return np.stack(values, 1), np.stack(slopes, 1)


def batch_of(network: Network, region: Region) -> int:
    """Boxes that are bounded at once."""
    widest = max(step.size for step in network.steps)
    return max(1, min(1024, BATCH // (widest * max(2 * widest, len(region.rows)))))
