"""Rows that are zero but at one index of some axes: one token, one head, one entry of a value with several axes.

A row that starts at one token's entry reads only that token until something mixes tokens, and one entry of a matrix
product reads one row of its left and one column of its right factor. Keeping these slabs alone saves most of the
arithmetic and memory that dense rows take, and a relaxation is read at the slab of every row instead of whole.
How slabs are pulled is in `slab_pulls.py`.
Shape letters: R rows, T signs, N one value's shape, M the same with 1 at the fixed axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relaxations.selections import Selection

Fixed = Mapping[int, Tensor]  # axis of N: the position (R,) along it at which each row is not zero


@dataclass(frozen=True)
class Slab:
    """Rows (R, T, *M) of a value of shape N; row r is zero but at position fixed[a][r] of every fixed axis a."""

    rows: Tensor
    fixed: Fixed
    shape: tuple[int, ...]

    @classmethod
    def of(cls, units: Selection, shape: tuple[int, ...], like: Tensor) -> Slab:
        """Unit rows, one a box or all of one box."""
        return cls(like.new_ones(len(units.index), 1, *[1] * len(shape)), unravel(units.index, shape), shape)

    @property
    def reduced(self) -> tuple[int, ...]:
        """M."""
        return tuple(self.rows.shape[2:])

    def dense(self) -> Tensor:
        """Rows on the whole value, (R, T, *N)."""
        return self.added_to(self.rows.new_zeros(*self.rows.shape[:2], *self.shape))

    def added_to(self, dense: Tensor) -> Tensor:
        """`dense` (R, T, *N), changed in place: the rows added to it."""
        if not self.fixed:
            return dense.add_(self.rows)
        first = [a + 2 for a in self.fixed]
        rest = [a for a in range(2, dense.dim()) if a not in first]
        places = (torch.arange(len(dense), device=dense.device), *self.fixed.values())
        canvas = dense.permute(0, *first, 1, *rest)
        canvas[places] = canvas[places] + self.rows.permute(0, *first, 1, *rest).flatten(0, len(first))
        return dense

    def negated(self) -> Slab:
        """Both signs: the negated rows behind the rows along T."""
        return replace(self, rows=torch.cat([self.rows, -self.rows], 1))

    def plus(self, other: Slab) -> Slab | None:
        """The sum where both lie in the same places for a reason that needs no look at the numbers; else None."""
        if self.fixed.keys() != other.fixed.keys() or any(self.fixed[a] is not other.fixed[a] for a in self.fixed):
            return None
        return replace(self, rows=self.rows + other.rows)

    def widened(self, axes: Sequence[int]) -> Slab:
        """The same rows with these axes no longer fixed."""
        rows, fixed = self.rows, dict(self.fixed)
        for axis in axes:
            if axis in fixed:
                place = fixed.pop(axis).reshape(-1, *[1] * (rows.dim() - 1)).expand(rows.shape)
                wide = list(rows.shape)
                wide[axis + 2] = self.shape[axis]
                rows = rows.new_zeros(wide).scatter(axis + 2, place, rows)
        return Slab(rows, fixed, self.shape)

    def summed(self, shape: tuple[int, ...]) -> Slab:
        """Rows on an input of this shape (equal rank) that was repeated to N: sums along the axes where it has 1."""
        axes = [a for a, n in enumerate(shape) if n != self.shape[a]]
        rows = self.rows.sum([a + 2 for a in axes], keepdim=True) if axes else self.rows
        return Slab(rows, {a: index for a, index in self.fixed.items() if a not in axes}, shape)

    def read(self, values: Tensor, owner: Tensor | None) -> Tensor:
        """Values (B or 1, *N) at the slabs, (R, *M), or (1, *N) where nothing is fixed and all rows are of one box.

        Row r belongs to box owner[r]; an owner of one number is that of all rows, None: there is one box.
        """
        if len(values) > 1:
            assert owner is not None
            values = values[int(owner)].unsqueeze(0) if len(owner) == 1 else values
        if not self.fixed:
            return values if len(values) == 1 else values.index_select(0, owner)  # type: ignore[arg-type]
        first = [a + 1 for a in self.fixed]
        rest = [a for a in range(1, values.dim()) if a not in first]
        moved = values.permute(0, *first, *rest)
        place = owner if len(values) > 1 else None
        for axis, index in self.fixed.items():
            place = index if place is None else place * self.shape[axis] + index
        assert place is not None
        return moved.flatten(0, len(first)).index_select(0, place).reshape(-1, *self.reduced)


def unravel(index: Tensor, shape: Sequence[int]) -> Fixed:
    """Positions along the axes longer than 1, from flat ones."""
    fixed: dict[int, Tensor] = {}
    for axis in reversed(range(len(shape))):
        if shape[axis] > 1:
            fixed[axis], index = index % shape[axis], index // shape[axis]
    return dict(sorted(fixed.items()))
