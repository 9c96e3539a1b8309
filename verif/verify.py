"""`verify(model, property)`: from a query to a verdict. The only place where verdicts are made.

HOLDS is said when every clause of every region was refuted, VIOLATED when a replay accepted a counterexample; an
exception, a NaN, an interruption or the end of the time never becomes either.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphs import Graph
from verif.attack import Attacker, Budget, starts
from verif.bab import Candidate, Progress, Search
from verif.bounds import Engine
from verif.bounds.engine import OutOfTime
from verif.clauses import ClauseTable
from verif.domains import Domains
from verif.query import Property, Query, compile_query
from verif.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np

Model = str | Path | Graph
OnEvent = Callable[[Progress], None]


@dataclass(frozen=True)
class Counterexample:
    """A replayed point: z (n,) float64, the inputs and outputs of every network by name, as the replay saw them."""

    point: Tensor
    inputs: Mapping[str, np.ndarray[Any, Any]]
    outputs: Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Result:
    """A verdict and its evidence. `lower_bound` is the worst gap to a violation that is proved (HOLDS) or still open;
    `domains` counts the sub-problems bounded; `reason` says why the verdict is UNKNOWN or TIMEOUT.
    """

    verdict: Verdict
    lower_bound: float | None = None
    counterexample: Counterexample | None = None
    domains: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    reason: str = ""


def verify(
    model: Model | None,
    property: str | Path | Property | Query | None = None,
    *,
    networks: Mapping[str, str | Path] | Sequence[tuple[str, str | Path]] | None = None,
    timeout: float | None = None,
    seed: int = 0,
    on_event: OnEvent | None = None,
) -> Result:
    """Decide a property of a model (or of several `networks`, by name) within `timeout` seconds.

    `property` is a VNN-LIB file, a `Property` (see `verif.properties`) or a compiled `Query`. Raises VerifError when
    the model or the property cannot be read; a Ctrl-C ends the search with what is known (reason "interrupted").
    """
    started = time.monotonic()
    query = property if isinstance(property, Query) else compile_query(property, networks or model)
    return Run(query, started, timeout, seed, on_event).result()


@dataclass
class Run:
    """One run of the search with its budget; `verdict` methods below are the only makers of verdicts."""

    query: Query
    started: float
    timeout: float | None = None
    seed: int = 0
    on_event: OnEvent | None = None
    search: Search | None = field(default=None, init=False)

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

    @property
    def deadline(self) -> float:
        return math.inf if self.timeout is None else self.started + self.timeout

    def _decide(self) -> Result:
        search = self.search = self._search()
        found = self._attack(search, 96, 12)
        if found is not None:
            return found
        attacks = iter(_intensity())
        next_attack = 0.0
        for event in search.run():
            if isinstance(event, Candidate):
                found = self._replayed(event.point)
            elif self.on_event is not None:
                self.on_event(event)
            spent = time.monotonic() - self.started
            if found is None and len(search.domains) and spent > next_attack:
                count, steps = next(attacks)
                found = self._attack(search, count, steps)
                now = time.monotonic() - self.started
                next_attack = now + 8 * (now - spent) + 0.2
            if found is not None:
                return found
        if not len(search.domains):
            if search.unresolved:
                return self._result(Verdict.UNKNOWN, reason=f"{search.unresolved} boxes too small to split stay open")
            return self._result(Verdict.HOLDS)
        return self._result(Verdict.TIMEOUT, reason="the time was used up")

    def _search(self) -> Search:
        """Set up the search: graphs in float32 for speed and in float64 for close calls."""
        query, prop = self.query, self.query.property
        single, table = query.graph.to(torch.float32), ClauseTable.of(prop)
        lower, upper = query.outer()
        count = len(lower)
        domains = Domains(
            round_out(lower, -math.inf),
            round_out(upper, math.inf),
            torch.arange(count),
            torch.full((count,), -math.inf, dtype=torch.float64),
            torch.full((count,), 1 / count, dtype=torch.float64),
        )
        engine, exact = Engine(single), Engine(query.graph.to(torch.float64))
        return Search(query, engine, exact, table, Attacker(single, table), self.deadline, domains)

    def _attack(self, search: Search, count: int, steps: int) -> Result | None:
        """Gradient descent from random starts in the regions of the worst open domains."""
        generator = torch.Generator().manual_seed(self.seed + search.done)
        domains = search.domains
        regions = torch.unique(domains.region[torch.topk(domains.worst, min(64, len(domains)), largest=False).indices])
        inner_lower, inner_upper = (bound[regions].float() for bound in self.query.inner())
        each = max(2, count // len(regions))
        points = starts(inner_lower, inner_upper, each, generator).flatten(0, 1)
        box = inner_lower.repeat_interleave(each, 0), inner_upper.repeat_interleave(each, 0)
        owner = regions.repeat_interleave(each)
        budget = Budget(steps, 0.25, min(self.deadline, time.monotonic() + 5.0))
        points, gap = search.attacker.descend(self._inside(points, owner), box, owner, budget)
        for index in torch.nonzero(gap <= 0)[:8, 0].tolist():
            found = self._replayed(points[index])
            if found is not None:
                return found
        return None

    def _inside(self, points: Tensor, region: Tensor) -> Tensor:
        """Points moved into their region's ball, where it has one."""
        return points

    def _replayed(self, point: Tensor) -> Result | None:
        """VIOLATED, if a replay in onnxruntime (or the torch module) confirms the point."""
        from verif.replay import replay

        seen = replay(self.query, point.double())
        if not seen.violated:
            return None
        return self._result(Verdict.VIOLATED, counterexample=Counterexample(seen.point, seen.inputs, seen.outputs))

    def _result(
        self, verdict: Verdict, *, reason: str = "", counterexample: Counterexample | None = None
    ) -> Result:
        search = self.search
        bound: float | None = None
        if search is not None:
            open_worst = search.domains.worst
            bound = float(open_worst.min()) if len(open_worst) else search.lower_bound
            bound = bound if math.isfinite(bound) else None
        return Result(
            verdict,
            bound,
            counterexample,
            search.done if search else 0,
            time.monotonic() - self.started,
            self.query.property.warnings,
            reason,
        )


def round_out(values: Tensor, toward: float) -> Tensor:
    """float64 to float32, rounded towards `toward` (minus or plus infinity)."""
    near = values.float()
    short = near.double() > values if toward < 0 else near.double() < values
    return torch.where(short, near.nextafter(torch.full_like(near, toward)), near)


def _intensity() -> Sequence[tuple[int, int]]:
    """Growing attacks: (starts, steps)."""
    return [(128, 25), *((256, 50),) * 3, *((512, 100),) * 100_000]
