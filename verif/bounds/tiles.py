"""Backward sweeps in cache-sized tiles, for the networks that have a program (see relaxations/kernels)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs import Graph
from graphs.ops import OPS, Kind
from relaxations.kernels.cases import CaseSweep
from relaxations.kernels.entries import Choice, Entries
from relaxations.kernels.library import available
from relaxations.kernels.program import Geometry, compile_sweep
from relaxations.kernels.tiles import Found, Region, Tiles, TileSweep
from relaxations.rule import RULES, Call, Interval, Relaxation
from relaxations.scalar.lines import ScalarLines
from relaxations.scalar.rule import ScalarRule
from relaxations.sets import Box, InputSet


@dataclass(frozen=True)
class Rounds:
    """Steps of slope optimisation for the rows of intermediate values, and for the last rows."""

    inner: int = 0
    last: int = 0


NO_ROUNDS = Rounds()
SLOPE_BYTES = 1 << 24  # that the rows on the input take at a time, where a tile cannot take their minimum itself


class TilePrograms:
    """The tile sweeps of a graph, made when they are first asked for and again when its constants have changed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._made: dict[tuple[str, torch.dtype], TileSweep | None] = {}
        self._state: tuple[tuple[int, int], ...] = ()
        self._finite: bool | None = None

    def renew(self) -> None:
        """Forget what was made of constants that have changed; to be called before each pass."""
        constants = self.graph.constants.values()
        state = tuple((c.data_ptr(), 0 if c.is_inference() else c._version) for c in constants)
        if state != self._state or not all(made is None or made.current() for made in self._made.values()):
            self._made.clear()
            self._state, self._finite = state, None

    def sweep(self, at: str, like: Tensor) -> TileSweep | None:
        """The sweep from node `at` in the precision of `like`; None where there is none, or gradients are wanted.

        None as well for weights that are not finite: a tile leaves out products with entries that are zero.
        """
        constants = self.graph.constants.values()
        if like.device.type != "cpu" or not available(like.dtype):
            return None
        if not _readable(like, *(c for c in constants if c.is_floating_point())):
            return None
        if self._finite is None:
            self._finite = all(bool(c.isfinite().all()) for c in constants)
        if not self._finite:
            return None
        key = (at, like.dtype)
        if key not in self._made:
            program = compile_sweep(self.graph, at)
            bent = [n for n in self.graph if at in n.inputs and OPS[n.op].kind is not Kind.AFFINE]
            signs = all(lower_slopes(self.graph, node.name) for node in bent)
            self._made[key] = None if program is None else TileSweep(self.graph, program, like.dtype, signs=signs)
        return self._made[key]


def _readable(like: Tensor, *tensors: Tensor | None) -> bool:
    """Whether the library can read tensors for sweeps in the precision of `like`, and no gradient in them is wanted."""
    grad = torch.is_grad_enabled()
    return all(
        x is None or (x.dtype == like.dtype and x.device == like.device and not (grad and x.requires_grad))
        for x in tensors
    )


class TilePass:
    """The tile sweeps of one pass over `region`, with the relaxations (and intervals) found so far."""

    def __init__(
        self,
        programs: TilePrograms,
        region: InputSet,
        relaxations: Mapping[str, Relaxation],
        rounds: Rounds = NO_ROUNDS,
        intervals: Mapping[str, Interval] | None = None,
    ) -> None:
        self.programs, self.region, self.rounds = programs, region, rounds
        self.relaxations, self.intervals = relaxations, intervals or {}
        box = region.box()
        self.like, self.upper, self.boxes = box.lower, box.upper, len(box)
        self.box = (region.center, region.radius) if isinstance(region, Box) else None
        self._entries: dict[tuple[str, Geometry], Entries] = {}
        programs.renew()

    def sweep(self, at: str, rows: Tensor | None = None) -> TileSweep | None:
        """How to sweep from node `at` (with given rows); None: not in tiles."""
        found = self.programs.sweep(at, self.like)
        if found is None or not _readable(self.like, self.like, self.upper, rows):
            return None
        if rows is not None and (len(rows) > self.boxes or not bool(rows.isfinite().all())):
            return None
        for name in found.program.scalars:
            lines = self.relaxations.get(name)
            if not isinstance(lines, ScalarLines):
                return None
            if not _readable(self.like, lines.lower_slope, lines.lower_bias, lines.upper_slope, lines.upper_bias):
                return None
        return found if all(entries.finite for entries in self._relaxed(found).values()) else None

    def both(self, sweep: TileSweep, owner: Tensor, entry: Tensor, deadline: float) -> tuple[Tensor, Tensor] | None:
        """Bounds (E,) of entries of the value over boxes owner (E,), both sorted; None: out of time."""
        if self.box is not None:
            return self._both(sweep, owner, entry, deadline)
        step = max(1, SLOPE_BYTES // (2 * self.like.shape[1] * self.like.element_size()))
        parts = []
        for rows in zip(owner.split(step), entry.split(step), strict=True):
            parts.append(self._both(sweep, *rows, deadline))
            if parts[-1] is None or (deadline < time.monotonic() and len(parts) * step < len(entry)):
                return None
        lower, upper = (torch.cat(ends) for ends in zip(*(part for part in parts if part is not None), strict=True))
        return lower, upper

    def _both(self, sweep: TileSweep, owner: Tensor, entry: Tensor, deadline: float) -> tuple[Tensor, Tensor] | None:
        area = math.prod(sweep.program.slots[sweep.program.at].geometry[1:])
        tiles = Tiles.of_units(owner, entry, area, sweep.dtype)
        found = sweep.units(self._relaxed(sweep), tiles, entry, self._region(deadline, self.rounds.inner))
        if not found.complete:
            return None
        if found.slopes is None or found.bias is None:
            return found.low, found.high
        least = [self.region.minimize(rows[:, None], owner)[:, 0] for rows in found.slopes]
        return found.bias[0] + least[0], -(found.bias[1] + least[1])

    def ends(
        self, sweep: TileSweep, rows: tuple[Tensor, Tensor], expected: Tensor, deadline: float
    ) -> tuple[Tensor, Tensor] | None:
        """Bounds (E,) as by `both`, over boxes alone; of entries whose sign is `expected` (E,) to be 1 or -1 the end
        that shows it, and the other is infinite: in half as many tiles, which are done when all is as expected.
        """
        assert self.box is not None
        (channels, *sides), (owner, entry) = sweep.program.slots[sweep.program.at].geometry, rows
        area, own = math.prod(sides), 2 * len(entry)
        row = torch.cat([(expected >= 0).nonzero()[:, 0], (expected <= 0).nonzero()[:, 0]])
        negative = torch.arange(len(row)) >= int((expected >= 0).sum())
        # By box and pixel, and there those with one end first; within a tile by channel.
        pixel = 2 * (owner * area + entry % area)[row] + (expected[row] == 0)
        order = (pixel * own + 2 * row + negative).argsort()
        tiles = Tiles.of_sides(owner[row[order]], entry[row[order]], area, sweep.dtype)
        tile = torch.arange(len(tiles.size)).repeat_interleave(tiles.size.long())
        order = order[(tile * channels + entry[row[order]] // area).argsort(stable=True)]
        row, negative = row[order], negative[order]
        region = self._region(deadline, self.rounds.inner)
        found = sweep.sides(self._relaxed(sweep), tiles, (entry[row], negative), region)
        if not found.complete:
            return None
        lower, upper = (found.low.new_full((len(entry),), end) for end in (-math.inf, math.inf))
        lower[row[~negative]], upper[row[negative]] = found.low[~negative], -found.low[negative]
        return lower, upper

    def rows(self, sweep: TileSweep, rows: Tensor, deadline: float, rounds: int | None = None) -> Found:
        """Lower bounds of rows (B or 1, S, *N) on the value, with the rows on the input."""
        flat = rows.reshape(*rows.shape[:2], sweep.program.slots[sweep.program.at].size)
        found = sweep.rows(
            self._relaxed(sweep),
            flat,
            self.boxes,
            self._region(deadline, self.rounds.last if rounds is None else rounds),
        )
        if self.box is None and found.slopes is not None and found.bias is not None:
            return found._replace(low=found.bias + self.region.minimize(found.slopes))
        return found

    def cases(self, at: str, rows: Tensor) -> CaseSweep | None:
        """Sweeps of rows (1, S, *N) under signs of ReLU inputs; None where there are none, or kinks of another kind."""
        sweep, graph = self.sweep(at, rows), self.programs.graph
        if sweep is None or self.box is None or self.boxes != 1 or self.rounds == NO_ROUNDS:
            return None
        bent = [name for name in sweep.program.scalars if lower_slopes(graph, name) is not None]
        if not bent or any(graph[name].op != "relu" for name in bent):
            return None
        flat = rows.reshape(rows.shape[1], -1).contiguous()
        return CaseSweep(sweep, self._relaxed(sweep), flat, self._region(math.inf, 1))

    def _region(self, deadline: float, rounds: int) -> Region:
        rounds = 0 if self.box is None else rounds
        return Region(self.box, self.like.shape[1], deadline - time.monotonic(), rounds)

    def _relaxed(self, sweep: TileSweep) -> Mapping[str, Entries]:
        found = {}
        for slot in sweep.program.slots:
            if slot.scalar is not None:  # a value may be flat for one sweep and a map for another
                key = slot.scalar, slot.geometry
                if key not in self._entries:
                    self._entries[key] = self._listed(*key)
                found[slot.scalar] = self._entries[key]
        return found

    def _listed(self, name: str, geometry: Geometry) -> Entries:
        lines = self.relaxations[name]
        assert isinstance(lines, ScalarLines)
        return Entries.of(lines, geometry, None if self.rounds == NO_ROUNDS else self._choice(name, lines))

    def _choice(self, name: str, own: ScalarLines) -> Choice:
        """What the lines of a scalar node may be instead."""
        slopes = lower_slopes(self.programs.graph, name)
        if slopes is not None:
            return slopes
        node = self.programs.graph[name]
        rule, box = RULES[node.op], self.intervals.get(node.inputs[0])
        if box is None or not isinstance(rule, ScalarRule):
            return None
        return rule.choices(Call.of(self.programs.graph, node), box, own)


def lower_slopes(graph: Graph, name: str) -> tuple[float, float] | None:
    """Slopes that the lower line of a scalar node may have."""
    rule = RULES.get(graph[name].op)
    return rule.lower_slopes(Call.of(graph, graph[name])) if isinstance(rule, ScalarRule) else None
