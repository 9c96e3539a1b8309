"""Input sets that are finitely many points as far as the network can tell: fixed inputs, and inputs that it reads only
through floor, ceil or trunc. Each point is looked at by itself; bounds through jumps would say nothing before the end.

Shape letters: D regions, P points, n inputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphs import Graph
from graphs.ops import OPS
from verif.bab import Candidate, Progress
from verif.clauses import ClauseTable
from verif.query import Query
from verif.rounding import EPS, TERMS

STEPS = {"floor": torch.floor, "ceil": torch.ceil, "trunc": torch.trunc}
SELECTIONS = ("reshape", "slice", "transpose", "gather")  # ops that only pass numbers on
BATCH = 256
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
    """The search over points. The exact decimals go through the network in float64, what the model is given in float32;
    a point counts as refuted when both say so, and what they disagree about (a jump within rounding) is left open.
    """

    points: Points
    table: ClauseTable
    graphs: tuple[Graph, Graph]
    noise: Tensor
    deadline: float
    most: int = BATCH
    done: int = 0
    unresolved: int = 0
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
            given = self.points.at(self.points.given, part)
            gap = self._gap(given.float(), region).fmin(self._gap(self.points.at(self.points.exact, part), region))
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
    return Points(torch.cat(region), axes, torch.cat(values), lower, query.inner()[0])


def _stepped(graph: Graph) -> Mapping[int, str]:
    """The inputs that are read through one of STEPS and by nothing else."""
    seen: dict[int, set[str]] = {}
    for op, numbers in _reads(graph):
        for number in numbers.tolist():
            seen.setdefault(number, set()).add(op)
    return {number: min(ops) for number, ops in seen.items() if len(ops) == 1 and ops <= STEPS.keys()}


def _reads(graph: Graph) -> Iterator[tuple[str, Tensor]]:
    """Every op that reads inputs as they are, with their numbers."""
    (source,) = graph.inputs
    numbers = {source: torch.arange(graph[source].size, dtype=torch.float64)[None]}
    for node in graph:
        held = [numbers[name] for name in node.inputs if name in numbers]
        if node.op in SELECTIONS and len(held) == 1 == len(node.inputs):
            numbers[node.name] = OPS[node.op].forward(*held, **graph.params(node), **node.attrs)
        else:
            yield from ((node.op, read.flatten().long()) for read in held)
    yield from (("output", numbers[name].flatten().long()) for name in graph.outputs if name in numbers)
