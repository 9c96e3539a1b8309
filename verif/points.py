"""Input sets that are finitely many points as far as the network can tell: fixed inputs, and inputs that it reads only
through floor, ceil or trunc. Each point is looked at by itself; bounds through jumps would say nothing before the end.

Shape letters: D regions, P points, n inputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from graphs import Graph
from verif.alike import passed_on, told_apart
from verif.bab import Candidate, Progress
from verif.clauses import ClauseTable
from verif.enclosures import enclosed, unknown_ops
from verif.query import Query
from verif.rounding import EPS, TERMS
from verif.roundoff import UNIT

STEPS = {"floor": torch.floor, "ceil": torch.ceil, "trunc": torch.trunc}
BATCH = 64
MOST = 100_000  # points up to which they are looked at one by one


@dataclass(frozen=True)
class Points:
    """All points of a query's regions: `region` (P,), and values (P, k) of the inputs `axes` (k,), which vary.

    The fixed inputs have decimals that the model cannot take as they are: what they are, `exact`, and the numbers that
    the model is given for them, `given`, each (D, n) float64.
    """

    region: Tensor
    axes: Tensor
    values: Tensor
    exact: Tensor
    given: Tensor

    def __len__(self) -> int:
        return len(self.region)

    def at(self, base: Tensor, part: slice) -> Tensor:
        """Whole points (P, n), their fixed inputs from `exact` or `given`."""
        points = base[self.region[part]].clone()
        points[:, self.axes] = self.values[part]
        return points


@dataclass
class PointSearch:
    """The search over points. A point is refuted when bounds on the values of both its decimals and what the model is
    given say so (`verif.enclosures`), else where the decimals in float64 and what is given in float32 do, which is
    `measured`. What these disagree about (a jump within rounding) is left open.
    """

    points: Points
    table: ClauseTable
    graphs: tuple[Graph, Graph]
    noise: Tensor
    deadline: float
    most: int = BATCH
    done: int = 0
    unresolved: int = 0
    measured: int = 0
    why: str = "points: the input set is finitely many points for the network"
    lower_bound: float = math.inf
    started: float = field(default_factory=time.monotonic)

    def run(self) -> Iterator[Progress | Candidate]:
        """Look at every point, or as many as the time allows."""
        size = min(self.most, BATCH)
        for first in range(0, len(self.points), size):
            if time.monotonic() > self.deadline:
                return
            part = slice(first, first + size)
            region = self.points.region[part]
            exact, given = (self.points.at(base, part) for base in (self.points.exact, self.points.given))
            gap = self._sure(exact, given, region)
            left = (~(gap > 0)).nonzero()[:, 0]
            if len(left):
                gap[left] = self._gap(given[left].float(), region[left]).fmin(self._gap(exact[left], region[left]))
                self.measured += int((gap[left] > 0).sum())
            for index in (~(gap > 0)).nonzero()[:, 0].tolist():
                self.unresolved += 1
                yield Candidate(given[index].float(), int(region[index]))
            self.done += len(region)
            self.lower_bound = min(self.lower_bound, float(gap.min()))
            yield self.progress()

    @property
    def complete(self) -> bool:
        """Whether every point was looked at."""
        return self.done == len(self.points)

    def rounding(self, arithmetic: str) -> str:
        """What HOLDS rests on, once all points are refuted."""
        if self._unknown:
            return f"measured: no proved error of {', '.join(self._unknown)}"
        if arithmetic != "real":
            return "measured: points are evaluated in real arithmetic"
        return "measured: points are evaluated one by one" if self.measured else "proved"

    @cached_property
    def _unknown(self) -> tuple[str, ...]:
        return unknown_ops(self.graphs[1]) if torch.get_default_device().type == "cpu" else ("this device",)

    def _sure(self, exact: Tensor, given: Tensor, region: Tensor) -> Tensor:
        """The gaps of points, less all rounding; NaN where nothing is known."""
        nothing = torch.full((len(region),), math.nan, dtype=torch.float64)
        if self._unknown:
            return nothing
        same, count = torch.equal(exact, given), len(region)
        points = exact if same else torch.cat([exact, given])
        decimal = torch.zeros_like(points)
        decimal[:count] = torch.where(exact == exact.round(), 0.0, UNIT[torch.float64] * exact.abs())
        values, errors = enclosed(self.graphs, points, decimal)
        slack = errors + 4 * UNIT[torch.float64] * (values.abs() + self.table.largest(values.shape[1]))
        gap = self.table.worst(self.table.gaps(values, region if same else region.repeat(2), slack)[0])
        return gap if same else gap[:count].fmin(gap[count:])

    def _gap(self, points: Tensor, region: Tensor) -> Tensor:
        single, double = self.graphs
        with torch.no_grad():
            atoms = (single if points.dtype == torch.float32 else double)(points)[0]
        slack = self.noise.nan_to_num(posinf=0.0) * (EPS[points.dtype] / EPS[torch.float32])
        slack = slack + TERMS * EPS[points.dtype] * atoms.abs()
        return self.table.worst(self.table.gaps(atoms, region, slack)[0])

    def progress(self) -> Progress:
        """The state of the search."""
        seconds, count = time.monotonic() - self.started, len(self.points)
        rate = self.done / max(seconds, 1e-9)
        return Progress(count - self.done, self.done, self.lower_bound, self.done / count, rate, seconds)


def finite(query: Query) -> Points | None:
    """The points of a query over boxes; None where there are too many of them."""
    prop = query.property
    lower, upper = prop.lower.double(), prop.upper.double()
    stepped = _stepped(query.graph)
    axes = (lower < upper).any(0).nonzero()[:, 0]
    if prop.center is not None or not len(axes) or any(int(i) not in stepped for i in axes):
        return None
    ends = lower[:, axes], upper[:, axes]
    steps = [STEPS[stepped[int(i)]] for i in axes]
    first, last = (torch.stack([step(end[:, k]) for k, step in enumerate(steps)], 1) for end in ends)
    if not bool((last - first + 1).prod(1).sum() <= MOST):
        return None
    values, region = [], []
    for d in range(len(lower)):
        grids = [torch.arange(int(a), int(b) + 1) for a, b in zip(first[d], last[d], strict=True)]
        cells = torch.cartesian_prod(*grids).double().reshape(-1, len(axes))
        values.append(torch.minimum(torch.maximum(cells, ends[0][d]), ends[1][d]))
        region.append(torch.full((len(cells),), d))
    found = Points(torch.cat(region), axes, torch.cat(values), lower, query.inner()[0])
    apart = told_apart(query.graph.to(torch.float64), found.region, axes, found.values)
    return replace(found, region=found.region[apart], values=found.values[apart])


def _stepped(graph: Graph) -> Mapping[int, str]:
    """The inputs that are read through one of STEPS and by nothing else."""
    seen: dict[int, set[str]] = {}
    for op, numbers in _reads(graph):
        for number in numbers.tolist():
            seen.setdefault(number, set()).add(op)
    return {number: min(ops) for number, ops in seen.items() if len(ops) == 1 and ops <= STEPS.keys()}


def _reads(graph: Graph) -> Iterator[tuple[str, Tensor]]:
    """Every op that reads inputs as they are, with their numbers."""
    numbers = passed_on(graph)
    for node in graph:
        if node.name not in numbers:
            yield from ((node.op, numbers[name].flatten().long()) for name in node.inputs if name in numbers)
    yield from (("output", numbers[name].flatten().long()) for name in graph.outputs if name in numbers)
