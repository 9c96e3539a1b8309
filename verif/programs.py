"""How a search deals with what programs return: it proves more than the real property, box by box."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relaxations.sets import Box
from verif.clauses import ClauseTable
from verif.deployed import Deployed, Programs, Unbounded
from verif.domains import Domains
from verif.query import Query

LOOKS = 4  # points that are looked at
BOXES = 64  # that are looked at together
SHARE, LEAST = 0.7, 1.0  # of the search's time, and seconds, that looks at boxes may take


@dataclass
class Beside:
    """What programs return beside the real atoms: `found` over all regions, and less than that in parts of them.

    `why` says which point is so near to a violation that its programs may be on either side.
    """

    query: Query
    programs: Programs | None
    found: Deployed
    why: str = ""
    spent: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, query: Query, deadline: float) -> Beside:
        """For one query; look at the middles of its regions first."""
        try:
            programs = Programs.of(query)
            beside = cls(query, programs, Deployed(programs.errors(Box(*query.outer()), deadline)))
        except Unbounded as unbounded:
            return cls(query, None, Deployed(None, str(unbounded)))
        lower, upper = query.inner()
        beside.look((lower + upper) / 2, torch.arange(len(lower)))
        if beside.why:
            beside.found = Deployed(None, beside.why)
        return beside

    def look(self, points: Tensor, region: Tensor) -> None:
        """Whether some point (P, n) of its region (P,) is nearer to a violation than programs may be off by there: no
        search comes to an end at it.
        """
        errors, table = self.found.errors, ClauseTable.of(self.query.property)
        if errors is None or self.programs is None or self.why:
            return
        with torch.no_grad():
            (values,) = self.query.graph.to(torch.float64)(points)
        gaps = table.worst(table.gaps(values, region, errors.expand_as(values))[0])
        for index in torch.topk(gaps, min(LOOKS, len(gaps)), largest=False).indices.tolist():
            one = slice(index, index + 1)
            if gaps[index] > 0:
                return
            own = self.inside(Box(points[one], points[one]))[0]
            if not bool(table.worst(table.gaps(values[one], region[one], own[None])[0]) > 0):
                least = f"some outputs are nearer to a violation than a program may be off by (up to {own.max():.2g})"
                self.why = self.why or least
                return

    @property
    def endless(self) -> str:
        """Why a search about programs has no end; empty where nothing is known against it."""
        known = bool(self.why) and self.found.errors is not None
        return f"not shown for {self.query.property.arithmetic}: {self.why}" if known else ""

    def inside(self, boxes: Box) -> Tensor:
        """What programs may return beside the real atoms over boxes (B, n), (B, M)."""
        assert self.programs is not None and self.found.errors is not None
        begun, whole = time.monotonic(), self.found.errors
        try:
            own = self.programs.inside(boxes.to(torch.float64, torch.device("cpu"))).minimum(whole)
        except Unbounded:
            own = whole.expand(len(boxes), -1)
        self.spent += time.monotonic() - begun
        return own

    def gaps(self, table: ClauseTable, lower: Tensor, domains: Domains, slack: Tensor) -> Tensor:
        """Gaps (B,) of domains by bounds and their slack, each (B, M), where that may decide by errors of their own."""
        whole, ids = self.found.errors, domains.region
        if whole is not None and self.programs is not None and self.programs.few:
            own = whole.to(slack).expand_as(slack).clone()
            slack = slack - own
            near = table.worst(table.gaps(lower, ids, slack)[0]) > 0
            near &= table.worst(table.gaps(lower, ids, slack + own)[0]) <= 0
            for part in near.nonzero()[:, 0].split(BOXES):
                if not len(part) or self.spent > SHARE * (time.monotonic() - self.started) + LEAST:
                    break
                own[part] = self.inside(Box(domains.lower[part], domains.upper[part])).to(own)
            slack = slack + own
        return table.worst(table.gaps(lower, ids, slack)[0])
