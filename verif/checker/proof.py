"""The check of proof files (see stream.py): regions of the property in their order, each by boxes or by signs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from verif.checker import claims, derivative, exact, model, signs, stream
from verif.checker.bounds import Bounds
from verif.checker.claims import Region, below
from verif.checker.errors import Refused
from verif.checker.network import Array, Network
from verif.checker.signs import Leaves, SignSweep, SignWalk
from verif.checker.tree import BoxWalk, Part, batch_of, gaps


@dataclass(frozen=True)
class Shown:
    """What a proof shows in real arithmetic: the verdict, how many leaves were refuted for it, and what share of the
    input set they are. A proof that ends early is "incomplete": no point of that share violates the property.
    """

    verdict: str
    leaves: int
    bytes: int
    share: float = 1.0


def check(proof: Path, model_file: Path, property_file: Path, slopes: int | None = None) -> Shown:
    """Check a proof against both files; Refused where it does not show its claim. With `slopes` the property's outputs
    are the slopes of that output of the model in each of its input's numbers.
    """
    manifest, records = stream.read(proof)
    for name, path in (("model", model_file), ("property", property_file)):
        if manifest.get(name) != digest_of(path):
            raise Refused(f"the proof is of another {name}")
    if manifest.get("arithmetic") != "real":
        raise Refused("an arithmetic that the checker does not know")
    if manifest.get("slopes") != slopes:
        raise Refused("the proof is about slopes of an output, or of another one, or not about slopes")
    network = model.read(model_file) if slopes is None else derivative.slopes(model.read(model_file), slopes)
    regions = claims.read(property_file, network.inputs, network.outputs)
    verdict, size = manifest.get("verdict"), proof.stat().st_size
    if verdict == "holds":
        work = Work(network, regions)
        for kind, arrays in records:
            work.take(kind, arrays)
        whole = work.place == len(regions)
        work.flush()
        return Shown("holds" if whole else "incomplete", work.leaves, size, 1.0 if whole else work.share)
    held = list(records)
    if verdict != "violated" or slopes is not None or [kind for kind, _ in held] != ["P"]:
        raise Refused("the proof claims nothing that the checker knows")
    if not violates(network, regions, held[0][1][0]):
        raise Refused("the point is not shown to be a counterexample")
    return Shown("violated", 0, size)


@dataclass
class Work:
    """How far a proof of HOLDS has come: the region, its clause, and what is open of it."""

    network: Network
    regions: list[Region]
    place: int = 0
    clause: int = 0
    leaves: int = 0
    share: float = 0.0
    walk: BoxWalk | SignWalk | None = None
    row: int = 0
    root: Bounds | None = None
    held: list[Part] = field(default_factory=list)

    @property
    def region(self) -> Region:
        """The region that is worked on."""
        if self.place == len(self.regions):
            raise Refused("the proof goes on after the last region")
        return self.regions[self.place]

    def take(self, kind: str, arrays: tuple[Array, ...]) -> None:
        """One record."""
        if kind == stream.CUT and self.region:  # nothing stands behind a whole proof
            return
        if kind == "B":
            for axis, cut in batches(*arrays):
                self._boxes(axis, cut)
        elif kind == "S":
            self._clause(*arrays)
        elif kind == "C":
            counts, neurons, slopes, multipliers = arrays
            done = 0
            for (nodes,) in batches(counts, neurons):
                done += self._cases(nodes, slopes[done:], multipliers[done:])
            if done != len(slopes) or done != len(multipliers):
                raise Refused("slopes or multipliers that do not fit the tree")
        else:
            raise Refused("a record that does not belong here")

    def _boxes(self, axis: Array, cut: Array) -> None:
        region = self.region
        if self.walk is None and self.clause == 0:
            self.walk = BoxWalk(region, 1.0 / len(self.regions))
        if not isinstance(self.walk, BoxWalk):
            raise Refused("boxes among signs")
        if self.held and not region.like(self.held[0].region):
            self.flush()
        self.held += self.walk.take(axis, cut)
        if not self.walk.stack:
            self.walk, self.place = None, self.place + 1
        if len(self.held) >= batch_of(self.network, region):
            self.flush()

    def flush(self) -> None:
        """Refute the leaves that are held, of regions that are alike."""
        size = batch_of(self.network, self.held[0].region) if self.held else 1
        for first in range(0, len(self.held), size):
            parts = self.held[first : first + size]
            if not (gaps(self.network, parts)[0] > 0).all():
                raise Refused(f"one of the leaves {self.leaves} to {self.leaves + len(parts) - 1} is not refuted")
            self._done([part.share for part in parts])
        self.held.clear()

    def _clause(self, row: Array, neurons: Array) -> None:
        region = self.region
        if self.walk is not None or len(row) != 1 or self.clause >= len(region.clauses):
            raise Refused("a clause that does not belong here")
        self.row = int(row[0])
        if self.row not in region.clauses[self.clause]:
            raise Refused("a row that is not of its clause")
        self.walk = SignWalk(neurons, 1.0 / len(self.regions) / len(region.clauses))

    def _cases(self, neurons: Array, slopes: Array, multipliers: Array) -> int:
        """Refute the leaves of one batch; how many slopes they have."""
        if not isinstance(self.walk, SignWalk):
            raise Refused("signs without a clause")
        walk, region = self.walk, self.region
        found = walk.take(neurons)
        size = len(found) * len(walk.neurons)
        if found:
            leaves = walk.leaves([known for known, _ in found], slopes[:size], multipliers[:size])
            if not self._beyond(leaves, float(region.beyond[self.row])):
                raise Refused("one of the leaves is not refuted")
            self._done([share for _, share in found])
        if not walk.stack:
            self.walk, self.clause = None, self.clause + 1
            if self.clause == len(region.clauses):
                self.place, self.clause, self.root = self.place + 1, 0, None
        return size

    def _beyond(self, leaves: Leaves, limit: float) -> bool:
        region, step = self.region, signs.batch_of(self.network)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self.root is None:
                self.root = Bounds(self.network, region.lower[None], region.upper[None])
            row = region.rows[self.row]
            parts = (leaves.part(first, first + step) for first in range(0, len(leaves), step))
            return all(bool((SignSweep(self.root, row, part).lower() > limit).all()) for part in parts)

    def _done(self, shares: list[float]) -> None:
        self.leaves += len(shares)
        self.share += sum(shares)


def batches(counts: Array, *arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Arrays cut into parts of these sizes."""
    if any(int(counts.sum(dtype=np.int64)) != len(array) for array in arrays):
        raise Refused("batches that do not fit their nodes")
    first = 0
    for count in counts.tolist():
        yield tuple(array[first : first + count] for array in arrays)
        first += count


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str:
    """The hash of a file's contents (unpacked, where it ends in .gz)."""
    try:
        return digest(model.contents(path))
    except (OSError, EOFError) as error:
        raise Refused(f"{path.name} could not be read: {error}") from None


def violates(network: Network, regions: list[Region], point: Array) -> bool:
    """Whether a point is in the unsafe set, shown by sound bounds or else exactly."""
    if point.shape != (network.inputs,) or not np.isfinite(point).all():
        return False
    exactly = [Fraction(value) for value in point.tolist()]
    inside = [r for r in regions if all(a <= x <= b for x, (a, b) in zip(exactly, r.exact, strict=True))]
    bounds = Bounds(network, point[None], point[None])
    for region in inside:
        high = -bounds.rows(network.output, -region.rows).lower[0] if len(region.rows) else np.empty(0)
        for clause in region.clauses:
            if all(high[row] <= below(region.limits[row]) for row in clause):
                return True
    if not inside:
        return False
    outputs = exact.evaluate(network, exactly)
    return any(
        all(exact.combined(region.rows[row], outputs) <= region.limits[row] for row in clause)
        for region in inside
        for clause in region.clauses
    )
