"""Writing proofs: a split tree whose leaves the checker's own sound bounds refute, or a counterexample.

The tree is built with the bounds of `verif.checker`: a HOLDS with a proof does not rest on the engine's rounding.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verif.checker import Refused, claims, model
from verif.checker.claims import Region
from verif.checker.network import Array, Network
from verif.checker.proof import batch_of, digest_of, pack, violates
from verif.checker.tree import LEAF, gaps, halves

FEW = 24  # inputs up to which boxes are split
MARGIN = 1e-9  # the checker adds up other batches of leaves, in another order


@dataclass(frozen=True)
class Written:
    """A proof on file: its leaves and its size."""

    leaves: int
    bytes: int


def write(
    path: Path, model_file: Path, property_file: Path, point: Array | None = None, deadline: float = math.inf
) -> Written:
    """Write the proof of VIOLATED with a counterexample (n,) float64, else of HOLDS, until `deadline` (monotonic).

    Refused where the checker cannot read an input or a bound cannot be confirmed; then nothing is written.
    """
    network = model.read(model_file)
    regions = claims.read(property_file, network.inputs, network.outputs)
    arrays: dict[str, Array] = {}
    count = 0
    if point is not None:
        if not violates(network, regions, point):
            raise Refused("the counterexample does not violate the property in real arithmetic")
        arrays["point"] = point.astype("<f8")
    else:
        for place, region in enumerate(regions):
            named, leaves = _region(network, region, deadline)
            count += leaves
            for name, array in named.items():
                kind, _, clause = name.partition(".")
                arrays[f"{kind}.{place}" + (f".{clause}" if clause else "")] = array
    manifest: dict[str, Any] = {
        "model": digest_of(model_file),
        "property": digest_of(property_file),
        "verdict": "holds" if point is None else "violated",
        "arithmetic": "real",
    }
    pack(path, manifest, arrays)
    return Written(count, path.stat().st_size)


def supported(network: Network) -> bool:
    """Whether signs can be split: every bend is a ReLU's."""
    return {step.op for step in network.steps} <= {"input", "dense", "scale", "pick", "join", "add", "relu"}


def _region(network: Network, region: Region, deadline: float) -> tuple[dict[str, Array], int]:
    """The arrays of a region by name, and how many leaves there are: a tree over boxes where inputs are few."""
    whole = Tree(network, region, deadline)
    if network.inputs > FEW and not whole.refuted() and supported(network):
        from verif.sign_proofs import by_signs

        return by_signs(network, region, deadline)
    whole.grow()
    axis, cut = whole.arrays()
    return {"axis": axis, "cut": cut}, int((axis == LEAF).sum())


@dataclass
class Tree:
    """The tree of one region, nodes in the order of their making; a child's place is 0 where there is none."""

    network: Network
    region: Region
    deadline: float
    axis: list[int] = field(default_factory=lambda: [LEAF])
    cut: list[float] = field(default_factory=lambda: [0.0])
    children: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])

    def refuted(self) -> bool:
        """Whether the region is refuted as it is."""
        found, _ = gaps(self.network, self.region, self.region.lower[None], self.region.upper[None])
        return bool((found > MARGIN).all())

    def grow(self) -> None:
        """Split until every leaf is refuted."""
        stack = [(0, self.region.lower, self.region.upper)]
        size = batch_of(self.network, self.region)
        while stack:
            if time.monotonic() > self.deadline:
                raise Refused("the time was used up before every box was confirmed")
            batch, stack = stack[-size:], stack[:-size]
            lower, upper = np.stack([item[1] for item in batch]), np.stack([item[2] for item in batch])
            found, slopes = gaps(self.network, self.region, lower, upper)
            for index in np.flatnonzero(~(found > MARGIN).all(1)).tolist():
                weight = np.abs(slopes[index][~(found[index] > MARGIN)]).sum(0)
                stack.extend(self._split(*batch[index], weight))

    def _split(self, node: int, lower: Array, upper: Array, weight: Array) -> list[tuple[int, Array, Array]]:
        weight = np.nan_to_num(weight)
        # Ranges inside the network narrow along all axes, whatever the row's slopes say (measured on ACAS Xu).
        score = (np.maximum(weight, 0.05 * weight.max()) + 1e-300) * (upper - lower)
        along = int(score.argmax())
        at = float(lower[along] / 2 + upper[along] / 2)
        if not lower[along] < at < upper[along]:
            raise Refused("a box too small to split is not refuted")
        first = len(self.axis)
        self.axis[node], self.cut[node], self.children[node] = along, at, (first, first + 1)
        for _ in range(2):
            self.axis.append(LEAF)
            self.cut.append(0.0)
            self.children.append((0, 0))
        low, high = halves(lower, upper, along, at)
        return [(first, *low), (first + 1, *high)]

    def arrays(self) -> tuple[Array, Array]:
        """Axes and cuts in preorder."""
        order, stack = [], [0]
        while stack:
            node = stack.pop()
            order.append(node)
            if self.axis[node] != LEAF:
                stack.extend(reversed(self.children[node]))
        return np.array(self.axis, "<i4")[order], np.array(self.cut, "<f8")[order]
