"""Branch-and-bound over the signs of ReLU inputs, for networks with more inputs than boxes can be cut along.

Every case is one row (an atom of a clause) with signs that some neurons have; the bounds of all other values are those
of the root. Cases are bounded in float64 many at a time, each with its own slopes and multipliers (Wang et al. 2021).
Shape letters: N cases, S rows, D signs of the deepest case, n inputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import reduce

import torch
from torch import Tensor

from relaxations.kernels.cases import CaseSweep, Chosen, Decided, Pace, Signs
from relaxations.sets import Box
from verif.bounds import Engine, Pass, Rounds
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


@dataclass
class Cases:
    """N cases: row (N,), bound (N,) of the parent, and their signs: slot, entry, active (N, D), -1 for none.

    Optimisation goes on where the parent's ended, with its choices of lines (N, K) and multipliers (N, D).
    """

    row: Tensor
    bound: Tensor
    lines: Tensor
    slot: Tensor
    entry: Tensor
    active: Tensor
    multiplier: Tensor

    @classmethod
    def of_rows(cls, bound: Tensor, choices: int) -> Cases:
        """One case without signs for each row (S,)."""
        count = len(bound)
        lines, none = torch.zeros(count, choices, dtype=torch.uint8), torch.full((count, 0), -1)
        return cls(torch.arange(count), bound, lines, none, none, none, torch.zeros(count, 0))

    def __len__(self) -> int:
        return len(self.row)

    def where(self, index: Tensor) -> Cases:
        """The cases at an index or mask."""
        return Cases(*(getattr(self, f.name)[index] for f in fields(self)))

    def joined(self, other: Cases) -> Cases:
        """Both, padded to one depth."""
        depth = max(self.slot.shape[1], other.slot.shape[1])
        pad = [Cases._deep(c, depth) for c in (self, other)]
        return Cases(*(torch.cat([getattr(c, f.name) for c in pad]) for f in fields(self)))

    def _deep(self, depth: int) -> Cases:
        width = (0, depth - self.slot.shape[1])
        pad = torch.nn.functional.pad
        slot, entry, active = (pad(x, width, value=-1) for x in (self.slot, self.entry, self.active))
        return Cases(self.row, self.bound, self.lines, slot, entry, active, pad(self.multiplier, width))

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def signs(self) -> Signs:
        """The signs of all cases, one after the other."""
        used = self.slot >= 0
        start = torch.cat([torch.zeros(1, dtype=torch.int64), used.sum(1).cumsum(0)])
        return Signs(start, *(x[used].to(torch.int32) for x in (self.slot, self.entry, self.active)))

    def chosen(self) -> Chosen:
        """Where their optimisation goes on."""
        return Chosen(self.lines, self.multiplier[self.slot >= 0])

    def keep(self, chosen: Chosen) -> None:
        """Remember where their optimisation ended."""
        self.lines = chosen.lines
        self.multiplier = self.multiplier.masked_scatter(self.slot >= 0, chosen.multipliers)

    def children(self, slot: Tensor, entry: Tensor) -> Cases:
        """Each case twice, with the neuron (slot, entry) inactive and active."""
        column = [x.to(self.slot.dtype)[:, None].repeat(2, 1) for x in (slot, entry)]
        active = torch.arange(2).repeat_interleave(len(self))[:, None].to(self.slot.dtype)
        zero = torch.zeros(2 * len(self), 1)
        twice = [x.repeat(2, 1) for x in (self.slot, self.entry, self.active, self.multiplier)]
        signs = [torch.cat([held, new], 1) for held, new in zip(twice, (*column, active, zero), strict=True)]
        return Cases(self.row.repeat(2), self.bound.repeat(2), self.lines.repeat(2, 1), *signs)


@dataclass
class SignSearch:
    """The search over one box (1, n). Row s of (1, S, M) is refuted by a bound above limit[s], rounding counted."""

    engine: Engine
    box: Box
    rows: Tensor
    limit: Tensor
    deadline: float
    store_bytes: int = STORE_BYTES
    done: int = 0
    unresolved: int = 0
    batch: int = FIRST_BATCH
    open: Cases = field(default_factory=lambda: Cases.of_rows(torch.empty(0), 0))
    points: Tensor = field(default_factory=lambda: torch.empty(0, 0))

    def run(self) -> Iterator[None]:
        """Search until no case is open, or the deadline; after each step, `points` (P, n) are worth a try."""
        sweep = self._root()
        yield
        while len(self.open) and time.monotonic() < self.deadline:
            begun = time.monotonic()
            batch = self._pop()
            pace = Pace(ROUNDS, STEP, self.deadline - begun)
            found = sweep.run(batch.row, batch.signs(), self.limit[batch.row], pace, batch.chosen())
            if not found.complete:
                self.open = self.open.joined(batch)
                return
            batch.keep(found.chosen)
            self._branch(sweep, batch, self._longer(sweep, batch, found))
            self._resize(len(batch), time.monotonic() - begun)
            yield

    @property
    def lowest(self) -> float:
        """The lowest bound of an open case beyond its limit; inf where none is open."""
        return float((self.open.bound - self.limit[self.open.row]).min()) if len(self.open) else math.inf

    def _root(self) -> CaseSweep:
        """Bound all rows without signs."""
        result = self.engine.bound(self.box, self.rows, rounds=ROOT, deadline=self.deadline)
        sweep = self.engine.cases(self.box, result, self.rows)
        if sweep is None:
            raise ValueError("this network has no signs to split")
        cases = Cases.of_rows(result.lower[0], sweep.choices)
        pace = Pace(ROOT.last, seconds=self.deadline - time.monotonic())
        found = sweep.run(cases.row, cases.signs(), self.limit, pace)
        self.open = cases.where(torch.zeros(len(cases), dtype=torch.bool))
        if found.complete:
            cases.keep(found.chosen)
            self._branch(sweep, cases, found)
        else:
            self.open = cases
        return sweep

    def _longer(self, sweep: CaseSweep, batch: Cases, found: Decided) -> Decided:
        """Many rounds for cases that have nothing left to split: their multipliers alone can still decide them."""
        stuck = ((found.slot[:, 0] < 0) & ~(found.low > self.limit[batch.row])).nonzero()[:, 0]
        if not len(stuck):
            return found
        cases, pace = batch.where(stuck), Pace(LAST_ROUNDS, seconds=self.deadline - time.monotonic())
        more = sweep.run(cases.row, cases.signs(), self.limit[cases.row], pace, cases.chosen())
        if more.complete:
            for name in ("low", "slopes", "bias", "slot", "entry"):
                getattr(found, name)[stuck] = getattr(more, name)
        return found

    def _pop(self) -> Cases:
        """Take the cases of the lowest bounds, or where memory is short those that are nearest to their end."""
        count = min(self.batch, len(self.open))
        taken = torch.zeros(len(self.open), dtype=torch.bool)
        gap = self.open.bound - self.limit[self.open.row]
        taken[torch.topk(gap, count, largest=self.open.nbytes > self.store_bytes).indices] = True
        batch, self.open = self.open.where(taken), self.open.where(~taken)
        return batch

    def _branch(self, sweep: CaseSweep, batch: Cases, found: Decided) -> None:
        """Drop what is refuted, split the rest at the best of the neurons that were found for each."""
        gap = self._gap(batch, found, torch.arange(len(batch)))
        left = ~(gap > 0)
        self.done += len(batch)
        self._look(found, gap, left)
        stuck = left & (found.slot[:, 0] < 0)
        self.unresolved += int(stuck.sum())
        left &= ~stuck
        batch = replace(batch, bound=torch.fmax(batch.bound, found.low)).where(left)
        if len(batch):
            self.open = self.open.joined(self._best(sweep, batch, found.slot[left], found.entry[left]))

    def _best(self, sweep: CaseSweep, batch: Cases, slot: Tensor, entry: Tensor) -> Cases:
        """Children of cases at that neuron, of slot and entry (N, C), with which a few rounds give the best bounds.

        Children that these rounds refute are dropped.
        """
        count, candidates = slot.shape
        tried = [batch.children(slot[:, c], entry[:, c]) for c in range(candidates)]
        cases = reduce(Cases.joined, tried)
        limit = self.limit[cases.row]
        found = sweep.run(
            cases.row, cases.signs(), limit, Pace(LOOK, STEP, self.deadline - time.monotonic()), cases.chosen()
        )
        cases.keep(found.chosen)
        gap = (found.low - limit).reshape(candidates, 2, count)
        weak, strong = gap.clamp(max=0).amin(1), gap.clamp(max=0).amax(1)
        score = torch.where(slot.T >= 0, weak + SHARE * strong, -math.inf)
        best = score.argmax(0)
        index = ((best * 2 + torch.arange(2)[:, None]) * count + torch.arange(count)).flatten()
        cases.bound = torch.fmax(cases.bound, found.low)
        hopeful = index[(found.low > limit)[index]]
        refuted = hopeful[self._gap(cases, found, hopeful) > 0]
        self.done += len(refuted)
        keep = torch.zeros(len(cases), dtype=torch.bool)
        keep[index] = True
        keep[refuted] = False
        return cases.where(keep)

    def _gap(self, cases: Cases, found: Decided, index: Tensor) -> Tensor:
        """How far the bounds of some cases are beyond their limits, what rounding may have added taken off."""
        low = found.low[index]
        single = Pass(low[:, None], found.slopes[index][:, None], found.bias[index][:, None], {}, {})
        return low - of_terms(single, self.box.lower, self.box.upper)[:, 0] - self.limit[cases.row[index]]

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
