"""`verify(model, property)`: from a query to a verdict. The only place where verdicts are made.

HOLDS is said when every clause of every region was refuted, VIOLATED when a replay accepted a counterexample; an
exception, a NaN, an interruption or the end of the time never becomes either.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

from graphs import Graph
from relaxations.sets import Box
from verif.alongside import Alongside
from verif.attack import DRAWN, Attacker, Budget, Pace, best_starts, starts
from verif.bab import Candidate, Progress, Search, met
from verif.bounds import Engine
from verif.bounds.engine import OutOfTime
from verif.bounds.memory import UNLIMITED, Ration, ration, resident
from verif.clauses import ClauseTable
from verif.confirmation import Hopeless, grounds
from verif.domains import Domains
from verif.points import Points, PointSearch, finite
from verif.programs import Beside
from verif.query import Property, Query, Source, compile_query
from verif.result import Counterexample as Counterexample, Result as Result
from verif.rounding import Allowance, jumps, noise
from verif.roundoff import allowance
from verif.strategy import FEW_INPUTS, Strategy
from verif.verdict import Verdict

ATTACK, ATTACK_SHARE = 0.2, 0.1  # seconds, and share of the time so far, of one gradient descent in whole regions
REST, RARER = 8.0, 10.0  # times of a descent until the next one, at first; seconds after which it is twice as many
STEPS = (25, 50, 100)  # of the descents, in turns
PROBES = 16  # points that tell how fast a network is
POINTS = 16  # where the rounding errors of a network are measured
PATIENCE = 2.0  # seconds before a point near to a violation, and no violation, ends a search about programs
OnEvent = Callable[[Progress], None]


def verify(
    model: Source | Mapping[str, Source] | Sequence[tuple[str, Source]] | None,
    property: str | Path | Property | Query,
    *,
    timeout: float | None = None,
    strategy: str | Strategy = "auto",
    device: str = "cpu",
    seed: int = 0,
    memory: int | None = None,
    on_event: OnEvent | None = None,
) -> Result:
    """Decide a property of a model (or of several, by name) within `timeout` seconds and `memory` bytes.

    The memory is that of the whole process (with another device: of the device); work that would not fit is done in
    slices. A warning says so where even one box and one row need more.
    `property` is a VNN-LIB file, a `Property` (see `verif.properties`) or a compiled `Query` (then without a model).
    `strategy` is one of `verif.strategy.STRATEGIES`, or a `Strategy` with its own seed; every one is sound. Raises
    VerifError when the model or the property cannot be read; a Ctrl-C ends the search with what is known (reason
    "interrupted").
    """
    started = time.monotonic()
    if isinstance(property, Query):
        query = property
    else:
        if model is None:
            raise TypeError("verify() needs a model, or several by name")
        query = compile_query(property, model)
    threads = torch.get_num_threads()
    try:
        # The default device is a mode that every torch call pays for.
        with torch.device(device) if device != "cpu" else nullcontext():
            chosen = Strategy(strategy, seed) if isinstance(strategy, str) else strategy
            return Run(query, started, timeout, chosen, on_event, memory).result()
    finally:
        torch.set_num_threads(threads)


@dataclass
class Run:
    """One run of the search with its budget; nothing else makes verdicts."""

    query: Query
    started: float
    timeout: float | None = None
    strategy: Strategy = field(default_factory=Strategy)
    on_event: OnEvent | None = None
    memory: int | None = None
    search: Search | PointSearch | None = field(default=None, init=False)
    warnings: tuple[str, ...] = field(default=(), init=False)
    next_attack: float = field(default=0.4, init=False)
    pace: Pace = field(default_factory=Pace, init=False)
    programs: bool = field(default=False, init=False)
    deployed: Beside | None = field(default=None, init=False)

    @property
    def deadline(self) -> float:
        """When to stop, in time.monotonic() seconds."""
        return math.inf if self.timeout is None else self.started + self.timeout

    def result(self) -> Result:
        """Run until a verdict, the deadline, or an interruption."""
        if not len(self.query.property.lower):
            return self._result(Verdict.HOLDS)
        try:
            return self._decide()
        except OutOfTime:
            return self._result(Verdict.TIMEOUT, reason="the time was used up")
        except KeyboardInterrupt:
            return self._result(Verdict.UNKNOWN, reason="interrupted")

    def _decide(self) -> Result:
        points = finite(self.query)
        if points is not None:
            return self._by_points(points)
        search = self.search = self.search_of_regions()
        search.share_work(64)
        points_first = self.strategy.points_first(search.engine.widest)
        if not points_first:
            self._first(search)
        found = self._attack(search, 16) if len(search.domains) else None
        if found is not None:
            return found
        if points_first:
            self._allow_for_programs(search)
        beside = Alongside(search, search.domains.where(torch.arange(len(search.domains))))
        if self.strategy.name == "exact":
            return self._alone(beside) or self._ended(search, beside)
        steps = cycle(STEPS)
        for event in search.run():
            if isinstance(event, Candidate):
                found = self._replayed(event.point)
            elif self.on_event is not None:
                self.on_event(event)
            spent = time.monotonic() - self.started
            if found is None and len(search.domains) and spent > self.next_attack:
                found = self._attack(search, next(steps))
                now = time.monotonic() - self.started
                self.next_attack = now + REST * (1 + now / RARER) * (now - spent) + 0.2
            if found is None and len(search.domains):
                found = self._tried(beside.turn())
            if found is not None:
                return found
            if beside.refuted and self.query.property.arithmetic == "real":
                break
        if search.unresolved and not len(search.domains):
            found = self._alone(beside)
        return found or self._ended(search, beside)

    def _first(self, search: Search) -> None:
        """Bound the regions before any descent: what is refuted at once needs none."""
        self._allow_for_programs(search)
        search.first()
        if self.on_event is not None and not len(search.domains):  # else the search tells its own
            self.on_event(search.progress())

    def _alone(self, beside: Alongside) -> Result | None:
        """Let the exact search run to its end; a counterexample, if it finds one."""
        beside.alone = True
        return self._tried(beside.turn())

    def _tried(self, steps: Iterator[Tensor]) -> Result | None:
        """VIOLATED, if one of the points (P, n) of some step is replayed."""
        for points in steps:
            for point in points:
                found = self._replayed(point)
                if found is not None:
                    return found
        return None

    def _ended(self, search: Search, beside: Alongside) -> Result:
        """What is known when no search goes on."""
        if beside.refuted and (len(search.domains) or search.unresolved):
            self.programs = True
            return self._result(Verdict.HOLDS)
        if len(search.domains):
            near = self.deployed.endless if self.deployed else ""
            why = near or (beside.why if time.monotonic() < self.deadline else "")
            if why:
                return self._result(Verdict.UNKNOWN, reason=why)
            return self._result(Verdict.TIMEOUT, reason="the time was used up")
        if search.unresolved:
            return self._result(Verdict.UNKNOWN, reason=f"{search.unresolved} boxes are too small to split, yet open")
        return self._result(Verdict.HOLDS)

    def _by_points(self, points: Points) -> Result:
        """Look at every point of an input set that has finitely many."""
        table, device = ClauseTable.of(self.query.property), torch.get_default_device()
        graphs = self.query.graph.to(torch.float32, device), self.query.graph.to(torch.float64, device)
        error = noise(*graphs, points.at(points.given, slice(0, POINTS)))
        most = self._ration(graphs[1]).points
        search = self.search = PointSearch(points, table, graphs, error, self.deadline, most)
        for event in search.run():
            if isinstance(event, Candidate):
                found = self._replayed(event.point)
                if found is not None:
                    return found
            elif self.on_event is not None:
                self.on_event(event)
        if not search.complete:
            return self._result(Verdict.TIMEOUT, reason="the time was used up")
        if search.unresolved:
            return self._result(Verdict.UNKNOWN, reason=f"{search.unresolved} points are too close to call")
        return self._result(Verdict.HOLDS)

    def search_of_regions(self) -> Search:
        """Set up the search: graphs in float32 for speed and in float64 for close calls."""
        query, table = self.query, ClauseTable.of(self.query.property)
        device = torch.get_default_device()
        single, double = (query.graph.to(dtype, device) for dtype in (torch.float32, torch.float64))
        allowed = self._allowance(single, double)
        # float32 may decide a jump wrongly: then everything is done in float64, as where its rounding is not bounded.
        fine = jumps(query.graph) or not (allowed.counts(torch.float32) or double[double.inputs[0]].size > FEW_INPUTS)
        outer = Box(*query.outer()).to(torch.float64 if fine else torch.float32, device)
        count = len(outer)
        domains = Domains(
            outer.lower,
            outer.upper,
            torch.arange(count),
            torch.full((count,), -math.inf, dtype=torch.float64),
            torch.full((count,), 1 / count, dtype=torch.float64),
            torch.empty(count, 0, dtype=torch.uint8),
        )
        work = double if fine else single
        ration = self._ration(work)
        attacker = Attacker(single, table, self._project, ration.points)
        engine = Engine(work, chunk_bytes=ration.chunk_bytes, errors=allowed.inside(outer.lower.dtype))
        inside = allowed.inside(torch.float64)
        exact = Engine(double, chunk_bytes=ration.chunk_bytes, errors=inside, crossing=allowed.crossing or None)
        return Search(query, engine, exact, table, attacker, self.deadline, domains, allowed, ration, self.strategy)

    def _allowance(self, single: Graph, double: Graph) -> Allowance:
        """What rounding may do to bounds over the input set."""
        box, device = Box(*self.query.outer()), torch.get_default_device()
        regions = torch.arange(0, len(box), max(1, len(box) // POINTS))[:POINTS]
        inner, generator = self._inner(regions), torch.Generator(device).manual_seed(self.strategy.seed)
        points = starts(inner.lower, inner.upper, max(2, POINTS // len(regions)), generator).flatten(0, 1)
        return allowance(self.query, box.to(torch.float64, device), single, double, points)

    def _allow_for_programs(self, search: Search) -> None:
        """From here on, bounds must exceed thresholds by what programs in the query's arithmetic are off by, too."""
        if self.query.property.arithmetic == "real":
            return
        with torch.device("cpu"):
            search.deployed = self.deployed = Beside.of(self.query, self.deadline)
        errors = self.deployed.found.errors
        if errors is not None:
            search.allowance = replace(search.allowance, beside=errors.to(torch.get_default_device()))

    def _ration(self, graph: Graph) -> Ration:
        """What the run may hold at once."""
        if self.memory is None:
            return UNLIMITED
        device = torch.get_default_device()
        held = resident() if device.type == "cpu" else 0
        found = ration(graph, self.memory, held, torch.get_default_dtype().itemsize)
        if found.missing:
            needed = math.ceil((self.memory + found.missing) / 1e6)
            self.warnings += (f"this run needs about {needed} MB of memory, more than it was given",)
        return found

    def _inner(self, region: Tensor) -> Box:
        """The boxes of representable points of regions (P,), for the search of counterexamples."""
        lower, upper = (bound[region.cpu()].to(region.device, torch.float32) for bound in self.query.inner())
        return Box(lower, upper)

    def _project(self, points: Tensor, region: Tensor) -> Tensor:
        """Points (P, n) moved into the sets of their regions (P,)."""
        return met(self.query.property, self._inner(region), region).project(points[:, None])[:, 0]

    def _attack(self, search: Search, steps: int) -> Result | None:
        """Gradient descent from random starts in the regions of the worst open domains, and in these domains."""
        if not self.pace.speed:
            first = torch.zeros(PROBES, dtype=torch.long)
            self.pace = Pace.measured(search.attacker, self._inner(first).center, first)
        begun = time.monotonic()
        seconds = max(ATTACK, ATTACK_SHARE * (begun - self.started))
        count = self.pace.starts(steps, seconds, inputs := self.query.property.lower.shape[1])
        # Of few inputs, bounds say more than the last steps of slow descents.
        slow = inputs <= FEW_INPUTS and count * steps > self.pace.speed * seconds
        points, width, owner = self._starts(search, count, 1 if slow else DRAWN)
        budget = Budget(steps, min(self.deadline, begun + (2 * seconds if slow else 5.0)))
        points, gap = search.attacker.descend(points, width, owner, budget)
        for index in torch.nonzero(gap <= 0)[:8, 0].tolist():
            found = self._replayed(points[index])
            if found is not None:
                return found
        if time.monotonic() < budget.deadline:  # all steps were made
            self.pace = Pace(len(points) * steps / (time.monotonic() - begun))
        return self._near(points, owner)

    def _near(self, points: Tensor, region: Tensor) -> Result | None:
        """UNKNOWN, if after some time a point shows that nothing but the end of the time would stop the search."""
        if self.deployed is None or time.monotonic() - self.started < PATIENCE:
            return None
        self.deployed.look(points.double().cpu(), region.cpu())
        ends = self.deployed.endless and self.timeout is None
        return self._result(Verdict.UNKNOWN, reason=self.deployed.endless) if ends else None

    def _starts(self, search: Search, count: int, drawn: int) -> tuple[Tensor, Tensor, Tensor]:
        """Points (P, n), best of `drawn` times as many, the widths (P, n) of their boxes, and their regions (P,)."""
        generator = torch.Generator(torch.get_default_device()).manual_seed(self.strategy.seed + search.done)
        leaves = search.domains.where(torch.topk(search.domains.worst, min(64, len(search.domains)), largest=False)[1])
        regions = torch.unique(leaves.region)
        sources = [(self._inner(regions), regions)]
        if search.done > len(self.query.property.lower):  # domains are smaller than regions
            sources.append((Box(leaves.lower, leaves.upper).to(sources[0][0].lower.dtype), leaves.region))
        return best_starts(search.attacker, sources, count, generator, drawn)

    def _replayed(self, point: Tensor) -> Result | None:
        """VIOLATED, if a replay in onnxruntime (or the torch module) confirms the point."""
        from verif.replay import replay

        seen = replay(self.query, point.double())
        if not seen.violated:
            return None
        return self._result(Verdict.VIOLATED, counterexample=Counterexample(seen.point, seen.inputs, seen.outputs))

    def _result(self, verdict: Verdict, *, reason: str = "", counterexample: Counterexample | None = None) -> Result:
        search, arithmetic = self.search, self.query.property.arithmetic
        bound = math.nan if search is None else search.progress().worst
        try:
            rounding = ""
            if verdict is Verdict.HOLDS:
                rounding = grounds(self.query, search, self.started, programs=self.programs)
        except Hopeless as hopeless:
            verdict, rounding, reason = Verdict.UNKNOWN, "", str(hopeless)
        unproved = (self.deployed.found.why if self.deployed else "") or rounding.removeprefix("proved")
        if verdict is Verdict.HOLDS and arithmetic != "real" and unproved:
            why = f"it holds in real arithmetic, not shown for {arithmetic}: {unproved}"
            verdict, rounding, reason = Verdict.UNKNOWN, "", why
        return Result(
            verdict,
            bound if math.isfinite(bound) else None,
            counterexample,
            search.done if search else 0,
            time.monotonic() - self.started,
            (*self.query.property.warnings, *self.warnings),
            reason,
            self.strategy.told(search.why if search else ""),
            rounding,
            arithmetic,
        )
