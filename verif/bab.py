"""Branch-and-bound over the input box: pop a batch, bound it, drop what is refuted, attack, clip, split, push."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from relaxations import Interval
from relaxations.sets import Ball, Box, InputSet, Meet
from verif.attack import Attacker, Budget
from verif.bounds import NO_ROUNDS, Engine, Pass, Rounds
from verif.bounds.chains import ChainPass, rounds_at
from verif.bounds.entries import Seen, in_front
from verif.bounds.memory import UNLIMITED, Ration, bound_in_slices
from verif.clauses import ClauseTable
from verif.clip import Rows, combined, shrink
from verif.domains import Domains
from verif.events import Candidate as Candidate, Progress as Progress
from verif.programs import Beside
from verif.query import Property, Query
from verif.rounding import Allowance, of_terms
from verif.roundoff import Unrounded
from verif.strategy import RegionSearch, Strategy, Task
from verif.tactics import in_force

ALONE = 20_000  # numbers per layer of a batch below which threads cost more than they bring (measured)
FLOOR = 0.05  # share of the steepest slope that each axis has at least
DESCENTS, DESCENT_SHARE = 32, 0.2  # points that a batch's descent starts from, and its share of the time
TRIED_SHARE = 0.06  # of the time, for descents from the points of another search


@dataclass
class Search:
    """The search for one query. `engine` bounds in the precision of `domains`, `exact` in float64 where rounding could
    matter; `allowance` is what it may add to bounds, and `deployed` knows less than that of parts of boxes.
    """

    query: Query
    engine: Engine
    exact: Engine
    table: ClauseTable
    attacker: Attacker
    deadline: float
    domains: Domains
    allowance: Allowance
    ration: Ration = UNLIMITED
    strategy: Strategy = field(default_factory=Strategy)
    deployed: Beside | None = None
    why: str = ""
    batch: int = 64
    done: int = 0
    unresolved: int = 0
    level: int = 0
    sure: bool = False
    attacked: float = 0.0
    proved: float = 0.0
    lower_bound: float = math.inf
    seen: Seen = field(default_factory=Seen)
    started: float = field(default_factory=time.monotonic)
    threads: int = field(default_factory=torch.get_num_threads)

    def __post_init__(self) -> None:
        self.chance = self.strategy.chance
        self.unrounded = None if self.allowance.unproved else Unrounded.of(self.engine.graph)
        own = self.unrounded is None and self.query.property.center is None
        self.chain = ChainPass.of(self.engine, self.domains.lower.dtype, self.threads) if own else None
        if self.chain is not None:
            self.domains.signs = self.chain.sweep.nothing(len(self.domains))

    def run(self) -> Iterator[Progress | Candidate]:
        """Search until no domain is open (every clause refuted unless `unresolved`), or the deadline."""
        while len(self.domains) and time.monotonic() < self.deadline:
            begun = time.monotonic()
            crowded = self.domains.nbytes > self.ration.store_bytes
            batch = self.domains.pop(min(self.batch, self.ration.boxes), smallest=crowded)
            size = len(batch)
            self.share_work(size)
            gaps, result, survivors, atoms = self.bound(batch)
            self.note(result)
            if len(survivors):
                yield from self.candidates(survivors, result, atoms)
                other = self.alone(survivors, gaps, atoms)
                if other is None or not (yield from self.by_region(other, survivors)):
                    self.split(survivors, gaps, result, atoms)
            self.resize(size, time.monotonic() - begun)
            yield self.progress()

    def first(self) -> None:
        """Bound the regions once: what that refutes is done with."""
        batch = self.domains.pop(min(self.batch, self.ration.boxes))
        _, result, survivors, _ = self.bound(batch)
        self.note(result)
        self.done -= len(survivors)
        self.domains.push(survivors)  # they are bounded again

    def note(self, result: Pass) -> None:
        """What the first pass of all said about values inside the network."""
        if not self.seen.widths:
            self.seen = Seen.of(self.engine.graph, result)

    def share_work(self, size: int) -> None:
        """Use one thread for `size` boxes or points of a small network, all of them for more."""
        torch.set_num_threads(1 if size * self.engine.widest < ALONE else self.threads)

    def region_set(self, domains: Domains, dtype: torch.dtype) -> InputSet:
        """The input sets of domains: their boxes, met with their region's ball if it has one."""
        return met(self.query.property, Box(domains.lower.to(dtype), domains.upper.to(dtype)), domains.region)

    def bound(self, batch: Domains) -> tuple[Tensor, Pass, Domains, Tensor]:
        """Bound a batch: per survivor its clause gaps, the pass, the domains and the deciding atoms, all filtered."""
        result = self.passed(batch)
        gaps, atoms = self.table.gaps(result.lower, batch.region, self.slack(result, batch))
        worst = self.table.worst(gaps).maximum(self.certain(result, batch))
        plain = self.table.worst(self.table.gaps(result.lower, batch.region)[0])
        self.sure = self.allowance.counts(result.lower.dtype)
        close = ((plain > 0) & ((worst <= 0) | (not self.sure))).nonzero()[:, 0]
        if len(close):
            worst[close] = self.confirm(result, batch, close)
        refuted = worst > 0
        self.done += len(batch)
        self.proved += float(batch.share[refuted].sum())
        if bool(refuted.any()):
            self.lower_bound = min(self.lower_bound, float(worst[refuted].min()))
        keep, batch.worst = ~refuted, worst
        return gaps[keep], result.kept(keep, batch.lower), batch.where(keep), atoms[keep]

    def certain(self, result: Pass, batch: Domains) -> Tensor:
        """Gaps (B,) by the ends of intervals that nothing has rounded, where there are such."""
        if self.unrounded is None or self.allowance.beside is not None or self.unrounded.name not in result.intervals:
            return torch.full((len(batch),), -math.inf, dtype=torch.float64)
        lower = self.unrounded.lower(result.intervals[self.unrounded.name])
        return self.table.worst(self.table.gaps(lower, batch.region)[0])

    def passed(self, batch: Domains) -> Pass:
        """One pass over a batch; where whole passes are dear, first one with cheap intermediate bounds."""
        engine, dtype = self.engine, batch.lower.dtype
        if not (self.done or engine.heavy or self.allowance.counts(dtype)) and 2 * len(batch) <= self.ration.boxes:
            engine, dtype = self.exact, torch.float64  # not twice: this may be all there is to do
        region = self.region_set(batch, dtype)
        if self.chain is not None and self.done and isinstance(region, Box):
            (usual,) = self.levels(engine, region)
            depth = -torch.log2(batch.share * len(self.query.property.lower)).round()
            result, batch.signs = self.chain.bound(region, batch.signs, rounds_at(depth, usual), self.deadline)
            return result
        if engine.heavy:
            cheap = self.engine.bound(region, backward=False, deadline=self.deadline)
            if self.refutes(cheap, batch):
                self.level = -1
                return cheap
        known: Mapping[str, Interval] = {}
        for level, rounds in enumerate(self.levels(engine, region)):
            self.level = level
            result = engine.bound(region, rounds=rounds, deadline=self.deadline, known=known)
            known = in_front(engine.graph, result.intervals)
            if self.refutes(result, batch):
                break
        return result

    def refutes(self, result: Pass, batch: Domains) -> bool:
        """Whether a pass refutes every clause in every box of a batch."""
        return bool((self.worst(result, batch) > 0).all())

    def levels(self, engine: Engine, region: InputSet) -> Sequence[Rounds]:
        """How far slopes are optimised: step by step for the first batch, which may be all there is to do."""
        if not engine.optimises(region):
            return (NO_ROUNDS,)
        tactic = in_force(self.strategy.tactic, self.started, self.deadline)
        return tuple(Rounds(*rounds) for rounds in ((tactic.inside,) if self.done else tactic.first))

    def confirm(self, found: Pass, batch: Domains, close: Tensor) -> Tensor:
        """Gaps of some domains of a batch, close (N,), in float64: for bounds that float32 is not enough for."""
        domains, result = batch.where(close), found.kept(close, found.lower)
        if found.lower.dtype == torch.float64:  # once is enough
            worst = self.worst(result, domains)
        else:
            region, until, most = self.region_set(domains, torch.float64), self.deadline, self.ration.state_bytes
            worst = torch.full((len(domains),), -math.inf, dtype=torch.float64)
            levels = (NO_ROUNDS, *self.levels(self.exact, region))
            for level, rounds in enumerate(levels, -1):
                if level >= min(self.level, len(levels) - 2):  # less did not do in float32 either
                    result = bound_in_slices(self.exact, region, most, level >= 0, rounds=rounds, deadline=until)
                    worst = worst.maximum(self.worst(result, domains))
                if bool((worst > 0).all()):
                    break
        if self.deployed is not None:
            worst = worst.maximum(self.deployed.gaps(self.table, result.lower, domains, self.slack(result, domains)))
        return worst

    def worst(self, result: Pass, domains: Domains) -> Tensor:
        """Gaps of domains by a pass, rounding counted, (B,)."""
        return self.table.worst(self.table.gaps(result.lower, domains.region, self.slack(result, domains))[0])

    def slack(self, result: Pass, domains: Domains) -> Tensor:
        """What rounding may have added to the bounds, (B, M)."""
        return of_terms(result, domains.lower, domains.upper) + self.allowance.of(result.lower.dtype)

    def candidates(self, domains: Domains, result: Pass, atoms: Tensor) -> Iterator[Candidate]:
        """Points worth a look: where the deciding linear bounds are lowest, the centres, and what a short descent makes
        of the best of them (as long as descents take a small share of the time).
        """
        begun = time.monotonic()
        row = atoms[:, 0, 0]
        slopes = result.slopes[torch.arange(len(row)), row]
        lower, upper = domains.lower.float(), domains.upper.float()
        points = torch.cat([torch.where(slopes >= 0, lower, upper), (lower + upper) / 2])
        region = domains.region.repeat(2)
        gap = self.attacker.gap(points, region)
        if not bool((gap <= 0).any()) and self.attacked < DESCENT_SHARE * (begun - self.started):
            best = torch.topk(gap, min(DESCENTS, len(gap)), largest=False).indices
            width = 2 * (upper - lower).repeat(2, 1)[best]
            points, region = points[best], region[best]
            points, gap = self.attacker.descend(points, width, region, Budget(10, self.deadline))
            self.attacked += time.monotonic() - begun
        for index in torch.nonzero(gap <= 0)[:4, 0].tolist():
            yield Candidate(points[index], int(region[index]))

    def alone(self, domains: Domains, gaps: Tensor, atoms: Tensor) -> RegionSearch | None:
        """Another search than over boxes for the one region that is left."""
        ids, _ = self.table.clause_ids(domains.region)
        box = Box(domains.lower.double(), domains.upper.double())
        if len(domains) != 1 or len(self.domains) or ids.shape[1] != 1 or self.query.property.center is not None:
            self.why = self.why or "boxes: several regions, factors or balls"
            return None
        left = gaps[0, 0] <= 0
        if not self.sure:  # what float32 alone refuted is open
            left = torch.ones_like(left)
        clause, atom = ids[0, 0][left], atoms[0, 0][left]
        place = ((self.table.atoms[clause] == atom[:, None]) & self.table.used[clause]).int().argmax(1)
        limit = self.table.thresholds[clause, place] + self.allowance.of(torch.float64)[atom]
        rows = torch.eye(len(self.allowance.double), dtype=torch.float64)[atom][None]
        found, why = self.strategy.search(Task(self.exact, box, rows, limit, self.deadline, self.ration))
        self.why = self.why or why
        return found

    def by_region(self, search: RegionSearch, domains: Domains) -> Generator[Progress | Candidate, None, bool]:
        """Let another search decide the last region; whether it did, or has no more time."""
        torch.set_num_threads(self.threads)
        before = self.done
        self.domains.push(domains)  # open until the search is over: attacks go on
        for _ in search.run():
            self.done = before + search.done
            yield from self.tried(search.points.float(), domains)
            domains.worst = torch.full_like(domains.worst, min(search.lowest, 0.0))
            self.domains.worst = domains.worst
            yield replace(self.progress(), open=len(search.open))
        self.done = before + search.done
        if len(search.open):
            return True
        self.domains.pop(len(self.domains))
        if not search.unresolved:
            self.proved, self.lower_bound = 1.0, min(self.lower_bound, 0.0)
        return not search.unresolved

    def tried(self, points: Tensor, domains: Domains) -> Iterator[Candidate]:
        """Points (P, n) of the region and, now and then, what a descent makes of them."""
        region = domains.region.expand(len(points))
        if not len(points):
            return
        gap, begun = self.attacker.gap(points, region), time.monotonic()
        if not bool((gap <= 0).any()) and self.attacked < TRIED_SHARE * (begun - self.started):
            width = (domains.upper - domains.lower).float().expand_as(points)
            points, gap = self.attacker.descend(points, width, region, Budget(20, self.deadline, 0.2))
            self.attacked += time.monotonic() - begun
        for index in torch.nonzero(gap <= 0)[:4, 0].tolist():
            yield Candidate(points[index], int(region[index]))

    def split(self, domains: Domains, gaps: Tensor, result: Pass, atoms: Tensor) -> None:
        """Clip the boxes, cut each along its most promising axis and push the halves."""
        scores = self.scores(gaps, result, atoms)
        domains, alive = self.clip(domains, result)
        self.proved += float(domains.share[~alive].sum())
        domains, scores = domains.where(alive), scores[alive]
        width = domains.upper - domains.lower
        middle = domains.lower + width / 2
        splittable = (middle > domains.lower) & (middle < domains.upper)
        alive = splittable.any(-1)
        if not bool(alive.all()):
            self.unresolved += int((~alive).sum())
            domains, scores, splittable = domains.where(alive), scores[alive], splittable[alive]
            if not len(domains):
                return
        scores = torch.where(splittable, scores * (domains.upper - domains.lower), -math.inf)
        halves = Box(domains.lower, domains.upper).split(scores.argmax(-1))
        domains = Domains(
            halves.lower,
            halves.upper,
            domains.region.repeat(2),
            domains.worst.repeat(2),
            domains.share.repeat(2) / 2,
            domains.signs.repeat(2, 1),
        )
        self.domains.push(domains)

    def scores(self, gaps: Tensor, result: Pass, atoms: Tensor) -> Tensor:
        """Per axis: how much the deciding atoms of the open clauses change along it, per unit of length (N, n)."""
        weight = torch.zeros_like(result.lower)
        open_clause = (gaps <= 0).flatten(1).to(weight.dtype)
        weight.scatter_add_(1, atoms.flatten(1), open_clause)
        slopes = (result.slopes if result.steep is None else result.steep).abs()
        least = (FLOOR * slopes.amax(-1, keepdim=True)).clamp(min=torch.finfo(slopes.dtype).tiny)
        slopes = slopes.clamp(min=least)  # where no line depends on the input, the widest axis is cut
        if self.chance is not None:
            slopes = torch.rand(slopes.shape, generator=self.chance, dtype=slopes.dtype)
        return torch.einsum("bs,bsn->bn", weight, slopes)

    def clip(self, domains: Domains, result: Pass) -> tuple[Domains, Tensor]:
        """Cut boxes to where their only clause may hold, and say which may still hold it, (N,) (regions of one clause;
        others stay as they are).
        """
        ids, _ = self.table.clause_ids(domains.region)
        several = ids.shape[1] != 1 or ids.shape[2] != 1 or self.query.property.center is not None
        if several or not self.allowance.counts(result.bias.dtype):
            return domains, torch.ones(len(domains), dtype=torch.bool)
        atoms, used = self.table.atoms[ids[:, 0, 0]], self.table.used[ids[:, 0, 0]]
        box = torch.arange(len(domains))[:, None]
        limit = self.table.thresholds[ids[:, 0, 0]] + self.allowance.of(result.bias.dtype)[atoms]
        limit = torch.where(used, limit, math.inf).to(result.bias.dtype)
        rows = Rows(result.slopes[box, atoms], result.bias[box, atoms], limit)
        lower, upper, empty = shrink(domains.lower, domains.upper, rows)
        if rows.bias.shape[1] > 1:
            empty = empty | combined(lower, upper, rows)
        self.lower_bound = min(self.lower_bound, 0.0)  # what is cut off is refuted by a margin that is not kept
        return replace(domains, lower=lower, upper=upper), ~empty

    def resize(self, size: int, seconds: float) -> None:
        """Grow batches while they are quick, shrink them when they are slow."""
        if seconds < 0.15 and size >= self.batch:
            self.batch = min(4 * self.batch, self.ration.boxes)
        elif seconds > 1.0:
            self.batch = max(1, self.batch // 2)

    def progress(self) -> Progress:
        """The state of the search."""
        seconds = time.monotonic() - self.started
        worst = float(self.domains.worst.min()) if len(self.domains) else self.lower_bound
        rate = self.done / max(seconds, 1e-9)
        return Progress(len(self.domains), self.done, worst, self.proved, rate, seconds, self.seen.widths)


def met(property: Property, box: Box, region: Tensor) -> InputSet:
    """Boxes, one per entry of `region` (B,), met with the balls of their regions where the property has balls."""
    if property.center is None or property.radius is None:
        return box
    ball = Ball(property.center[region], property.radius[region], property.norm)
    return Meet(box, ball.to(box.lower.dtype, box.lower.device))
