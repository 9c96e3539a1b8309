"""The exact search of small piecewise-linear networks, taking turns with another search.

Branch-and-bound never ends on the very boundary of a property; linear programs over linear regions do. They pay where
few kinks are undecided, and only after the time that loading a solver takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relaxations.sets import Box
from verif.bab import Search
from verif.bounds.engine import OutOfTime
from verif.bounds.entries import open_kinks
from verif.domains import Domains

AFTER = 2.0  # seconds of the other search before the first turn, about what it takes to load the solvers
MOST_REGIONS = 64
MANY = 240  # undecided kinks after the first bounds, from which more rounds would not leave few enough


@dataclass
class Alongside:
    """`regions` are all boxes of the input set; the share of time is one half, or with `alone` all of it. `refuted`:
    nothing in them is unsafe; `why` says what else the search came to.
    """

    search: Search
    regions: Domains
    alone: bool = False
    spent: float = 0.0
    refuted: bool = False
    why: str = ""
    _steps: Iterator[Tensor] | None = field(default=None, init=False)
    _over: bool = field(default=False, init=False)

    def turn(self) -> Iterator[Tensor]:
        """Points (P, n) worth a replay, one step's after the other, until the other search has used as much time."""
        while not self._over and (self.alone or self._due()):
            begun = time.monotonic()
            if self._steps is None:
                self._steps = self._run()
            points = next(self._steps, None)
            self.spent += time.monotonic() - begun
            if points is None:
                self._over = True
                return
            yield points

    def _due(self) -> bool:
        other = time.monotonic() - self.search.started - self.spent
        return other > AFTER and other > self.spent

    def _run(self) -> Iterator[Tensor]:
        """All steps of the exact search, where it is worth its start."""
        if self.search.seen.kinks > MANY and not self.alone:
            return
        from verif.exact.kinks import supported

        search, box = self.search, Box(self.regions.lower.double(), self.regions.upper.double())
        if search.query.property.center is not None or not supported(search.exact.graph) or len(box) > MOST_REGIONS:
            self.why = "the exact search takes networks of affine and piecewise-linear ops, and boxes"
            return
        from verif.exact import ExactSearch
        from verif.exact.search import MOST_OPEN, ROOT

        kinks = 0
        try:
            for index in range(len(box)):
                one = Box(box.lower[index : index + 1], box.upper[index : index + 1])
                found = search.exact.bound(one, rounds=ROOT, deadline=search.deadline)
                kinks += open_kinks(search.exact.graph, found.intervals)
        except OutOfTime:
            return
        if kinks > MOST_OPEN and not self.alone:
            return
        self.why = f"the exact search came to no end with {kinks} undecided kinks"
        search.why = f"{search.why}; " * bool(search.why) + f"exact: {kinks} kinks are undecided"
        noise = search.allowance.of(torch.float64)
        exact = ExactSearch(search.exact, search.table, box, self.regions.region, noise, search.deadline)
        for _ in exact.run():
            yield exact.points
        self.refuted = not exact.left and not exact.unresolved
