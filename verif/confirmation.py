"""A second search, by bounds whose rounding is counted (`verif.running`), where the first one's was only measured."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relaxations.sets import Box
from verif.agreement import disagreement
from verif.bab import Search
from verif.bounds.engine import OutOfTime
from verif.bounds.memory import box_bytes
from verif.clauses import ClauseTable
from verif.domains import Domains
from verif.points import PointSearch
from verif.query import Query
from verif.roundoff import BENT, UNIT
from verif.running import ALL, FINE, FORMS, KINKS, SURE, Effort, Running, unknown_ops
from verif.strategy import FEW_INPUTS

SHARE, LEAST, MOST = 2.0, 3.0, 60.0  # of the first search's time, and seconds, that this may take
LOOKS, DEEP = 4, 2.0**-8  # points that are looked at at a time, and shares of regions whose middles are
STATE_BYTES = 1 << 28  # that a pass over some boxes may take


class Hopeless(Exception):
    """HOLDS cannot be said: a point is so near to a violation that no bound in float64 tells them apart, or the model
    does not compute what its graph does.
    """


def grounds(query: Query, search: Search | PointSearch | None, started: float, *, programs: bool) -> str:
    """What HOLDS rests on: "proved", or "measured: " and why; `programs`: linear programs decided. Raises Hopeless."""
    if search is None:  # no region at all
        return "proved"
    if isinstance(search, PointSearch):
        _require(disagreement(query, search.graphs[1], search.noise))
        return search.rounding(query.property.arithmetic)
    _require(disagreement(query, search.exact.graph, search.allowance.single))
    unproved = "linear programs decided" if programs else search.allowance.unproved
    return f"measured: {unproved}" if unproved and not confirmed(search, started) else "proved"


def _require(disagreement: str) -> None:
    if disagreement:
        raise Hopeless(disagreement)


def confirmed(search: Search, started: float) -> bool:
    """Whether all regions of a query are refuted once more, beyond all rounding. Raises Hopeless."""
    query, now = search.query, time.monotonic()
    if query.property.center is not None or torch.get_default_device().type != "cpu" or unknown_ops(query.graph):
        return False
    until = min(search.deadline, now + min(MOST, max(LEAST, SHARE * (now - started))))
    lower, upper = (end.to(FINE) for end in query.outer())
    count, ration = len(lower), search.ration
    whole, signs = torch.ones(count, dtype=FINE), torch.empty(count, 0, dtype=torch.uint8)
    regions = Domains(lower, upper, torch.arange(count), whole - math.inf, whole, signs)
    running = Running(query.graph, chunk_bytes=ration.chunk_bytes)
    step = max(1, min(STATE_BYTES, ration.state_bytes) // (2 * box_bytes(running.engine.graph, FINE.itemsize)))
    parts = search.done > 2 * count
    expected = {name: signs for name, signs in search.seen.signs.items() if len(signs) == count}
    found = Confirmation(running, ClauseTable.of(query.property), _slack(search), step, parts, search.level, expected)
    try:
        return found.holds(regions, until)
    except OutOfTime:
        return False


def _slack(search: Search) -> Tensor:
    """What bounds must exceed thresholds by, (M,): these were decimals; and what programs return beside the atoms."""
    table, beside = ClauseTable.of(search.query.property), search.allowance.beside
    return 4 * UNIT[FINE] * table.largest(len(search.allowance.double)) + (0 if beside is None else beside.to(FINE))


def efforts(running: Running, *, few: bool, parts: bool, level: int) -> tuple[Effort, ...]:
    """Passes that are worth a try, from the cheapest on; `level`: what the first search needed, in `parts` or not."""
    graph, first = running.engine.graph, max(0, min(level, 1)) if running.tiled else 0
    if few and running.engine.heavy and any(node.op in BENT for node in graph):
        cheap = (FORMS,) if parts or level < 0 else ()
        return (*cheap, *(KINKS[first:] if running.tiled else KINKS[:1]))
    return (*(ALL[first:] if running.tiled else ALL[:1]), SURE)


@dataclass
class Confirmation:
    """The search: `step` boxes at a time, and halves of those that are not refuted, where inputs are few; with `parts`,
    whole regions are split after the cheapest look. `expected` are signs of values (R, size) in all regions, by node.
    """

    running: Running
    table: ClauseTable
    slack: Tensor
    step: int
    parts: bool
    level: int
    expected: Mapping[str, Tensor] = field(default_factory=dict)

    def holds(self, regions: Domains, until: float) -> bool:
        """Whether all of the boxes are refuted. Raises OutOfTime."""
        few = regions.lower.shape[1] <= FEW_INPUTS
        passes = efforts(self.running, few=few, parts=self.parts, level=self.level)
        while len(regions) and passes:
            boxes = regions.pop(self.step, smallest=True)
            whole = self.parts and few and bool((boxes.share == 1).any())
            left, slopes = self.open(boxes, passes[:1] if whole else passes, until)
            near = left.where((left.share == 0.5 if self.parts else left.share == 1) | (left.share < DEEP))
            if len(near):
                self.look((near.lower + near.upper) / 2, near.region, KINKS[0] if passes[-1] in KINKS else SURE, until)
            if len(left) and not few:
                return False
            axis = (slopes * (left.upper - left.lower)).argmax(1)
            halves = Box(left.lower, left.upper).split(axis)
            if bool((halves.lower == torch.cat([left.lower] * 2)).all(1).logical_and(
                (halves.upper == torch.cat([left.upper] * 2)).all(1)).any()):  # fmt: skip
                return False
            twice = (torch.cat([part, part]) for part in (left.region, left.worst, left.share / 2, left.signs))
            regions.push(Domains(halves.lower, halves.upper, *twice))
        return not len(regions)

    def look(self, points: Tensor, region: Tensor, effort: Effort, until: float) -> None:
        """Raise Hopeless if one of some points (P, n) of their regions (P,) is not refuted, which all boxes around are
        to be.
        """
        points, region = points[:LOOKS], region[:LOOKS]
        lower = self.running.lower(Box(points, points), effort, until)[0]
        if bool((self.table.worst(self.table.gaps(lower, region, self.slack.expand_as(lower))[0]) <= 0).any()):
            raise Hopeless("some outputs are so near to a violation that bounds in float64 do not tell them apart")

    def open(self, boxes: Domains, passes: tuple[Effort, ...], until: float) -> tuple[Domains, Tensor]:
        """The boxes that none of some passes refutes, and how steep the bounds of all atoms are there, (N, n)."""
        slopes = torch.ones_like(boxes.lower)
        for effort in passes:
            if len(boxes):
                expected = {name: signs[boxes.region] for name, signs in self.expected.items()}
                lower, rows = self.running.lower(Box(boxes.lower, boxes.upper), effort, until, expected)
                gaps = self.table.gaps(lower, boxes.region, self.slack.expand_as(lower))[0]
                left = self.table.worst(gaps) <= 0
                boxes, slopes = boxes.where(left), rows.abs().sum(1)[left]
        return boxes, slopes
