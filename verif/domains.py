"""The open sub-problems of branch-and-bound: a struct of arrays, the only mutable store of the search."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Domains:
    """N boxes: lower, upper (N, n); region (N,) they come from; worst (N,) gap known so far; share (N,) of the volume
    of all regions; signs (N, W) known of ReLU inputs (see `verif.bounds.chains`; W = 0: nothing is known).
    """

    lower: Tensor
    upper: Tensor
    region: Tensor
    worst: Tensor
    share: Tensor
    signs: Tensor

    def __len__(self) -> int:
        return len(self.region)

    def where(self, index: Tensor) -> Domains:
        """The domains at an index or mask."""
        return Domains(*(getattr(self, f.name)[index] for f in fields(self)))

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def pop(self, count: int, *, smallest: bool = False) -> Domains:
        """Remove and return the `count` domains with the lowest worst gap, or those of the smallest share: a search
        that goes deep first has few domains open at a time.
        """
        if count >= len(self):
            taken = self.where(torch.arange(len(self)))
            self._keep(torch.zeros(len(self), dtype=torch.bool))
            return taken
        index = torch.topk(self.share if smallest else self.worst, count, largest=False).indices
        keep = torch.ones(len(self), dtype=torch.bool)
        keep[index] = False
        taken = self.where(index)
        self._keep(keep)
        return taken

    def push(self, other: Domains) -> None:
        """Add domains."""
        for f in fields(self):
            setattr(self, f.name, torch.cat([getattr(self, f.name), getattr(other, f.name)]))

    def _keep(self, mask: Tensor) -> None:
        kept = self.where(mask)
        for f in fields(self):
            setattr(self, f.name, getattr(kept, f.name))
