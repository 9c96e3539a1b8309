"""Backward sweeps in tiles: a program's steps run by the native library on a few rows at a time, all in the cache.

See native/tiles.cpp for how, native/tiles.hpp for the structures that are mirrored here.
Shape letters: B boxes, S rows, E unit rows of all boxes together, n input numbers.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphs import Graph
from relaxations.kernels.entries import Entries
from relaxations.kernels.library import address, function, vector_bytes
from relaxations.kernels.program import Program, Slot, Step, StepKind
from relaxations.scalar.lines import STRETCHES

_P, _I32, _I64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64


class _Slot(ctypes.Structure):
    _fields_ = [
        *((name, _I32) for name in ("channels", "height", "width")),
        *((name, _P) for name in ("start", "channel", "flat")),
        ("lines", _P * (6 + 8 * STRETCHES)),
        *((name, _I64) for name in ("start_stride", "entry_stride", "offset", "kept")),
    ]


class _Op(ctypes.Structure):
    _fields_ = [
        *((name, _I32) for name in ("kind", "source", "target", "rows", "columns")),
        *((name, _I32 * 2) for name in ("kernel", "stride", "padding", "dilation")),
        *((name, _P) for name in ("weight", "bias", "index")),
    ]


class Job(ctypes.Structure):
    """What one call of the library is to do; see native/tiles.hpp."""

    _fields_ = [
        *((name, _P) for name in ("slots", "ops")),
        *((name, _I32) for name in ("slot_count", "op_count", "at", "input")),
        *((name, _P) for name in ("box", "first", "count", "entries", "negative", "given")),
        *((name, _I64) for name in ("given_stride", "out_stride", "total", "size")),
        *((name, _P) for name in ("center", "radius", "low", "high", "slopes", "bias", "steep", "arena")),
        ("arena_size", _I64),
        *((name, _I32) for name in ("tiles", "rounds", "signs")),
    ]


class Tiles(NamedTuple):
    """Groups of rows: tile t holds rows first[t] to first[t] + size[t] of box[t]; all int32."""

    box: Tensor
    first: Tensor
    size: Tensor

    @classmethod
    def of_units(cls, owner: Tensor, entry: Tensor, area: int, dtype: torch.dtype) -> Tiles:
        """Unit rows (E,) sorted by box and pixel: half as many as a vector has lanes, of one box and pixel."""
        return cls._grouped(owner, owner * area + entry % area, lanes(dtype) // 2)

    @classmethod
    def of_sides(cls, owner: Tensor, entry: Tensor, area: int, dtype: torch.dtype) -> Tiles:
        """The same for rows each of which is a unit row or its negation: as many as a vector has lanes."""
        return cls._grouped(owner, owner * area + entry % area, lanes(dtype))

    @classmethod
    def of_rows(cls, boxes: int, count: int, dtype: torch.dtype) -> Tiles:
        """`count` given rows for each box."""
        first = torch.arange(0, count, lanes(dtype), dtype=torch.int32)
        size = (count - first).clamp(max=lanes(dtype))
        box = torch.arange(boxes, dtype=torch.int32).repeat_interleave(len(first))
        return cls(box, first.repeat(boxes), size.repeat(boxes))

    @classmethod
    def _grouped(cls, owner: Tensor, key: Tensor, most: int) -> Tiles:
        rows = torch.arange(len(key))
        new = torch.cat([torch.ones(1, dtype=torch.bool), key[1:] != key[:-1]])
        begin = torch.where(new, rows, 0).cummax(0).values
        first = ((rows - begin) % most == 0).nonzero()[:, 0]
        count = torch.diff(first, append=torch.tensor([len(key)]))
        return cls(owner[first].int(), first.int(), count.int())


class Found(NamedTuple):
    """What a sweep found: bounds, and the rows on the input with their bias where they were asked for.

    Of unit rows: low and high (E,), slopes (2, E, n) and bias (2, E), the rows first and then their negations.
    Of unit rows or their negations: low (E,), high is low.
    Of given rows: low (B, S), high is low, slopes (B, S, n), bias (B, S). `complete` is False when time ran out.
    """

    low: Tensor
    high: Tensor
    slopes: Tensor | None
    bias: Tensor | None
    complete: bool


@dataclass(frozen=True)
class Region:
    """Boxes of inputs by centre and radius (B, n), over which the tile itself takes the minimum (None: it does not),
    the time that it may take, and how many steps of slope optimisation (only over boxes).
    """

    box: tuple[Tensor, Tensor] | None
    size: int
    seconds: float = math.inf
    rounds: int = 0


class TileSweep:
    """Backward sweeps from one value; holds the weights as the library wants them, and no state of any pass.

    `signs`: of its entries only the sign is asked, so that slope optimisation may stop as soon as it is known.
    """

    def __init__(self, graph: Graph, program: Program, dtype: torch.dtype, *, signs: bool = False) -> None:
        self.program, self.dtype, self.signs = program, dtype, signs
        self._kept: list[Tensor] = []
        self._copied: list[tuple[Tensor, Tensor]] = []
        self._ops = (_Op * max(1, len(program.steps)))(*(self._op(graph, step) for step in program.steps))

    @property
    def channels(self) -> int:
        """Channels of the value; 1 pixel holds as many entries."""
        return self.program.slots[self.program.at].geometry[0]

    def current(self) -> bool:
        """Whether the constants that had to be copied still have the values of their copies."""
        return all(torch.equal(constant, copy.to(constant.dtype)) for constant, copy in self._copied)

    def units(self, relaxed: Mapping[str, Entries], tiles: Tiles, entry: Tensor, region: Region) -> Found:
        """Both bounds of unit rows, entries `entry` (E,) of the value, grouped in tiles."""
        total = len(entry)
        low, high = (torch.empty(total, dtype=self.dtype) for _ in range(2))
        slopes = bias = None
        if region.box is None:
            slopes, bias = low.new_empty(2, total, region.size), low.new_empty(2, total)
        index = entry.int()
        job = Job(entries=address(index), total=total, low=address(low), high=address(high))
        return Found(low, high, slopes, bias, self._run(job, relaxed, tiles, region, (slopes, bias)))

    def sides(self, relaxed: Mapping[str, Entries], tiles: Tiles, rows: tuple[Tensor, Tensor], region: Region) -> Found:
        """Lower bounds of unit rows, entries (E,) of the value, or of their negations, a mask (E,); over boxes."""
        low, index, negative = torch.empty(len(rows[0]), dtype=self.dtype), rows[0].int(), rows[1].to(torch.uint8)
        job = Job(entries=address(index), negative=address(negative), total=len(low), low=address(low))
        return Found(low, low, None, None, self._run(job, relaxed, tiles, region, (None, None)))

    def rows(self, relaxed: Mapping[str, Entries], given: Tensor, boxes: int, region: Region) -> Found:
        """Lower bounds of rows (B or 1, S, size) on the value, with the rows on the input."""
        given = given.contiguous()
        count = given.shape[1]
        low, bias = (given.new_empty(boxes, count) for _ in range(2))
        slopes = given.new_empty(boxes, count, region.size)
        job = Job(
            given=address(given),
            given_stride=count if len(given) > 1 else 0,
            out_stride=count,
            low=address(low),
        )
        tiles = Tiles.of_rows(boxes, count, self.dtype)
        return Found(low, low, slopes, bias, self._run(job, relaxed, tiles, region, (slopes, bias)))

    def _run(
        self,
        job: Job,
        relaxed: Mapping[str, Entries],
        tiles: Tiles,
        region: Region,
        out: tuple[Tensor | None, Tensor | None],
    ) -> bool:
        threads = max(1, min(torch.get_num_threads(), len(tiles.box)))
        kept = self.fill(job, relaxed, region, threads)
        job.box, job.first, job.count = map(address, tiles)
        job.tiles = len(tiles.box)
        job.slopes, job.bias = map(address, out)
        done = function("sweep", self.dtype)(ctypes.byref(job), threads, ctypes.c_double(region.seconds))
        del kept
        return bool(done)

    def fill(self, job: Job, relaxed: Mapping[str, Entries], region: Region, threads: int) -> list[Any]:
        """What every job has; the result must live as long as the job."""
        slots = (_Slot * len(self.program.slots))(
            *(_slot(s, Entries.all(s.geometry) if s.scalar is None else relaxed[s.scalar]) for s in self.program.slots)
        )
        room = self.program.kept if region.rounds else self.program.arena
        arena = torch.empty(threads * room * vector_bytes(), dtype=torch.uint8)
        job.slots, job.ops = ctypes.addressof(slots), ctypes.addressof(self._ops)
        job.slot_count, job.op_count = len(slots), len(self.program.steps)
        job.at, job.input, job.size = self.program.at, self.program.input, region.size
        job.arena, job.arena_size, job.rounds = address(arena), room, region.rounds
        job.signs = self.signs
        box = [] if region.box is None else [x.contiguous() for x in region.box]
        if box:
            job.center, job.radius = map(address, box)
        return [slots, arena, *box]

    def describe(self, job: Job) -> None:
        """Slots without lists, and steps, for callers that make the lists; they live as long as the sweep."""
        job.slots, job.ops = ctypes.addressof(self._bare), ctypes.addressof(self._ops)
        job.slot_count, job.op_count = len(self._bare), len(self.program.steps)
        job.at, job.input = self.program.at, self.program.input

    @cached_property
    def _bare(self) -> ctypes.Array[_Slot]:
        slots = self.program.slots
        return (_Slot * len(slots))(*(_slot(s, Entries.all(s.geometry)) for s in slots))

    def _op(self, graph: Graph, step: Step) -> _Op:
        """One step, with its constants."""
        made = _Op(int(step.kind), step.source, step.target)
        if not step.node:
            return made
        node, params = graph[step.node], graph.params(graph[step.node])
        weight, bias = params.get("weight"), params.get("bias")
        if node.op == "avg_pool":
            weight = _average(graph[node.inputs[0]].shape[1], node.attrs["kernel"])
        if node.op == "conv_transpose":  # as rows meet it: channels behind it, then those before it
            weight = params["weight"].transpose(0, 1)
        if step.kind in (StepKind.CONVOLUTION, StepKind.TRANSPOSED) and weight is not None:
            a = {"dilation": (1,) * (weight.dim() - 2), **node.attrs}
            made.kernel, made.stride, made.padding, made.dilation = (
                (_I32 * 2)(*([fill] * (2 - len(pair))), *pair)
                for fill, pair in ((1, weight.shape[2:]), (1, a["stride"]), (0, a["padding"]), (1, a["dilation"]))
            )
            made.rows, made.columns = weight.shape[:2]
            weight = weight.flatten(2).permute(2, 0, 1)
        elif step.kind == StepKind.LINEAR and weight is not None:
            made.rows, made.columns = weight.shape
        elif step.kind == StepKind.GATHER:
            made.rows = int(node.attrs["axis"] == len(node.shape) - 1)
            made.index = self._keep(params["index"].reshape(-1), torch.int32)
        elif step.kind == StepKind.SHIFT:
            bias = params["offset"].expand(node.shape)
        elif step.kind == StepKind.COPY:
            factor = params.get("factor", torch.tensor(-1.0 if node.op == "neg" else step.sign))
            weight = None if node.op in ("add", "sub") and step.sign == 1 else factor.expand(node.shape)
        elif step.kind == StepKind.RELAX:
            weight = bias = None
        made.weight, made.bias = self._keep(weight), self._keep(bias)
        return made

    def _keep(self, constant: Tensor | None, dtype: torch.dtype | None = None) -> int | None:
        """The address of a constant in the library's layout."""
        if constant is None:
            return None
        constant = constant.detach()
        self._kept.append(constant.to(dtype or self.dtype).contiguous())
        if self._kept[-1].data_ptr() != constant.data_ptr():
            self._copied.append((constant, self._kept[-1]))
        return self._kept[-1].data_ptr()


def _average(channels: int, kernel: Sequence[int]) -> Tensor:
    """Average pooling as the weights of a convolution, (C, C, *kernel)."""
    share = torch.eye(channels, dtype=torch.float64) / math.prod(kernel)
    return share.reshape(channels, channels, *(1 for _ in kernel)).expand(channels, channels, *kernel)


def lanes(dtype: torch.dtype) -> int:
    """Rows that a tile holds."""
    return vector_bytes() // dtype.itemsize


def _slot(slot: Slot, entries: Entries) -> _Slot:
    made = _Slot(*slot.geometry, *map(address, (entries.start, entries.channel, entries.flat)))
    for i, line in enumerate(entries.lines):
        made.lines[i] = line.data_ptr()
    if len(entries.start) > 1:
        made.start_stride, made.entry_stride = entries.start.shape[1], entries.channel.shape[1]
    made.offset, made.kept = slot.offset, slot.kept
    return made
