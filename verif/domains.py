"""The open sub-problems of branch-and-bound: a struct of arrays, the only mutable store of the search."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Domains:
    """N boxes: lower, upper (N, n); region (N,) they come from; worst (N,) gap known so far; share (N,) of the volume
    of all regions.
    """

    lower: Tensor
    upper: Tensor
    region: Tensor
    worst: Tensor
    share: Tensor

    def __len__(self) -> int:
        return len(self.region)

    def where(self, index: Tensor) -> Domains:
        """The domains at an index or mask."""
        return Domains(*(getattr(self, f.name)[index] for f in fields(self)))

    def pop(self, count: int) -> Domains:
        """Remove and return the `count` domains with the lowest worst gap."""
        if count >= len(self):
            taken = self.where(torch.arange(len(self)))
            self._keep(torch.zeros(len(self), dtype=torch.bool))
            return taken
        index = torch.topk(self.worst, count, largest=False).indices
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

    def clip(self, slopes: Tensor, bias: Tensor, limit: Tensor) -> Domains:
        """Shrink each box to where slopes . x + bias <= limit can hold for every row (Clip-and-Verify, 2024).

        slopes (N, S, n), bias and limit (N, S). A row that cannot hold anywhere leaves the box as it is.
        """
        least = torch.minimum(slopes * self.lower[:, None], slopes * self.upper[:, None])
        room = (limit - bias - least.sum(-1))[..., None] + least  # what slope_j x_j may be at most
        slack = 1e-5 * (room.abs() + least.abs().sum(-1, keepdim=True) + bias.abs()[..., None])
        room = room + slack
        edge = room / torch.where(slopes == 0, torch.ones_like(slopes), slopes)
        usable = edge.isfinite()
        upper = torch.where((slopes > 0) & usable, edge, torch.inf).amin(1).minimum(self.upper)
        lower = torch.where((slopes < 0) & usable, edge, -torch.inf).amax(1).maximum(self.lower)
        fine = (lower <= upper).all(-1, keepdim=True)
        return Domains(
            torch.where(fine, lower, self.lower),
            torch.where(fine, upper, self.upper),
            self.region,
            self.worst,
            self.share,
        )
