"""Split trees: in preorder, an axis and a cut for each inner node, axis -1 for each leaf.

Such a tree covers its box whatever its numbers are, as long as every cut lies inside the box that it cuts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verif.checker.bounds import Bounds
from verif.checker.claims import Region, above
from verif.checker.errors import Refused
from verif.checker.network import Array, Network

LEAF = -1
Boxes = tuple[Array, Array]


def leaves(region: Region, axis: Array, cut: Array) -> Iterator[Boxes]:
    """The leaves' boxes (n,) in their order."""
    stack = [(region.lower, region.upper)]
    for place, (along, at) in enumerate(zip(axis.tolist(), cut.tolist(), strict=True)):
        if not stack:
            raise Refused("the tree goes on after its last leaf")
        lower, upper = stack.pop()
        if along == LEAF:
            yield lower, upper
            continue
        if not 0 <= along < len(lower) or not lower[along] < at < upper[along]:
            raise Refused(f"node {place} does not cut its box")
        stack.extend(reversed(halves(lower, upper, along, at)))
    if stack:
        raise Refused(f"{len(stack)} boxes are left open")


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
