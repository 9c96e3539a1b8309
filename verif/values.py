"""Branch-and-bound over the ranges of any values: input numbers, and whatever feeds an op that is not affine.

A case holds limits of some entries, a half of what they could be each; everything behind them is bounded again, with
slopes optimised where the network allows it. Slower by far than the search over signs, but every op takes part.
Shape letters: N cases, D limits of the deepest case, M entries that may be split, n inputs, C candidates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import reduce

import torch
from torch import Tensor

from graphs.ir import INPUT
from relaxations import RULES, Interval
from relaxations.sets import Box
from verif.bounds import Engine, Pass, Rounds
from verif.bounds.tiles import lower_slopes
from verif.rounding import of_terms

ROOT, INSIDE = Rounds(10, 60), Rounds(4, 20)
CANDIDATES = 3  # of which both halves are bounded before one is taken
SHARE = 0.2  # of the better half's bound in the choice
STORE_BYTES = 1 << 31  # of open cases
QUICK, SLOW = 0.15, 0.6  # seconds of a batch from which batches grow and shrink
LARGEST = 256  # cases at once
ENTRY_BYTES = 256  # of an entry of a case while it is bounded
TINY = 1e-30  # of the widest entries' score, where no entry promises anything


@dataclass
class Halves:
    """N cases: row (N,), bound (N,), and limits: entry (N, D), -1 for none, low and high (N, D)."""

    row: Tensor
    bound: Tensor
    entry: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of_rows(cls, bound: Tensor) -> Halves:
        """One case without limits for each row (S,)."""
        none = bound.new_zeros(len(bound), 0)
        return cls(torch.arange(len(bound)), bound, none.long(), none, none)

    def __len__(self) -> int:
        return len(self.row)

    def where(self, index: Tensor) -> Halves:
        """The cases at an index or mask."""
        return Halves(*(getattr(self, f.name)[index] for f in fields(self)))

    def joined(self, other: Halves) -> Halves:
        """Both, padded to one depth."""
        depth = max(self.entry.shape[1], other.entry.shape[1])
        pair = [case._deep(depth) for case in (self, other)]
        return Halves(*(torch.cat([getattr(case, f.name) for case in pair]) for f in fields(self)))

    def _deep(self, depth: int) -> Halves:
        width = (0, depth - self.entry.shape[1])
        pad = torch.nn.functional.pad
        return Halves(
            self.row, self.bound, pad(self.entry, width, value=-1), pad(self.low, width), pad(self.high, width)
        )

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def split(self, entry: Tensor, lower: Interval, upper: Interval) -> Halves:
        """First the lower half of every case, entry (N,) within `lower`, then all upper ones."""

        def more(held: Tensor, *values: Tensor) -> Tensor:
            return torch.cat([held.repeat(2, 1), torch.cat(values)[:, None]], 1)

        return Halves(
            self.row.repeat(2),
            self.bound.repeat(2),
            more(self.entry, entry, entry),
            more(self.low, lower.lower, upper.lower),
            more(self.high, lower.upper, upper.upper),
        )


class Entries:
    """The values of a graph that may be split, as one flat list: the input, then what feeds ops that are not affine."""

    def __init__(self, engine: Engine) -> None:
        graph = engine.graph
        bent = [node for node in graph if node.op != INPUT and node.name not in engine.affine]
        self.names = list(dict.fromkeys([engine.source, *(name for node in bent for name in node.inputs)]))
        self.shapes = [graph[name].shape for name in self.names]
        self.sizes = [graph[name].size for name in self.names]
        kinked = {node.inputs[0] for node in bent if lower_slopes(graph, node.name) is not None}
        compared = {node.inputs[i] for node in bent for i in RULES[node.op].compared if i < len(node.inputs)}
        kinks = [torch.full((graph[name].size,), 0.0 if name in kinked | compared else math.nan) for name in self.names]
        self.kink = torch.cat(kinks).double()
        pairs = [
            torch.full(shape, float(name in compared)) for name, shape in zip(self.names, self.shapes, strict=True)
        ]
        self.compared = torch.cat([part.triu(1).flatten() if part.dim() > 1 else part * 0 for part in pairs]) > 0

    def flat(self, intervals: Mapping[str, Interval]) -> Interval:
        """Intervals of all entries, (B, M)."""
        parts = [intervals[name] for name in self.names]
        return Interval(*(torch.cat([end.flatten(1) for end in ends], 1) for ends in zip(*parts, strict=True)))

    def within(self, ranges: Interval) -> dict[str, Interval]:
        """Ranges (B, M) by node."""
        parts = zip(*(end.split(self.sizes, 1) for end in ranges), strict=True)
        named = zip(self.names, self.shapes, parts, strict=True)
        return {name: Interval(*(end.reshape(-1, *shape) for end in pair)) for name, shape, pair in named}

    def cuts(self, ranges: Interval) -> tuple[Tensor, Tensor]:
        """Where each range (B, M) is cut, at a kink inside or in the middle, and whether that leaves two parts."""
        kinked = (self.kink > ranges.lower) & (self.kink < ranges.upper)
        at = torch.where(kinked, self.kink, ranges.lower + ranges.width / 2)
        return at, (at > ranges.lower) & (at < ranges.upper)


@dataclass
class ValueSearch:
    """The search over one box (1, n). Row s of (1, S, M) is refuted by a bound above limit[s], rounding counted;
    `most` cases are bounded at once; with `chance`, splits are drawn at random.
    """

    engine: Engine
    box: Box
    rows: Tensor
    limit: Tensor
    deadline: float
    most: int = LARGEST
    chance: torch.Generator | None = None
    done: int = 0
    unresolved: int = 0
    batch: int = 2
    open: Halves = field(default_factory=lambda: Halves.of_rows(torch.empty(0)))
    points: Tensor = field(default_factory=lambda: torch.empty(0, 0))

    def __post_init__(self) -> None:
        self.entries = Entries(self.engine)
        self.most = max(1, min(self.most, LARGEST, STORE_BYTES // (ENTRY_BYTES * sum(self.entries.sizes))))

    def run(self) -> Iterator[None]:
        """Search until no case is open, or the deadline; after each step, `points` (P, n) are worth a try."""
        found = self.engine.bound(self.box, self.rows, rounds=ROOT, deadline=self.deadline)
        self.ranges = self.entries.flat(found.intervals)
        self.open = self._left(Halves.of_rows(found.lower[0] - of_terms(found, self.box.lower, self.box.upper)[0]))
        self.done += self.rows.shape[1]
        yield
        while len(self.open) and time.monotonic() < self.deadline:
            begun = time.monotonic()
            batch = self._pop()
            size = len(batch)
            self._branch(batch)
            self._resize(size, time.monotonic() - begun)
            yield

    @property
    def lowest(self) -> float:
        """The lowest bound of an open case beyond its limit; inf where none is open."""
        return float((self.open.bound - self.limit[self.open.row]).min()) if len(self.open) else math.inf

    def _left(self, cases: Halves) -> Halves:
        """The cases that are not refuted."""
        return cases.where(~(cases.bound > self.limit[cases.row]))

    def _pop(self) -> Halves:
        """Take the cases of the lowest bounds, or where memory is short those that are nearest to their end."""
        count = min(self.batch, len(self.open))
        gap = self.open.bound - self.limit[self.open.row]
        taken = torch.zeros(len(self.open), dtype=torch.bool)
        taken[torch.topk(gap, count, largest=self.open.nbytes > STORE_BYTES).indices] = True
        batch, self.open = self.open.where(taken), self.open.where(~taken)
        return batch

    def _resize(self, size: int, seconds: float) -> None:
        """Grow batches while they are quick, shrink them when they are slow."""
        if seconds < QUICK and size == self.batch:
            self.batch = min(2 * self.batch, self.most)
        elif seconds > SLOW:
            self.batch = max(1, self.batch // 2)

    def _branch(self, batch: Halves) -> None:
        """Replace cases by the two halves of that entry with which their bounds are best."""
        score, ranges = self._gains(batch)
        at, possible = self.entries.cuts(ranges)
        best = torch.topk(torch.where(possible, score, -math.inf), min(CANDIDATES, score.shape[1]), 1)
        parted = best.values[:, 0] > -math.inf
        self.unresolved += int((~parted).sum())
        index, halves = torch.arange(len(batch)), []
        for entry in best.indices.T:
            low, middle, high = (end[index, entry] for end in (ranges.lower, at, ranges.upper))
            beside = self.entries.compared[entry] * torch.full_like(middle, torch.finfo(middle.dtype).tiny)
            halves.append(batch.split(entry, Interval(low, middle - beside), Interval(middle + beside, high)))
        cases = reduce(Halves.joined, halves)
        for part in torch.arange(len(cases)).split(self.most):
            cases.bound[part] = self._bound(cases.where(part))
        gap = (cases.bound - self.limit[cases.row]).reshape(len(halves), 2, len(batch)).clamp(max=0)
        choice = torch.where(-math.inf < best.values.T, gap.amin(1) + SHARE * gap.amax(1), -math.inf)
        chosen = (choice.argmax(0) * 2 + torch.arange(2)[:, None]) * len(batch) + index
        self.open = self.open.joined(self._left(cases.where(chosen[:, parted].flatten())))

    def _bound(self, cases: Halves) -> Tensor:
        """Bounds (N,) of cases, each on its own row; inf where nothing of a case is left."""
        within, box = self._limits(cases)
        found = self._passed(cases, within, box, INSIDE)
        low = (found.lower - of_terms(found, box.lower, box.upper))[:, 0]
        if found.part is not None:
            low = torch.where(found.part.empty, math.inf, low)
        self.done += len(cases)
        return torch.fmax(cases.bound, low)

    def _passed(self, cases: Halves, within: Mapping[str, Interval], box: Box, rounds: Rounds) -> Pass:
        rows = self.rows[0, cases.row][:, None]
        return self.engine.bound(box, rows, rounds=rounds, deadline=self.deadline, within=within)

    def _limits(self, cases: Halves) -> tuple[dict[str, Interval], Box]:
        """What the root and the cases say of every value, and of the input."""
        low, high = (end.repeat(len(cases), 1) for end in self.ranges)
        owner, depth = (cases.entry >= 0).nonzero(as_tuple=True)
        place = owner * low.shape[1] + cases.entry[owner, depth]
        low.view(-1).scatter_reduce_(0, place, cases.low[owner, depth], "amax")
        high.view(-1).scatter_reduce_(0, place, cases.high[owner, depth], "amin")
        within = self.entries.within(Interval(low, high))
        source = within.pop(self.engine.source)
        return within, Box(source.lower, source.upper)

    def _gains(self, cases: Halves) -> tuple[Tensor, Interval]:
        """What the lesser half of each entry, and a share of the other, adds to a case's bound at first order, (N, M);
        and the entries' ranges.
        """
        with torch.no_grad():
            ranges = self.entries.flat(self._passed(cases, *self._limits(cases), Rounds(INSIDE.inner, 0)).intervals)
        if self.chance is not None:
            return torch.rand(ranges.lower.shape, generator=self.chance, dtype=ranges.lower.dtype), ranges
        ends = Interval(*(end.clone().requires_grad_() for end in ranges))
        with torch.enable_grad():
            within = self.entries.within(ends)
            source = within.pop(self.engine.source)
            rows = self.rows[0, cases.row][:, None]
            found = self.engine.bound(Box(*source), rows, backward=False, within=within)
            total = torch.where(found.lower.isfinite(), found.lower, 0.0).sum()
            rising, falling = torch.zeros_like(ends.lower), torch.zeros_like(ends.upper)
            if total.requires_grad:  # behind jumps no end may matter
                rising, falling = torch.autograd.grad(total, ends, materialize_grads=True)
        self.points = torch.where(found.slopes[:, 0] >= 0, source.lower, source.upper).detach()
        gains = [gain.nan_to_num().clamp(min=0) * ranges.width / 2 for gain in (rising, -falling)]
        tie = TINY * ranges.width / ranges.width.amax(1, keepdim=True).clamp(min=TINY)
        return self._comparisons(gains[0].minimum(gains[1]) + SHARE * gains[0].maximum(gains[1]) + tie, ranges), ranges

    def _comparisons(self, score: Tensor, ranges: Interval) -> Tensor:
        """Scores (N, M) in which comparisons, whose ends have no gradient, are worth a try: the most open one first."""
        if not bool(self.entries.compared.any()):
            return score
        below, above = (-ranges.lower).clamp(min=0), ranges.upper.clamp(min=0)
        balance = below.minimum(above) / below.maximum(above).clamp(min=TINY)
        return score.maximum(torch.where(self.entries.compared, balance * score.amax(1, keepdim=True), 0))
