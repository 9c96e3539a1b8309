"""The search over signs, begun again from a better root where intervals in front of ReLUs can be made tighter.

Which value is worth it is asked first: a root with the ends that descents reach, in place of those known, says what
could be won at best. Where cases of a value win anything they do so fast, and soon (docs/performance.md).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from relaxations import Interval
from verif.bounds import Pass, Rounds
from verif.bounds.entries import meet
from verif.bounds.part import readers
from verif.cases import Cases
from verif.fronts import Front
from verif.signs import ROOT, SignSearch

FIRST, ROOTS = 1.0, 4.0  # seconds, and times of a root, of the plain search before anything else
PROMISE, WON = 0.5, 0.25  # shares of what a root lacks that a value must promise, and win for a new beginning
LESS = 0.65  # of what is left of a value's search that a slice must leave at most, to be worth the next
TRIAL, SLICE, LEAST = 0.1, 0.25, 0.5  # of the time so far, for the first slice and for others; and seconds
ASKING = 0.5  # share of the time that asking may take
ASKED = Rounds(2, 20)  # a fifth of a root's time; what they promise differs by a hundredth or two
ROW_BYTES = 24  # for each entry of a row, which is kept in both precisions
MOST = 1 << 28  # bytes that the rows of one value take


@dataclass
class RefinedSearch:
    """`search` over one box, whose cases are lost when it begins again; done (sub-problems) counts all of them.

    What is still to be shown of values is kept in `fronts` and goes on where it was, so that a slow machine needs more
    slices but does nothing twice. `lacking` is what the root of the search lacks, `left` what one by all that is known
    does.
    """

    search: SignSearch
    steps: Iterator[None] = field(init=False)
    fronts: dict[str, Front] = field(default_factory=dict, init=False)
    lacking: float = field(default=math.nan, init=False)
    left: float = field(default=math.nan, init=False)
    before: int = field(default=0, init=False)
    started: float = field(default_factory=time.monotonic, init=False)
    points: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.steps, self.points = self.search.run(), self.search.points

    @property
    def done(self) -> int:
        """Sub-problems so far."""
        return self.before + self.search.done

    @property
    def unresolved(self) -> int:
        """Cases that no split can help."""
        return self.search.unresolved

    @property
    def open(self) -> Cases:
        """The open cases."""
        return self.search.open

    @property
    def lowest(self) -> float:
        """The lowest bound of an open case beyond its limit."""
        return self.search.lowest

    @property
    def elapsed(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self.started

    def run(self) -> Iterator[None]:
        """Search until no case is open, or the deadline; after each step, `points` (P, n) are worth a try."""
        yield from self._plain(0)
        yield from self._at_first()
        while values := self._values() if self._goes_on() else []:
            for name in values:
                yield from self._turn(name)
            yield from self._plain(self.elapsed)
        yield from self._plain(math.inf)

    def _turn(self, name: str) -> Iterator[None]:
        """Tighten a value if it promises enough, and begin again as often as that wins enough."""
        begun = time.monotonic()
        front = self.fronts.get(name) or (self._asked(name) if self._goes_on() else None)
        if front is None:
            yield from self._plain((time.monotonic() - begun) / ASKING)
            return
        self.fronts[name] = front
        while not front.finished and self._goes_on():
            yield from self._tightened(front)
            if self.left > (1 - WON) * self.lacking:
                break
            self._begin(name)
            yield from self._at_first()

    def _at_first(self) -> Iterator[None]:
        """The search as it has begun, before anything else is tried."""
        yield from self._plain(max(FIRST, ROOTS * self.search.rooted, SLICE * self.elapsed))

    def _goes_on(self) -> bool:
        return len(self.open) > 0 and time.monotonic() < self.search.deadline

    def _plain(self, seconds: float) -> Iterator[None]:
        """The search as it stands, for some time."""
        until = time.monotonic() + seconds
        for _ in self.steps:
            self.points = self.search.points
            yield
            if time.monotonic() > until:
                break

    def _values(self) -> list[str]:
        """In front of ReLUs, and behind others."""
        graph = self.search.engine.graph
        kinks = [node for node in graph if node.op == "relu"]
        behind = readers(graph, [node.name for node in kinks])
        return list(dict.fromkeys(node.inputs[0] for node in kinks if node.inputs[0] in behind))

    def _root(self, name: str, held: Interval, rounds: Rounds = ROOT) -> Pass:
        """All rows with such an interval of a value in place of the known one; what it does not reach stays."""
        search = self.search
        ranges = {**search.ranges, name: held}
        behind = readers(search.engine.graph, [name]) - {name}
        known = {node: ends for node, ends in ranges.items() if node not in behind}
        return search.engine.bound(
            search.box, search.rows, rounds=rounds, deadline=search.deadline, within=ranges, known=known
        )

    def _lacks(self, found: Pass) -> float:
        """How far the rows of a root are below their limits, in all."""
        return float((self.search.limit - found.lower[0]).clamp(min=0).sum())

    def _asked(self, name: str) -> Front | None:
        """What is to be shown of a value, if it promises enough."""
        search, held = self.search, self.search.ranges[name]
        rows = 2 * int(((held.lower < 0) & (held.upper > 0)).sum())
        if not 0 < rows * held.lower.numel() * ROW_BYTES <= min(MOST, search.store_bytes):
            return None
        if math.isnan(self.lacking):
            self.lacking = self.left = self._lacks(self._root(name, search.ranges[name]))
        front = Front.of(search, name)
        best = self._lacks(self._root(name, front.best, ASKED))
        return front if best <= (1 - PROMISE) * self.left else None

    def _tightened(self, front: Front) -> Iterator[None]:
        """Tighten a value as long as that goes fast, and see what it won."""
        self.points = self.points[:0]
        done = front.work.done
        if front.work.sweeps is None:
            yield from front.run(0)
        left, share = math.inf, TRIAL
        while not front.finished and self._goes_on() and front.left <= LESS * left:
            left = front.left
            yield from front.run(max(LEAST, share * self.elapsed))
            share = SLICE
        self.before += front.work.done - done
        known = meet(front.found, *self.search.ranges[front.name])
        found = self._root(front.name, known)
        self.search.ranges = {name: found.intervals[name] for name in self.search.ranges}
        self.left = self._lacks(found)

    def _begin(self, name: str) -> None:
        """The search from a root with all that is known of intervals, after one was tightened."""
        search = self.search.fresh()
        steps = search.run()
        next(steps, None)  # until its root is there nothing is proved, and the old search is the open one
        self.before += self.search.done
        self.search, self.steps, self.lacking = search, steps, self.left
        for behind in readers(search.engine.graph, [name]).intersection(self.fronts) - {name}:
            del self.fronts[behind]  # it has a better start now
