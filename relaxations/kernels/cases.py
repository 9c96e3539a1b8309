"""Bounds of many sub-problems of ReLU signs at once, each a lane of a tile (see native/cases.cpp).

Shape letters: N cases, S rows, P signs of all cases together, n input numbers.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from graphs import Graph
from relaxations.kernels import tiles
from relaxations.kernels.entries import Entries
from relaxations.kernels.library import function
from relaxations.kernels.tiles import Region, TileSweep

FIRST_STEP = 0.55  # where nothing is known of the slopes, as in native/worker.hpp

_P, _I32 = ctypes.c_void_p, ctypes.c_int32


class _Cases(ctypes.Structure):
    _fields_ = [
        ("job", tiles.Job),
        ("count", _I32),
        *((name, _P) for name in ("row", "split_start", "split_slot", "split_entry", "split_active", "target")),
        ("step", ctypes.c_double),
        ("free_count", ctypes.c_int64),
        *((name, _P) for name in ("start", "last", "beta", "last_beta")),
        ("candidates", _I32),
        *((name, _P) for name in ("branch_slot", "branch_entry")),
    ]


class Signs(NamedTuple):
    """Signs of N cases: case c has those from start[c] to start[c + 1] (N + 1, int64); slot, entry (flat position) and
    active of each, (P,) int32.
    """

    start: Tensor
    slot: Tensor
    entry: Tensor
    active: Tensor


@dataclass(frozen=True)
class Pace:
    """Rounds of optimisation (at least one), their step as a share of a slope's range, and the time allowed."""

    rounds: int
    step: float = FIRST_STEP
    seconds: float = math.inf

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError("without a round a tile has no room for a case's own slopes")


class Chosen(NamedTuple):
    """Where the optimisation of N cases stands: their choices of lines (N, K), uint8, in 255ths of each line's range,
    and the multipliers (P,) of their signs, float32.
    """

    lines: Tensor
    multipliers: Tensor


class Decided(NamedTuple):
    """Lower bounds (N,), their rows on the input (N, n) with bias (N,), the neurons that each case might split next,
    best first (slot and entry, each (N, C), -1 where no more are left), what was chosen last, and whether the time
    sufficed.
    """

    low: Tensor
    slopes: Tensor
    bias: Tensor
    slot: Tensor
    entry: Tensor
    chosen: Chosen
    complete: bool


@dataclass(frozen=True)
class CaseSweep:
    """Sweeps of rows (S, size) over one box whose relaxations are given."""

    sweep: TileSweep
    relaxed: Mapping[str, Entries]
    rows: Tensor
    region: Region
    candidates: int = 6

    def single(self, graph: Graph) -> CaseSweep:
        """The same in float32, twice as fast: for a search whose results others confirm."""
        lists = {name: e.to(torch.float32) for name, e in self.relaxed.items()}
        box = None if self.region.box is None else (self.region.box[0].float(), self.region.box[1].float())
        sweep = TileSweep(graph, self.sweep.program, torch.float32)
        return CaseSweep(sweep, lists, self.rows.float(), replace(self.region, box=box), self.candidates)

    @property
    def bounds(self) -> CaseSweep:
        """The same without the neurons to split, which take a walk through the network more."""
        return replace(self, candidates=0)

    @property
    def choices(self) -> int:
        """K: how many lines there are to choose."""
        count = 0
        for slot in self.sweep.program.slots:
            if slot.scalar is not None:
                entries = self.relaxed[slot.scalar]
                used = int(entries.start[0, -1])
                least, most = (entries.lines[i][0, :used] for i in (4, 5))
                count += used if len(entries.lines) > 6 else int((least < most).sum())
        return count

    def run(self, row: Tensor, signs: Signs, target: Tensor, pace: Pace, start: Chosen | None = None) -> Decided:
        """Bound cases of rows row (N,), each until it exceeds target (N,)."""
        count, dtype = len(row), self.rows.dtype
        low, bias = (torch.empty(count, dtype=dtype) for _ in range(2))
        slopes = low.new_empty(count, self.region.size)
        slot, entry = (torch.empty(count, self.candidates, dtype=torch.int32) for _ in range(2))
        index = row.to(torch.int32)
        wanted = target.to(dtype)
        chosen = Chosen(torch.zeros(count, self.choices, dtype=torch.uint8), torch.zeros(len(signs.slot)))
        threads = max(1, min(torch.get_num_threads(), -(-count // tiles.lanes(dtype))))
        made = _Cases(count=count, row=index.data_ptr(), target=wanted.data_ptr(), step=pace.step)
        kept = self.sweep.fill(made.job, self.relaxed, replace(self.region, rounds=pace.rounds), threads)
        made.job.given = self.rows.data_ptr()
        made.job.low, made.job.slopes, made.job.bias = low.data_ptr(), slopes.data_ptr(), bias.data_ptr()
        made.split_start, made.split_slot, made.split_entry, made.split_active = (x.data_ptr() for x in signs)
        made.branch_slot, made.branch_entry = slot.data_ptr(), entry.data_ptr()
        made.free_count, made.candidates = chosen.lines.shape[1], self.candidates
        made.last, made.last_beta = (x.data_ptr() for x in chosen)
        if start is not None:
            made.start, made.beta = (x.data_ptr() for x in start)
        done = function("decide", dtype)(ctypes.byref(made), threads, ctypes.c_double(pace.seconds))
        del kept
        return Decided(low, slopes, bias, slot, entry, chosen, bool(done))
