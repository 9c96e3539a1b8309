"""Writing proofs while they are found: split trees whose leaves the checker's own sound bounds refute, or a point.

Trees are built with the bounds of `verif.checker`: a HOLDS with a proof does not rest on the engine's rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import numpy as np

from verif.checker import Refused, claims, derivative, model
from verif.checker.bounds import Bounds, Rows
from verif.checker.claims import Region
from verif.checker.network import Array, Network, Step
from verif.checker.proof import digest_of, violates
from verif.checker.stream import Writer
from verif.checker.tree import LEAF, BoxWalk, Part, batch_of, gaps, halves

FEW = 24  # inputs that vary up to which boxes are split
FLOORS = 0.01, 0.2  # shares of the steepest slope that each axis has at least (measured on ACAS Xu)
MARGIN = 1e-9  # the checker adds up other batches of leaves, in another order
ONE = np.array([LEAF]), np.zeros(1)  # the tree of a region that is one leaf
OFTEN = 0.5  # seconds between records
TIME = "the time was used up before all was confirmed"


@dataclass(frozen=True)
class Written:
    """A proof on file: its leaves, its size, the share of the input set that it is about, and why not all of it."""

    leaves: int
    bytes: int
    share: float = 1.0
    why: str = ""


@dataclass
class Log:
    """Where nodes go: boxes wait for some more, signs do not."""

    writer: Writer
    leaves: int = 0
    share: float = 0.0
    nodes: list[tuple[Array, Array]] = field(default_factory=list)
    written: float = field(default_factory=time.monotonic)

    def boxes(self, axis: Array, cut: Array, done: Sequence[Part]) -> None:
        """One batch of nodes, and its leaves."""
        self.nodes.append((axis, cut))
        self.count([part.share for part in done])
        if time.monotonic() - self.written > OFTEN:
            self.flush()

    def count(self, shares: Sequence[float]) -> None:
        """Leaves that are refuted."""
        self.leaves += len(shares)
        self.share += sum(shares)

    def flush(self) -> None:
        """Put what waits on file."""
        if self.nodes:
            counts = np.array([len(axis) for axis, _ in self.nodes])
            self.writer.add("B", counts, *(np.concatenate([node[k] for node in self.nodes]) for k in (0, 1)))
            self.nodes.clear()
        self.written = time.monotonic()


@dataclass(frozen=True)
class Claim:
    """Files of a model and of a property; with `slopes` it is about the slopes of that output (see `check`)."""

    model: Path
    property: Path
    slopes: int | None = None

    def read(self) -> tuple[Network, list[Region]]:
        """Both, as the checker reads them."""
        network = model.read(self.model)
        network = network if self.slopes is None else derivative.slopes(network, self.slopes)
        return network, claims.read(self.property, network.inputs, network.outputs)


def write(path: Path, claim: Claim, point: Array | None = None, deadline: float = math.inf) -> Written:
    """Write the proof of VIOLATED with a counterexample (n,) float64, else of HOLDS, until `deadline` (monotonic).

    Where not everything can be confirmed, or the search is interrupted, the file is a proof of a share of the input
    set. Refused, without a file, where the checker cannot read an input or nothing is confirmed.
    """
    network, regions = claim.read()
    if point is not None and not violates(network, regions, point):
        raise Refused("the counterexample does not violate the property in real arithmetic")
    verdict, why = "holds" if point is None else "violated", ""
    manifest = {"model": digest_of(claim.model), "property": digest_of(claim.property), "arithmetic": "real"}
    about = {} if claim.slopes is None else {"slopes": claim.slopes}
    with path.open("wb") as file:
        log = Log(Writer(file))
        log.writer.begin({**manifest, **about, "verdict": verdict})
        try:
            if point is not None:
                log.writer.add("P", point)
            else:
                _holds(network, regions, log, deadline)
        except Refused as refused:
            why = str(refused)
        finally:
            log.flush()
    if why and not log.share:
        path.unlink()
        raise Refused(why)
    return Written(log.leaves, path.stat().st_size, log.share if why else 1.0, why)


@dataclass(frozen=True)
class Task:
    """A region's share of the input set, and until when to search."""

    share: float
    deadline: float

    def require_time(self) -> None:
        """Refused where the time is used up."""
        if time.monotonic() > self.deadline:
            raise Refused(TIME)

    def bounds(self, network: Network, lower: Array, upper: Array) -> Bounds:
        """The checker's bounds, which end when the time does."""
        return _Timed(network, lower, upper, self)


class _Timed(Bounds):
    def __init__(self, network: Network, lower: Array, upper: Array, task: Task) -> None:
        self.task = task
        super().__init__(network, lower, upper)

    def _visit(self, place: int, step: Step) -> None:
        self.task.require_time()
        super()._visit(place, step)

    def _swept(self, place: int, rows: Array) -> Rows:
        self.task.require_time()
        return super()._swept(place, rows)


def by_sign(network: Network, region: Region) -> bool:
    """Whether signs are split: many inputs vary, and some bend is a ReLU's."""
    many = (region.lower < region.upper).sum() > FEW
    return bool(many) and any(step.op == "relu" for step in network.steps)


def _holds(network: Network, regions: list[Region], log: Log, deadline: float) -> None:
    """The nodes of each region, of a tree over boxes or over signs."""
    margin = MARGIN if len(regions) > 1 else 0.0
    task = Task(1.0 / len(regions), deadline)
    for region, found in _rooted(network, regions, task):
        task.require_time()
        if (found > margin).all():
            log.boxes(*ONE, BoxWalk(region, task.share).take(*ONE))
        elif by_sign(network, region):
            from verif.sign_proofs import by_signs

            log.flush()
            by_signs(network, region, log, task)
        else:
            _by_boxes(network, region, log, task)


def _rooted(network: Network, regions: list[Region], task: Task) -> Iterator[tuple[Region, Array]]:
    """Each region with the gaps of its whole box, those that are alike together."""
    first = 0
    while first < len(regions):
        most = regions[first : first + batch_of(network, regions[first])]
        alike = list(takewhile(most[0].like, most))
        found, _ = gaps(network, [Part(region, region.lower, region.upper, 1.0) for region in alike], task.bounds)
        yield from zip(alike, found, strict=True)
        first += len(alike)


def _by_boxes(network: Network, region: Region, log: Log, task: Task) -> None:
    """The nodes of a region's tree over boxes."""
    walk, size = BoxWalk(region, task.share), batch_of(network, region)
    while walk.stack:
        task.require_time()
        batch = walk.stack[-size:]
        found, slopes = gaps(network, batch, task.bounds)
        axis, cut = np.full(len(batch), LEAF), np.zeros(len(batch))
        left = np.flatnonzero(~(found > MARGIN).all(1))
        weights = [np.abs(slopes[index][~(found[index] > MARGIN)]).sum(0) for index in left.tolist()]
        axis[left], cut[left] = _cuts(network, [batch[index] for index in left.tolist()], weights, task)
        log.boxes(axis, cut, walk.take(axis, cut))


def _cuts(network: Network, parts: list[Part], weights: list[Array], task: Task) -> tuple[Array, Array]:
    """Axes and cuts: where axes that slopes and widths name differ, the one whose halves have the better bounds."""
    chosen = [[_axis(part, weight, floor) for part, weight in zip(parts, weights, strict=True)] for floor in FLOORS]
    differ = [k for k, (one, other) in enumerate(zip(*chosen, strict=True)) if one != other]
    if differ:
        scores, some = [], [(k, parts[k]) for k in differ]
        for axes in chosen:
            cut = [(part, halves(part.lower, part.upper, axes[k], _middle(part, axes[k]))) for k, part in some]
            boxes = [Part(part.region, *half, 0.0) for part, pair in cut for half in pair]
            size = batch_of(network, parts[0].region)
            found = [gaps(network, boxes[k : k + size], task.bounds)[0] for k in range(0, len(boxes), size)]
            scores.append(np.minimum(np.concatenate(found), 0.0).sum(1).reshape(-1, 2).sum(1))
        for k, better in zip(differ, (scores[1] > scores[0]).tolist(), strict=True):
            chosen[0][k] = chosen[1][k] if better else chosen[0][k]
    middles = [_middle(part, along) for part, along in zip(parts, chosen[0], strict=True)]
    return np.array(chosen[0], int), np.array(middles)


def _axis(part: Part, weight: Array, floor: float) -> int:
    """The axis along which the bound changes most. Ranges inside the network narrow along all axes, whatever the row's
    slopes say, which `floor` counts.
    """
    weight = np.nan_to_num(weight)
    score = (np.maximum(weight, floor * weight.max()) + 1e-300) * (part.upper - part.lower)
    return int(score.argmax())


def _middle(part: Part, along: int) -> float:
    """Where a box is cut."""
    at = float(part.lower[along] / 2 + part.upper[along] / 2)
    if not part.lower[along] < at < part.upper[along]:
        raise Refused("a box too small to split is not refuted")
    return at
