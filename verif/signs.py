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
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations import Interval
from relaxations.kernels.cases import CaseSweep, Decided, Pace, Signs
from relaxations.sets import Box
from verif.bounds import Engine, Pass, Rounds
from verif.cases import Cases
from verif.hulls import Asked, lower_bounds
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
KEPT = 1e-7  # above 0, so that a neuron that a base switches off keeps its place among the lines, and its multiplier
QUICK, SLOW = 0.15, 0.6  # seconds of a batch from which batches grow and shrink


class Sweeps(NamedTuple):
    """Sweeps of the same cases in float64, and in float32 for the search."""

    exact: CaseSweep
    quick: CaseSweep


@dataclass
class SignSearch:
    """The search over one box (1, n). Row s of (1, S, M) is refuted by a bound above limit[s], rounding counted; with
    `chance`, which neuron is split is drawn at random. A part of a query has signs that all cases have, its `base` (S),
    and `ranges` in front of ReLUs that hold without them; those of a whole query are as tight as they can be had.
    """

    engine: Engine
    box: Box
    rows: Tensor
    limit: Tensor
    deadline: float
    store_bytes: int = STORE_BYTES
    chance: torch.Generator | None = None
    base: Cases | None = None
    ranges: dict[str, Interval] = field(default_factory=dict)
    done: int = 0
    batch: int = field(default_factory=lambda: FIRST_BATCH)
    open: Cases = field(default_factory=Cases.none)
    stuck: Cases = field(default_factory=Cases.none)
    started: float = field(default_factory=time.monotonic)
    rooted: float = 0.0
    points: Tensor = field(init=False)
    sweeps: Sweeps | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.points = self.box.lower[:0]

    def run(self) -> Iterator[None]:
        """Search until no case is open, or the deadline; after each step, `points` (P, n) are worth a try."""
        sweeps = self._root()
        yield
        while sweeps is not None and len(self.open) and time.monotonic() < self.deadline:
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
    def unresolved(self) -> int:
        """Cases that no split can help: multipliers did not decide them though all of their neurons have signs."""
        return len(self.stuck)

    def fresh(self) -> SignSearch:
        """The same search at its beginning."""
        search = SignSearch(self.engine, self.box, self.rows, self.limit, self.deadline, self.store_bytes, self.chance)
        return replace(search, base=self.base, ranges=self.ranges)

    @property
    def lowest(self) -> float:
        """The lowest bound of an open case beyond its limit; inf where none is open."""
        both = [cases for cases in (self.open, self.stuck) if len(cases)]
        return min((float((cases.bound - self.limit[cases.row]).min()) for cases in both), default=math.inf)

    def _within(self) -> dict[str, Interval] | None:
        """What is known of values and the base's signs say of them, by node."""
        sweep = self.engine.tiles.sweep(self.engine.output, self.box.lower)
        if sweep is None:
            return None
        if self.base is None:
            return self.ranges or None
        flat, graph = torch.contiguous_format, self.engine.graph
        limits = {n: Interval(*(e.clone(memory_format=flat) for e in ends)) for n, ends in self.ranges.items()}
        nodes = [str(sweep.program.slots[slot].scalar) for slot in self.base.signs().slot.tolist()]
        for node, entry, active in zip(nodes, *(held.tolist() for held in self.base.signs()[2:]), strict=True):
            lower, upper = limits[graph[node].inputs[0]]
            (lower if active else upper).view(-1)[entry] = 0.0 if active else KEPT
        return limits

    def _root(self) -> Sweeps | None:
        """Bound all rows with the base's signs, or without any; None where there is nothing in the base."""
        within, known = self._within(), self.ranges if self.base is None else None
        result = self.engine.bound(self.box, self.rows, rounds=ROOT, deadline=self.deadline, within=within, known=known)
        if self.base is not None and result.part is not None and bool(result.part.empty):
            self.done += 1
            return None
        self._by_hulls(result)
        fronts = {node.inputs[0] for node in self.engine.graph if node.op == "relu"}
        self.ranges = {name: result.intervals[name] for name in fronts}
        exact = self.engine.cases(self.box, result, self.rows)
        if exact is None:
            raise ValueError("this network has no signs to split")
        sweeps = self.sweeps = Sweeps(exact, exact.single(self.engine.graph))
        self.open = cases = self._first(result.lower[0], exact.choices)
        pace = Pace(ROOT.last, seconds=self.deadline - time.monotonic())
        found = exact.run(cases.row, cases.signs(), self.limit, pace)
        self.rooted = time.monotonic() - self.started
        if found.complete:
            self.open = cases.where(torch.zeros(len(cases), dtype=torch.bool))
            self.done += len(cases)
            cases.keep(found)
            self._branch(sweeps, cases, found)
        return sweeps

    def _by_hulls(self, result: Pass) -> None:
        """Whatever exact minima over patches of the input refute needs no cases: its limit is gone."""
        left = (result.lower[0] <= self.limit).nonzero()[:, 0]
        if self.base is None and len(left):
            limit = self.limit[left]
            low = lower_bounds(Asked(self.engine, self.box, result, self.rows[0, left], limit, self.deadline))
            self.limit = self.limit.index_copy(0, left, torch.where(low > limit, -math.inf, limit))

    def _first(self, bound: Tensor, choices: int) -> Cases:
        """One case for each row; they have the base's signs."""
        cases = Cases.of_rows(bound, choices)
        if self.base is None:
            return cases
        held = {name: getattr(self.base, name) for name in ("slot", "entry", "active", "multiplier")}
        return replace(cases, **held)

    def _bound(self, sweep: CaseSweep, cases: Cases, rounds: int, step: float = STEP) -> Decided:
        """Some more rounds for cases."""
        pace = Pace(rounds, step, self.deadline - time.monotonic())
        return sweep.run(cases.row, cases.signs(), self.limit[cases.row], pace, cases.chosen())

    def _sure(self, sweep: CaseSweep, cases: Cases, rounds: int, step: float) -> tuple[Decided, Tensor]:
        """Bounds of cases in float64, and what rounding may have added to them, (N,)."""
        sweep = sweep.bounds
        found = self._bound(sweep, cases, rounds, step)
        if rounds > 1:  # the multipliers of the last round are known, those of the best are not
            found = sweep.run(cases.row, cases.signs(), self.limit[cases.row], Pace(1, 0.0), found.chosen)
        single = Pass(found.low[:, None], found.slopes[:, None], found.bias[:, None], {}, {})
        slack = of_terms(single, self.box.lower, self.box.upper)[:, 0]
        return found, slack + self._rounded(sweep, cases.signs(), found.chosen.multipliers)

    def _refuted(self, sweep: CaseSweep, cases: Cases, rounds: int = 1, step: float = 0.0) -> Tensor:
        """Which cases are refuted beyond doubt, (N,)."""
        if not len(cases):
            return torch.zeros(0, dtype=torch.bool)
        found, slack = self._sure(sweep, cases, rounds, step)
        return (found.low - slack > self.limit[cases.row]) & found.complete

    def _rounded(self, sweep: CaseSweep, signs: Signs, multipliers: Tensor) -> Tensor:
        """What rounding may add to cases by their multipliers, (N,): each is a row of its own on a neuron's input."""
        error = torch.zeros(len(multipliers), dtype=torch.float64)
        for slot in signs.slot.unique().tolist():
            name = self.engine.graph[str(sweep.sweep.program.slots[slot].scalar)].inputs[0]
            if name in self.engine.errors:
                own = signs.slot == slot
                error[own] = self.engine.errors[name].flatten()[signs.entry[own].long()]
        owner = torch.arange(len(signs.start) - 1).repeat_interleave(signs.start.diff())
        return torch.zeros(len(signs.start) - 1, dtype=torch.float64).index_add_(0, owner, multipliers.abs() * error)

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
        last = batch.where(stuck)
        last = last.where(~self._refuted(sweeps.exact, last, LAST_ROUNDS, STEP))
        self.stuck = self.stuck.joined(last)
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
        cases = batch.children(slot, entry)
        found = self._bound(sweeps.quick.bounds, cases, LOOK)
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
