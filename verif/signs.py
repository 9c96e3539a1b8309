"""Branch-and-bound over the signs of ReLU inputs, for networks with more inputs than boxes can be cut along.

Every case is one row (an atom of a clause) with signs that some neurons have; the bounds of all other values are those
of the root. Cases are bounded many at a time, each with its own slopes and multipliers (Wang et al. 2021), in float32;
what that refutes counts only when the same slopes and multipliers do so in float64.
Shape letters: N cases, S rows, D signs of the deepest case, n inputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.kernels.cases import CaseSweep, Decided, Pace
from relaxations.sets import Box
from verif.bounds import Engine, Pass, Rounds
from verif.cases import Cases
from verif.rounding import of_terms

ROOT = Rounds(10, 60)  # rounds of slope optimisation for the root's intermediate values and rows
ROUNDS, STEP = 16, 0.2  # and for each case, which goes on where its parent ended
LOOK = 2  # and for the children that a case might have, before the best neuron to split is taken
SHARE = 0.2  # of the better child's bound in the choice
LAST_ROUNDS = 300  # for a case whose neurons all have their signs
FIRST_BATCH, LARGEST_BATCH = 64, 4096
STORE_BYTES = 1 << 31  # of open cases, and of what one batch makes
ROW_COPIES = 30  # of a case's row on the input while its children are tried, two for each candidate, with their sizes
POINTS = 32  # minimisers of the lowest cases that are tried as counterexamples
QUICK, SLOW = 0.15, 0.6  # seconds of a batch from which batches grow and shrink


class Sweeps(NamedTuple):
    """Sweeps of the same cases in float64, and in float32 for the search."""

    exact: CaseSweep
    quick: CaseSweep


@dataclass
class SignSearch:
    """The search over one box (1, n). Row s of (1, S, M) is refuted by a bound above limit[s], rounding counted; with
    `chance`, which neuron is split is drawn at random.
    """

    engine: Engine
    box: Box
    rows: Tensor
    limit: Tensor
    deadline: float
    store_bytes: int = STORE_BYTES
    chance: torch.Generator | None = None
    done: int = 0
    unresolved: int = 0
    batch: int = FIRST_BATCH
    open: Cases = field(default_factory=lambda: Cases.of_rows(torch.empty(0), 0))
    points: Tensor = field(default_factory=lambda: torch.empty(0, 0))

    def run(self) -> Iterator[None]:
        """Search until no case is open, or the deadline; after each step, `points` (P, n) are worth a try."""
        sweeps = self._root()
        yield
        while len(self.open) and time.monotonic() < self.deadline:
            begun = time.monotonic()
            batch = self._pop()
            found = self._bound(sweeps.quick, batch, ROUNDS)
            if not found.complete:
                self.open = self.open.joined(batch)
                return
            self.done += len(batch)
            batch.keep(found)
            self._branch(sweeps, batch, found)
            self._resize(len(batch), time.monotonic() - begun)
            yield

    @property
    def lowest(self) -> float:
        """The lowest bound of an open case beyond its limit; inf where none is open."""
        return float((self.open.bound - self.limit[self.open.row]).min()) if len(self.open) else math.inf

    def _root(self) -> Sweeps:
        """Bound all rows without signs."""
        result = self.engine.bound(self.box, self.rows, rounds=ROOT, deadline=self.deadline)
        exact = self.engine.cases(self.box, result, self.rows)
        if exact is None:
            raise ValueError("this network has no signs to split")
        sweeps = Sweeps(exact, exact.single(self.engine.graph))
        self.open = cases = Cases.of_rows(result.lower[0], exact.choices)
        pace = Pace(ROOT.last, seconds=self.deadline - time.monotonic())
        found = exact.run(cases.row, cases.signs(), self.limit, pace)
        if found.complete:
            self.open = cases.where(torch.zeros(len(cases), dtype=torch.bool))
            self.done += len(cases)
            cases.keep(found)
            self._branch(sweeps, cases, found)
        return sweeps

    def _bound(self, sweep: CaseSweep, cases: Cases, rounds: int, step: float = STEP) -> Decided:
        """Some more rounds for cases."""
        pace = Pace(rounds, step, self.deadline - time.monotonic())
        return sweep.run(cases.row, cases.signs(), self.limit[cases.row], pace, cases.chosen())

    def _refuted(self, sweep: CaseSweep, cases: Cases, rounds: int = 1, step: float = 0.0) -> Tensor:
        """Which cases are refuted beyond doubt, (N,): by float64 bounds, what rounding may have added taken off."""
        if not len(cases):
            return torch.zeros(0, dtype=torch.bool)
        found = self._bound(sweep, cases, rounds, step)
        single = Pass(found.low[:, None], found.slopes[:, None], found.bias[:, None], {}, {})
        slack = of_terms(single, self.box.lower, self.box.upper)[:, 0]
        return (found.low - slack > self.limit[cases.row]) & found.complete

    def _pop(self) -> Cases:
        """Take the cases of the lowest bounds, or where memory is short those that are nearest to their end."""
        count = min(self.batch, len(self.open))
        taken = torch.zeros(len(self.open), dtype=torch.bool)
        gap = self.open.bound - self.limit[self.open.row]
        taken[torch.topk(gap, count, largest=self.open.nbytes > self.store_bytes).indices] = True
        batch, self.open = self.open.where(taken), self.open.where(~taken)
        return batch

    def _branch(self, sweeps: Sweeps, batch: Cases, found: Decided) -> None:
        """Drop what is refuted, split the rest at the best of the neurons that were found for each."""
        left = self._left(sweeps.exact, batch, found.low > self.limit[batch.row])
        self._look(found, found.low - self.limit[batch.row], left)
        stuck = left & (found.slot[:, 0] < 0)
        # Their neurons all have their signs: multipliers alone can still decide them.
        self.unresolved += int((~self._refuted(sweeps.exact, batch.where(stuck), LAST_ROUNDS, STEP)).sum())
        left &= ~stuck
        batch = batch.where(left)
        if len(batch):
            self.open = self.open.joined(self._best(sweeps, batch, found.slot[left], found.entry[left]))

    def _left(self, exact: CaseSweep, cases: Cases, hopeful: Tensor) -> Tensor:
        """Which cases are open: all but those of the hopeful ones (N,) that are refuted."""
        left = torch.ones(len(cases), dtype=torch.bool)
        left[hopeful] = ~self._refuted(exact, cases.where(hopeful))
        return left

    def _best(self, sweeps: Sweeps, batch: Cases, slot: Tensor, entry: Tensor) -> Cases:
        """Children of cases at that neuron, of slot and entry (N, C), with which a few rounds give the best bounds.

        Children that these rounds refute are dropped.
        """
        count, candidates = slot.shape
        cases = reduce(Cases.joined, [batch.children(slot[:, c], entry[:, c]) for c in range(candidates)])
        found = self._bound(sweeps.quick, cases, LOOK)
        cases.keep(found)
        gap = (found.low - self.limit[cases.row]).reshape(candidates, 2, count).clamp(max=0)
        score = gap.amin(1) + SHARE * gap.amax(1)
        if self.chance is not None:
            score = torch.rand(score.shape, generator=self.chance, dtype=score.dtype)
        score = torch.where(slot.T >= 0, score, -math.inf)
        children = (score.argmax(0) * 2 + torch.arange(2)[:, None]) * count + torch.arange(count)
        cases = cases.where(children.flatten())
        left = self._left(sweeps.exact, cases, cases.bound > self.limit[cases.row])
        self.done += int((~left).sum())
        return cases.where(left)

    def _look(self, found: Decided, gap: Tensor, left: Tensor) -> None:
        """The minimisers of the lowest rows."""
        lowest = torch.topk(torch.where(left, gap, math.inf), min(POINTS, len(gap)), largest=False).indices
        self.points = torch.where(found.slopes[lowest] >= 0, self.box.lower, self.box.upper)

    def _resize(self, size: int, seconds: float) -> None:
        """Grow batches while they are quick, shrink them when they are slow."""
        if seconds < QUICK and size == self.batch:
            most = self.store_bytes // (8 * ROW_COPIES * self.box.lower.shape[1])
            self.batch = max(FIRST_BATCH, min(2 * self.batch, LARGEST_BATCH, most))
        elif seconds > SLOW:
            self.batch = max(FIRST_BATCH, self.batch // 2)
