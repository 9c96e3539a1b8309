"""Sub-problems of ReLU signs, as arrays.

Shape letters: N cases, S rows, D signs of the deepest case, K lines that may be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from relaxations.kernels.cases import Chosen, Decided, Signs


@dataclass
class Cases:
    """N cases: row (N,), bound (N,) of the parent, and their signs: slot, entry, active (N, D), -1 for none.

    Optimisation goes on where the parent's ended, with its choices of lines (N, K) and multipliers (N, D).
    """

    row: Tensor
    bound: Tensor
    lines: Tensor
    slot: Tensor
    entry: Tensor
    active: Tensor
    multiplier: Tensor

    @classmethod
    def of_rows(cls, bound: Tensor, choices: int) -> Cases:
        """One case without signs for each row (S,)."""
        count = len(bound)
        lines, none = torch.zeros(count, choices, dtype=torch.uint8), torch.zeros(count, 0, dtype=torch.int16)
        signs = none, none.int(), none.to(torch.int8), torch.zeros(count, 0)
        return cls(torch.arange(count), bound, lines, *signs)

    def __len__(self) -> int:
        return len(self.row)

    def where(self, index: Tensor) -> Cases:
        """The cases at an index or mask."""
        index = index.nonzero()[:, 0] if index.dtype == torch.bool else index  # once for all fields
        return Cases(*(getattr(self, f.name)[index] for f in fields(self)))

    def joined(self, other: Cases) -> Cases:
        """Both, padded to one depth."""
        if not (len(self) and len(other)):
            return self if len(self) else other
        depth = max(self.slot.shape[1], other.slot.shape[1])
        pad = [Cases._deep(c, depth) for c in (self, other)]
        return Cases(*(torch.cat([getattr(c, f.name) for c in pad]) for f in fields(self)))

    def _deep(self, depth: int) -> Cases:
        width = (0, depth - self.slot.shape[1])
        pad = torch.nn.functional.pad
        slot, entry, active = (pad(x, width, value=-1) for x in (self.slot, self.entry, self.active))
        multiplier = pad(self.multiplier, width)
        return replace(self, slot=slot, entry=entry, active=active, multiplier=multiplier)

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def with_signs(self, slot: Tensor, entry: Tensor, active: Tensor) -> Cases:
        """The cases with one more sign each, (N,), none where its slot is negative."""
        width = (self.slot >= 0).sum(1)
        room = self._deep(max(self.slot.shape[1], int(width.max()) + 1))

        def put(held: Tensor, value: Tensor) -> Tensor:
            return held.scatter(1, width[:, None], value.to(held.dtype)[:, None])

        return replace(room, slot=put(room.slot, slot), entry=put(room.entry, entry), active=put(room.active, active))

    def signs(self) -> Signs:
        """The signs of all cases, one after the other."""
        used = self.slot >= 0
        start = torch.cat([torch.zeros(1, dtype=torch.int64), used.sum(1).cumsum(0)])
        return Signs(start, *(x[used].to(torch.int32) for x in (self.slot, self.entry, self.active)))

    def chosen(self) -> Chosen:
        """Where their optimisation goes on."""
        return Chosen(self.lines, self.multiplier[self.slot >= 0])

    def keep(self, found: Decided) -> None:
        """Remember where their optimisation ended."""
        self.bound = torch.fmax(self.bound, found.low.to(self.bound.dtype))
        self.lines = found.chosen.lines
        self.multiplier = self.multiplier.masked_scatter(self.slot >= 0, found.chosen.multipliers)

    def children(self, slot: Tensor, entry: Tensor) -> Cases:
        """For each neuron of slot and entry (N, C): all cases with it inactive as their last sign, then with it active;
        those of the first neurons first.
        """
        shape = (slot.shape[1], 2, len(self))
        case, active = torch.arange(len(self)).expand(shape), torch.arange(2)[:, None].expand(shape)
        slot, entry = (held.T[:, None].expand(shape).flatten() for held in (slot, entry))
        return self.where(case.flatten()).with_signs(slot, entry, active.flatten())

    @property
    def depth(self) -> Tensor:
        """How many signs each has, (N,)."""
        return (self.slot >= 0).sum(1)

    @classmethod
    def none(cls) -> Cases:
        """No case."""
        return cls.of_rows(torch.empty(0, dtype=torch.float64), 0)
