"""The complete search of a small query: every region, every conjunction of its atoms, a tree each.

Shape letters: B boxes, n inputs, M atoms of the query, F factors of a region.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphs import Graph
from relaxations.sets import Box
from verif.bounds import Engine, Pass, Rounds
from verif.bounds.engine import OutOfTime
from verif.bounds.entries import open_kinks
from verif.clauses import ClauseTable
from verif.exact.kinks import program, supported
from verif.exact.tree import Atoms, Tree
from verif.rounding import of_terms

ROOT = Rounds(10, 60)  # rounds of slope optimisation for the intervals that programs are made from
MOST_OPEN = 60  # undecided kinks up to which a search is worth its start (measured, see docs/performance.md)
MOST_CONJUNCTIONS = 10_000  # of one region


def worthwhile(graph: Graph, found: Pass, most: int = MOST_OPEN) -> bool:
    """Whether the search is likely to end soon: only affine and piecewise-linear ops, and few undecided kinks."""
    return supported(graph) and open_kinks(graph, found.intervals) <= most


@dataclass
class ExactSearch:
    """The search over boxes (B, n) of regions (B,), in float64.

    `noise` (M,) is what rounding inside the network may add to bounds. After each step of `run`, `points` (P, n) are
    worth a replay, also where float32 calls their atoms too high by little.
    """

    engine: Engine
    table: ClauseTable
    box: Box
    region: Tensor
    noise: Tensor
    deadline: float
    done: int = 0
    unresolved: int = 0
    left: int = field(init=False)
    points: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.float64))

    def __post_init__(self) -> None:
        self.left = len(self.region)

    def run(self) -> Iterator[None]:
        """Until no box is left, or the deadline. Nothing in the boxes is unsafe where none is left or unresolved."""
        for index in range(len(self.region)):
            box = Box(self.box.lower[index : index + 1], self.box.upper[index : index + 1])
            try:
                found = self.engine.bound(box, rounds=ROOT, deadline=self.deadline)
                complete = yield from self._decide(box, found, self.region[index : index + 1])
            except OutOfTime:
                return
            if not complete:
                return
            self.left -= 1

    def _decide(self, box: Box, found: Pass, region: Tensor) -> Generator[None, None, bool]:
        """All conjunctions over one box; whether there was time for them. Raises OutOfTime."""
        slack = of_terms(found, box.lower, box.upper) + self.noise
        gaps, _ = self.table.gaps(found.lower, region, slack)
        ids, _ = self.table.clause_ids(region)
        factors = [factor[gap <= 0].tolist() for factor, gap in zip(ids[0], gaps[0], strict=True)]
        if not all(factors):
            self.done += 1
            return True
        made = program(self.engine.graph, found.intervals, self.deadline)
        if made is None or math.prod(map(len, factors)) > MOST_CONJUNCTIONS:
            self.unresolved += 1
            return True
        for clauses in itertools.product(*factors):
            tree = Tree(made, self._atoms(clauses), self.deadline)
            for _ in tree.run():
                self.points = torch.from_numpy(tree.points)
                yield
            self.done += tree.done
            self.unresolved += tree.unresolved
            if tree.open:
                return False
        return True

    def _atoms(self, clauses: tuple[int, ...]) -> Atoms:
        """The atoms of clauses that are to hold together."""
        chosen = torch.tensor(sorted(set(clauses)))
        used = self.table.used[chosen]
        atoms, limit = self.table.atoms[chosen][used], self.table.thresholds[chosen][used]
        return Atoms(atoms.numpy(), limit.numpy(), self.noise.double()[atoms].numpy())
