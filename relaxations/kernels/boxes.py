"""Passes over many boxes of chains of linear maps and ReLUs, all layers of a box in one go; see native/boxes.cpp.

Shape letters: B boxes, S rows, n input numbers, W entries of all ReLUs one after the other.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from relaxations.kernels import tiles
from relaxations.kernels.library import address, available, function, pointers, vector_bytes
from relaxations.kernels.program import Program, compile_sweep
from relaxations.kernels.tiles import TileSweep

_P, _I32 = ctypes.c_void_p, ctypes.c_int32
WIDEST = 512  # numbers of a value up to which a box's rows stay in the cache
FEWEST = 8  # boxes for which another thread is worth waking


class _Chain(ctypes.Structure):
    _fields_ = [
        *((name, _P) for name in ("jobs", "relus", "sizes", "weights", "bias", "errors")),
        *((name, _I32) for name in ("count", "boxes", "rows")),
        *((name, _P) for name in ("rounds", "center", "radius", "settled", "found")),
        *((name, _P) for name in ("low", "slopes", "bias_out", "steep")),
    ]


class Chain(NamedTuple):
    """The linear map in front of each ReLU, the ReLUs, and the programs of sweeps from the maps and the output."""

    linear: Sequence[str]
    relus: Sequence[str]
    programs: Sequence[Program]

    @classmethod
    def of(cls, graph: Graph) -> Chain | None:
        """None for anything else than linear maps and ReLUs, one behind the other, the input before and maps behind."""
        linear: list[str] = []
        relus: list[str] = []
        last, maps = graph.inputs[0], 0
        for node in graph:
            if node.op == INPUT:
                continue
            if node.op not in ("reshape", "linear", "relu") or list(node.inputs) != [last] or node.size > WIDEST:
                return None
            last = node.name
            if node.op == "linear":
                maps += 1
                linear.append(node.name)
            elif node.op == "relu":
                if maps != 1:
                    return None
                relus.append(node.name)
                maps = 0
        if not relus or not maps or len(graph.inputs) != 1:
            return None
        linear = linear[: len(relus)]
        programs = [program for at in (*linear, last) if (program := compile_sweep(graph, at)) is not None]
        return cls(linear, relus, programs) if len(programs) > len(relus) else None


class Bounded(NamedTuple):
    """Lower bounds (B, S) of rows with their slopes on the input (B, S, n) and bias (B, S); the slopes before they were
    optimised; which entries' signs are known now (B, W); and whether the time sufficed.
    """

    low: Tensor
    slopes: Tensor
    bias: Tensor
    steep: Tensor
    signs: Tensor
    complete: bool


@dataclass(frozen=True)
class Boxes:
    """Boxes by centre and radius (B, n), and the signs (B, W) known of ReLU inputs: 1 not negative, 2 not positive.

    `rounds` (B, 2) of slope optimisation, for rows inside and for the last ones.
    """

    center: Tensor
    radius: Tensor
    signs: Tensor
    rounds: Tensor


class BoxSweep:
    """Passes over boxes in one precision; holds the weights as the library wants them, and no state of any pass.

    `errors` by node: by how much intervals are moved outward.
    """

    def __init__(self, graph: Graph, chain: Chain, dtype: torch.dtype, errors: Mapping[str, Tensor]) -> None:
        self.dtype, self.chain, self.graph = dtype, chain, graph
        self.sizes = torch.tensor([graph[name].size for name in chain.relus], dtype=torch.int32)
        self.sweeps = [TileSweep(graph, program, dtype, signs=True) for program in chain.programs]
        number = {name: r for r, name in enumerate(chain.relus)}
        slots = [slot for sweep in self.sweeps for slot in sweep.program.slots]
        self.relus = torch.tensor([-1 if s.scalar is None else number[s.scalar] for s in slots], dtype=torch.int32)
        found = [graph.params(graph[name]) for name in chain.linear]
        self.weights = [params["weight"].detach().to(dtype).T.contiguous() for params in found]
        self.bias = [None if (bias := params.get("bias")) is None else bias.detach().to(dtype) for params in found]
        behind = [graph[name].inputs[0] for name in chain.relus]
        self.errors = [errors[name].to(dtype).flatten() if name in errors else None for name in behind]

    @classmethod
    def of(cls, graph: Graph, dtype: torch.dtype, errors: Mapping[str, Tensor]) -> BoxSweep | None:
        """None where the network is no chain of finite weights, or there is no library."""
        chain = Chain.of(graph)
        constants = [c for c in graph.constants.values() if c.is_floating_point()]
        if chain is None or not available(dtype):
            return None
        if any(c.device.type != "cpu" or c.dtype != dtype or not bool(c.isfinite().all()) for c in constants):
            return None
        return cls(graph, chain, dtype, errors)

    @property
    def width(self) -> int:
        """W."""
        return int(self.sizes.sum())

    def nothing(self, boxes: int) -> Tensor:
        """Signs (B, W) of boxes of which none is known."""
        return torch.zeros(boxes, self.width, dtype=torch.uint8)

    def run(self, boxes: Boxes, rows: Tensor, threads: int, seconds: float = math.inf) -> Bounded:
        """Bounds of rows (S, M) over boxes."""
        count, n = boxes.center.shape
        center, radius, given = (x.to(self.dtype).contiguous() for x in (boxes.center, boxes.radius, rows))
        low, bias = (center.new_empty(count, len(given)) for _ in range(2))
        slopes, steep = (center.new_empty(count, len(given), n) for _ in range(2))
        settled, rounds = boxes.signs.contiguous(), boxes.rounds.to(torch.int32).contiguous()
        signs = torch.empty_like(settled)
        threads = max(1, min(threads, count // FEWEST))
        jobs, kept = self._jobs(threads)
        jobs[-1].given, jobs[-1].given_stride = address(given), 0
        held = pointers(self.weights), pointers(self.bias), pointers(self.errors)
        made = _Chain(ctypes.addressof(jobs), address(self.relus), address(self.sizes), *map(ctypes.addressof, held))
        made.count, made.boxes, made.rows, made.rounds = len(self.sizes), count, len(given), address(rounds)
        made.center, made.radius, made.settled, made.found = map(address, (center, radius, settled, signs))
        made.low, made.slopes, made.bias_out, made.steep = map(address, (low, slopes, bias, steep))
        done = function("boxes", self.dtype)(ctypes.byref(made), threads, ctypes.c_double(seconds))
        del kept
        return Bounded(low, slopes, bias, steep, signs, bool(done))

    def _jobs(self, threads: int) -> tuple[ctypes.Array[tiles.Job], Tensor]:
        """The job of each sweep, and the memory that they share."""
        room = max(sweep.program.kept for sweep in self.sweeps)
        arena = torch.empty(threads * room * vector_bytes(), dtype=torch.uint8)
        jobs = (tiles.Job * len(self.sweeps))()
        for job, sweep in zip(jobs, self.sweeps, strict=True):
            sweep.describe(job)
            job.signs, job.arena, job.arena_size, job.size = True, address(arena), room, self.weights[0].shape[0]
        return jobs, arena
