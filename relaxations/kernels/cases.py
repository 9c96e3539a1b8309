"""Bounds of many sub-problems of ReLU signs at once, each a lane of a tile (see native/cases.cpp).

Shape letters: N cases, S rows, P signs of all cases together, n input numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.kernels import tiles
from relaxations.kernels.tiles import Entries, Region, TileSweep

_P, _I32 = ctypes.c_void_p, ctypes.c_int32


class _Cases(ctypes.Structure):
    _fields_ = [
        ("job", tiles.Job),
        ("count", _I32),
        *((name, _P) for name in ("row", "split_start", "split_slot", "split_entry", "split_active", "target")),
        *((name, _P) for name in ("start", "last", "branch_slot", "branch_entry")),
    ]


class Signs(NamedTuple):
    """Signs of N cases: case c has those from start[c] to start[c + 1] (N + 1, int64); slot, entry (flat position) and
    active of each, (P,) int32.
    """

    start: Tensor
    slot: Tensor
    entry: Tensor
    active: Tensor


class Decided(NamedTuple):
    """Lower bounds (N,), their rows on the input (N, n) with bias (N,), the neuron that each case should split next
    (slot, -1 where none is left, and entry), and whether the time sufficed.
    """

    low: Tensor
    slopes: Tensor
    bias: Tensor
    slot: Tensor
    entry: Tensor
    complete: bool


@dataclass(frozen=True)
class CaseSweep:
    """Sweeps of rows (S, size) over one box whose relaxations are given; `start`: slopes by slot to begin with."""

    sweep: TileSweep
    relaxed: Mapping[str, Entries]
    rows: Tensor
    region: Region
    start: Mapping[int, Tensor]

    def blank(self, count: int) -> dict[int, Tensor]:
        """Room for the slopes of `count` cases, by slot."""
        slots = self.sweep.program.slots
        return {i: self.rows.new_zeros(count, slot.size) for i, slot in enumerate(slots) if slot.scalar is not None}

    def run(
        self, row: Tensor, signs: Signs, target: Tensor, seconds: float, last: Mapping[int, Tensor] | None = None
    ) -> Decided:
        """Bound cases of rows row (N,), each until it exceeds target (N,); `last` receives the slopes at the end."""
        count, dtype = len(row), self.rows.dtype
        low, bias = (torch.empty(count, dtype=dtype) for _ in range(2))
        slopes = low.new_empty(count, self.region.size)
        slot, entry, index = (torch.empty(count, dtype=torch.int32) for _ in range(3))
        index.copy_(row)
        wanted = target.to(dtype)
        threads = max(1, min(torch.get_num_threads(), -(-count // tiles.lanes(dtype))))
        made = _Cases(count=count, row=index.data_ptr(), target=wanted.data_ptr())
        kept = self.sweep.fill(made.job, self.relaxed, self.region, threads)
        made.job.given = self.rows.data_ptr()
        made.job.low, made.job.slopes, made.job.bias = low.data_ptr(), slopes.data_ptr(), bias.data_ptr()
        made.split_start, made.split_slot, made.split_entry, made.split_active = (x.data_ptr() for x in signs)
        made.branch_slot, made.branch_entry = slot.data_ptr(), entry.data_ptr()
        tables = [self._table(self.start), None if last is None else self._table(last)]
        made.start, made.last = (None if table is None else ctypes.addressof(table) for table in tables)
        done = tiles.function("decide", dtype)(ctypes.byref(made), threads, ctypes.c_double(seconds))
        del kept
        return Decided(low, slopes, bias, slot, entry, bool(done))

    def _table(self, tensors: Mapping[int, Tensor]) -> ctypes.Array[ctypes.c_void_p]:
        count = len(self.sweep.program.slots)
        return (_P * count)(*(tensors[i].data_ptr() if i in tensors else None for i in range(count)))
