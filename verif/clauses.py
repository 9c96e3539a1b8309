"""Evaluation of a query's clauses on values or on bounds of its atoms, in batches.

Shape letters: B points or boxes, M atoms, F factors, C clauses of the longest factor, K atoms of the longest clause.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from verif.query import Property

TINY = 1e-300  # the gap of a strict atom at equality: refuted, by next to nothing


@dataclass(frozen=True)
class ClauseTable:
    """The clauses of every region, padded: atoms (C', K) with a mask, thresholds (C', K), spans (D, F, 2)."""

    atoms: Tensor
    used: Tensor
    thresholds: Tensor
    strict: Tensor
    spans: Tensor

    @classmethod
    def of(cls, property: Property) -> ClauseTable:
        """The table of a property."""
        clauses = property.clauses
        return cls(clauses.atoms.clamp(min=0), clauses.atoms >= 0, clauses.thresholds, clauses.strict, property.spans)

    def largest(self, atoms: int) -> Tensor:
        """The largest threshold of every atom, (M,) float64, without its sign."""
        sizes = torch.where(self.used, self.thresholds.abs(), 0).flatten()
        found = torch.zeros(atoms, dtype=torch.float64)
        return found.scatter_reduce_(0, self.atoms.flatten(), sizes, "amax")

    def clause_ids(self, region: Tensor) -> tuple[Tensor, Tensor]:
        """Clauses of each box's region: ids (B, F, C) and whether each is there or padding."""
        start, stop = self.spans[region].unbind(-1)
        longest = int((stop - start).max()) if start.numel() else 0
        ids = start[..., None] + torch.arange(longest)
        there = ids < stop[..., None]
        return torch.where(there, ids, 0), there

    def gaps(self, values: Tensor, region: Tensor, slack: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """How far each clause is from being satisfied, (B, F, C), and the atom that says so (same shape).

        `values` (B, M) are atom values or lower bounds of them. A gap > 0 means that some atom fails (is refuted);
        a clause that is not there has gap +inf, one without atoms -inf. NaN values count as -inf (nothing known).
        A strict atom fails already at equality (gap TINY). `slack` (B, M) is taken off the values first.
        """
        excess, atoms, there = self.excess(values, region, slack)
        gap, best = excess.max(-1)
        return torch.where(there, gap, math.inf), atoms.gather(-1, best[..., None]).squeeze(-1)

    def excess(self, values: Tensor, region: Tensor, slack: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Per atom: value minus threshold (B, F, C, K), -inf where there is no atom; the atoms (B, F, C, K); and which
        clauses are there (B, F, C). See `gaps`.
        """
        ids, there = self.clause_ids(region)
        atoms, used = self.atoms[ids], self.used[ids]
        box = torch.arange(len(values))[:, None, None, None]
        excess = values.double()[box, atoms] - self.thresholds[ids]
        if slack is not None:
            excess = excess - slack.double()[box, atoms]
        excess = torch.where(self.strict[ids] & (excess == 0), TINY, excess)
        return torch.where(used & ~excess.isnan(), excess, -math.inf), atoms, there

    @staticmethod
    def worst(gaps: Tensor) -> Tensor:
        """The gap of a whole region, (B,): refuted (> 0) when every clause of some factor is."""
        return gaps.amin(-1).amax(-1)
