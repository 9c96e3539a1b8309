"""The bound engine: intervals forward, linear bounds forward (few inputs) and backward (rows for undecided entries).

For every nonlinear node the engine first takes the cheap bounds of its inputs, then sweeps backward only for the
entries that the rule calls undecided, and only then relaxes the node. Shape letters as in `sweep.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from graphs.ops import OPS, Kind
from relaxations import RULES, Affine, Call, Interval, Relaxation, windows
from relaxations.affine import AffineRelaxation
from relaxations.forward import least_and_most
from relaxations.kernels.cases import CaseSweep
from relaxations.kernels.tiles import TileSweep
from relaxations.selections import Selection
from relaxations.sets import Box, InputSet
from relaxations.windows import Window
from verif.bounds.entries import by_pixel, meet, ordered
from verif.bounds.found import OutOfTime as OutOfTime, Pass as Pass
from verif.bounds.part import Part
from verif.bounds.structure import exact_nodes, row_size, slab_size
from verif.bounds.sweep import Given, Sweep
from verif.bounds.tiles import NO_ROUNDS, Rounds, TilePass, TilePrograms, lower_slopes

FORWARD_INPUTS = 16  # forward mode carries this many slopes per value at most
CHUNK_BYTES = 1 << 23  # coefficients of one sweep stay about in the last-level cache
HEAVY = 3000  # entries that may need rows of their own, from which a pass without them is worth trying first
ALONE = 1 / 16  # share of a chunk that a box's rows must fill to be swept without those of other boxes
DENSE_SHARE = 0.6  # share of undecided entries from which all boxes get the same rows


class Engine:
    """Bounds for one graph with a single flat input (n,); holds no state of any pass.

    `errors` are what rounding may do to bounds of a node's entries, (*N) by node (see `verif.roundoff`): intervals are
    moved outward by as much before anything is made of them but sums. Bounds that cross by `crossing` empty no part.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        errors: Mapping[str, Tensor] | None = None,
        crossing: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.graph, self.chunk_bytes, self.errors = graph, chunk_bytes, errors or {}
        self.crossing = self.errors if crossing is None else crossing
        (self.source,), self.output = graph.inputs, graph.outputs[0]
        self.calls = {node.name: Call.of(graph, node) for node in graph}
        self.exact = exact_nodes(graph)
        self.tiles = TilePrograms(graph)
        self.affine = {node.name for node in graph if node.op != INPUT and OPS[node.op].kind is Kind.AFFINE}
        self.widest = max(node.size for node in graph)
        bent = {i for node in graph if node.op != INPUT and node.name not in self.affine for i in node.inputs}
        self.heavy = sum(graph[name].size for name in bent) > HEAVY

    def limit(self, like: Tensor, at: str | None = None) -> int:
        """How many rows (on node `at`) one chunk of a sweep may have."""
        size = self.widest
        if at is not None and self.is_map(at):
            size = row_size(self.graph, at)
        elif at is not None and self.has_tokens(at):
            size = slab_size(self.graph, at)
        return max(1, self.chunk_bytes // (size * like.element_size()))

    def is_map(self, name: str) -> bool:
        """Whether a node's value is a feature map, whose unit rows are windows."""
        shape = self.graph[name].shape
        return len(shape) == 4 and shape[0] == 1 and shape[2] * shape[3] > 1

    def has_tokens(self, name: str) -> bool:
        """Whether a value has several axes, whose unit rows may stay slabs (see relaxations/slabs.py)."""
        return sum(size > 1 for size in self.graph[name].shape) > 1

    def optimises(self, region: InputSet) -> bool:
        """Whether rounds of slope optimisation have an effect."""
        return isinstance(region, Box) and self.tiles.sweep(self.output, region.lower) is not None

    def has_signs(self, region: InputSet) -> bool:
        """Whether `cases` has sweeps for this network: every kink is a ReLU's."""
        bent = [node.op for node in self.graph if lower_slopes(self.graph, node.name) is not None]
        return "relu" in bent and set(bent) == {"relu"} and self.optimises(region)

    def cases(self, region: InputSet, found: Pass, rows: Tensor) -> CaseSweep | None:
        """Sweeps of rows (1, S, M) of the output over one box under signs of ReLU inputs, from a pass's relaxations.

        None where the network has none (see `TilePass.cases`).
        """
        shaped = rows.reshape(*rows.shape[:2], *self.graph[self.output].shape)
        tiles = TilePass(self.tiles, region, found.relaxations, Rounds(1, 1), found.intervals)
        return tiles.cases(self.output, shaped)

    def interval(self, region: InputSet) -> dict[str, Interval]:
        """Interval bounds of every node, each (B, *N)."""
        box = region.box()
        values = {self.source: Interval(box.lower, box.upper)}
        for node in self.graph:
            if node.op != INPUT:
                values[node.name] = RULES[node.op].interval(self.calls[node.name], [values[i] for i in node.inputs])
        return values

    def bound(
        self,
        region: InputSet,
        rows: Tensor | None = None,
        *,
        backward: bool = True,
        rounds: Rounds = NO_ROUNDS,
        deadline: float = math.inf,
        within: Mapping[str, Interval] | None = None,
        known: Mapping[str, Interval] | None = None,
    ) -> Pass:
        """Lower bounds of rows . output (rows (S, M) or (B, S, M); default: every output) over each box of `region`, or
        over the part of it in which values lie `within` intervals (by node, each (B, *N)).
        `rounds` of slope optimisation tighten rows where the network allows it (see tiles.py; elsewhere none are made).
        With `backward` false, intermediate bounds are those of intervals and forward mode (CROWN-IBP), and `known`
        ones are not computed again; else they are met, and what they decide has no rows; `within` parts, none has.
        Raises OutOfTime at the first chunk that would start after `deadline` (time.monotonic()).
        """
        box = region.box()
        state = State(self, region, {self.source: Interval(box.lower, box.upper)}, rounds, deadline)
        state.known, state.swept = known or {}, set(known or ()) if within else set()
        state.part = None if within is None else Part(within, state.forward, state.boxes, self.crossing)
        state.seed()
        for node in self.graph:
            if node.op != INPUT:
                state.visit(node.name, backward=backward)
        size = self.graph[self.output].size
        last: Given = Selection(torch.arange(size), (1, size))
        if rows is not None:
            last = (rows if rows.dim() == 3 else rows[None]).reshape(-1, rows.shape[-2], *self.graph[self.output].shape)
        lower, slopes, bias = state.final(self.output, last, rounds.last)
        steep = state.final(self.output, last, 0)[1] if rounds.last and self.optimises(region) else slopes
        if rows is None:
            lower = lower.maximum(state.intervals[self.output].lower.reshape(len(lower), -1))
        return Pass(lower, slopes, bias, state.intervals, state.relaxations, steep, state.part)

    def again(
        self, region: InputSet, rows: Tensor, found: Pass, others: Mapping[str, Relaxation], deadline: float = math.inf
    ) -> Pass:
        """Rows (S, M) once more after a pass over the same region, with `others` in place of some relaxations."""
        state = State(self, region, dict(found.intervals), NO_ROUNDS, deadline)
        state.relaxations.update({**found.relaxations, **others})
        shaped = rows.reshape(1, len(rows), *self.graph[self.output].shape)
        lower, slopes, bias = state.final(self.output, shaped, 0)
        return replace(found, lower=lower, slopes=slopes, bias=bias, steep=slopes)


class State:
    """One pass in progress."""

    def __init__(
        self, engine: Engine, region: InputSet, intervals: dict[str, Interval], rounds: Rounds, deadline: float
    ) -> None:
        self.engine, self.region, self.intervals, self.deadline = engine, region, intervals, deadline
        self.relaxations: dict[str, Relaxation] = {}
        self.forward: dict[str, Affine] = {}
        self.tiles = TilePass(engine.tiles, region, self.relaxations, rounds, intervals)
        self.boxed = type(region) is Box  # of a part of a box, the ends of intervals are not met
        self.boxes = len(intervals[engine.source].lower)
        self.part: Part | None = None
        self.swept, self.moved = set[str](), set[str]()
        self.known: Mapping[str, Interval] = {}

    def seed(self) -> None:
        """Start forward mode where the input has few dimensions."""
        source = self.intervals[self.engine.source].lower
        count = source.shape[1]
        if count <= FORWARD_INPUTS:
            eye = torch.eye(count, dtype=source.dtype, device=source.device).expand(self.boxes, count, count)
            zero = torch.zeros_like(source)
            self.forward[self.engine.source] = Affine(eye, zero, eye, zero)

    def visit(self, name: str, *, backward: bool) -> None:
        """Bound one node: tighten what it needs of its inputs, relax it, and take its interval."""
        engine, node = self.engine, self.engine.graph[name]
        rule, call = RULES[node.op], engine.calls[name]
        if backward and name not in engine.affine:
            inputs = [self.intervals[i] for i in node.inputs]
            for source, mask in zip(node.inputs, rule.undecided(call, inputs), strict=True):
                if mask is not None and not (source in engine.exact and self.boxed) and source not in self.swept:
                    self.tighten(source, mask)
        if name not in engine.affine:
            self.move_outward(node.inputs)
        inputs = [self.intervals[i] for i in node.inputs]
        relaxation = self.relaxations[name] = rule.relax(call, inputs)
        interval = self.known[name] if name in self.known and not backward else rule.interval(call, inputs)
        if name in self.known and backward:
            interval = meet(interval, *self.known[name])
        if engine.source in self.forward:
            interval = self.push(name, relaxation, interval)
        self.intervals[name] = interval
        if self.part is not None:
            interval = self.intervals[name] = self.part.cut(name, interval)
            self.relaxations[name] = self.part.constant(relaxation, interval)

    def move_outward(self, names: Sequence[str]) -> None:
        """Make room for what rounding may have done to intervals, once; limits are of values as they are rounded."""
        for name in names:
            if name in self.engine.errors and name not in self.moved:
                self.moved.add(name)
                lower, upper = self.intervals[name]
                error = self.engine.errors[name].to(lower)
                self.intervals[name] = Interval(lower - error, upper + error)
                if self.part is not None:
                    self.intervals[name] = self.part.cut(name, self.intervals[name])

    def push(self, name: str, relaxation: Relaxation, interval: Interval) -> Interval:
        """Forward mode for one node; its interval met with what the linear bounds say."""
        inputs = [self.forward[i] for i in self.engine.graph[name].inputs]
        if type(relaxation).push is Relaxation.push:
            count = inputs[0].lower_slope.shape[1]
            slope = interval.lower.new_zeros(()).expand(self.boxes, count, *interval.lower.shape[1:])
            self.forward[name] = Affine(slope, interval.lower, slope, interval.upper)
            return interval
        pushed = self.forward[name] = relaxation.push(inputs)
        if (name in self.engine.exact and self.boxed) or not isinstance(relaxation, AffineRelaxation):
            return interval
        box = self.region.box()
        lower, upper = least_and_most(pushed, box.center, box.radius)
        return meet(interval, lower, upper)

    def tighten(self, name: str, mask: Tensor) -> None:
        """Backward bounds of the entries of node `name` in `mask` (B, *N), met with those at hand."""
        self.swept.add(name)
        self.moved.discard(name)
        held = self.intervals[name]
        flat = mask.reshape(len(mask), -1)
        total, union = int(flat.sum()), flat.any(0).nonzero()[:, 0]
        if total == 0:
            return
        lower, upper = held.lower.reshape(flat.shape).clone(), held.upper.reshape(flat.shape).clone()
        limit = max(1, self.engine.limit(lower, name) // 2)
        tiled = self.tiles.sweep(name)
        if tiled is not None:
            self._tiled(tiled, by_pixel(flat, tiled.channels), (lower, upper))
        elif self.engine.is_map(name):
            self._ragged(name, by_pixel(flat, self.engine.graph[name].shape[1]), limit, (lower, upper))
        elif not self.engine.has_tokens(name) and (self.boxes == 1 or total > DENSE_SHARE * self.boxes * len(union)):
            self._shared(name, union, limit, (lower, upper))
        else:
            owners, entries = flat.nonzero(as_tuple=True)
            self._ragged(name, (owners, entries), limit, (lower, upper))
        lower, upper = lower.reshape(held.lower.shape), upper.reshape(held.lower.shape)
        self.intervals[name] = ordered(lower, upper)
        if self.part is not None:
            self.part.compare(name, lower, upper, held.lower.abs().maximum(held.upper.abs()))
            self.intervals[name] = self.part.cut(name, self.intervals[name])

    def _shared(self, name: str, entries: Tensor, limit: int, bounds: tuple[Tensor, Tensor]) -> None:
        """The same rows for every box, in chunks of boxes."""
        lower, upper = bounds
        step = max(1, limit // len(entries))
        for first in range(0, self.boxes, step):
            boxes = slice(first, min(first + step, self.boxes))
            owner = None if step >= self.boxes else torch.arange(boxes.start, boxes.stop)
            for part in entries.split(limit):
                low, high = self._both(name, Selection(part, (1, len(part))), owner)
                lower[boxes, part] = torch.fmax(lower[boxes, part], low)
                upper[boxes, part] = torch.fmin(upper[boxes, part], high)

    def _ragged(self, name: str, rows: tuple[Tensor, Tensor], limit: int, bounds: tuple[Tensor, Tensor]) -> None:
        """Rows (box, entry), each with its own box; boxes with many rows one after the other, which gathers nothing."""
        lower, upper = bounds
        pieces = [rows]
        if len(rows[0]) > ALONE * limit * self.boxes:
            counts = torch.bincount(rows[0], minlength=self.boxes).tolist()
            pieces = list(zip(rows[0].split(counts), rows[1].split(counts), strict=True))
        for owners, entries in pieces:
            for owner, part in zip(owners.split(limit), entries.split(limit), strict=True):
                if len(part):
                    box = owner[:1] if len(pieces) > 1 or self.boxes == 1 else owner
                    low, high = self._both(name, Selection(part, (len(part), 1)), None if self.boxes == 1 else box)
                    lower[owner, part] = torch.fmax(lower[owner, part], low[:, 0])
                    upper[owner, part] = torch.fmin(upper[owner, part], high[:, 0])

    def _tiled(self, sweep: TileSweep, rows: tuple[Tensor, Tensor], bounds: tuple[Tensor, Tensor]) -> None:
        """Rows (box, entry) a tile at a time."""
        found = self.tiles.both(sweep, *rows, self.deadline)
        if found is None:
            raise OutOfTime
        lower, upper = bounds
        lower[rows] = torch.fmax(lower[rows], found[0])
        upper[rows] = torch.fmin(upper[rows], found[1])

    def final(self, name: str, rows: Given, rounds: int) -> tuple[Tensor, Tensor, Tensor]:
        """The last sweep, rows (1 or B, S) on the output, in chunks along S."""
        count = rows.lead[1] if isinstance(rows, Selection) else rows.shape[1]
        step = max(1, self.engine.limit(self.intervals[name].lower) // self.boxes)
        constants = self.engine.graph.constants.values()
        trained = torch.is_grad_enabled() and any(c.requires_grad for c in constants)  # the tape keeps all rows anyway
        if count <= step or trained:
            return self.sweep(name, rows, None, both=False, rounds=rounds)
        parts = []
        for first in range(0, count, step):
            part: Given
            if isinstance(rows, Selection):
                index = rows.index[first : first + step]
                part = Selection(index, (1, len(index)))
            else:
                part = rows[:, first : first + step]
            parts.append(self.sweep(name, part, None, both=False, rounds=rounds))
        lower, slopes, bias = (torch.cat(tensors, 1) for tensors in zip(*parts, strict=True))
        return lower, slopes, bias

    def _both(self, name: str, rows: Selection, owner: Tensor | None) -> tuple[Tensor, Tensor]:
        low, high = self.sweep(name, rows, owner, both=True)[0].chunk(2, 1)
        return low, -high

    def sweep(
        self, at: str, rows: Given, owner: Tensor | None, *, both: bool, rounds: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Minimum over the region of rows on node `at`: bounds (B, S), slopes (B, S, n) and bias in the input."""
        if time.monotonic() > self.deadline:
            raise OutOfTime
        like = self.intervals[self.engine.source].lower
        shared = not both and owner is None
        tiled = self.tiles.sweep(at, rows if isinstance(rows, Tensor) else None) if shared else None
        if tiled is not None:
            dense = rows.dense(like, self.engine.graph[at].shape) if isinstance(rows, Selection) else rows
            result = self.tiles.rows(tiled, dense, self.deadline, rounds)
            if not result.complete or result.slopes is None or result.bias is None:
                raise OutOfTime
            return torch.where(result.low.isnan(), -math.inf, result.low), result.slopes, result.bias
        found, bias = Sweep(self.engine.graph, self.relaxations, owner, like, both=both).run(at, rows)
        if found is None:  # constants all the way, as far as the rows went
            lower = bias.expand(max(len(like) if owner is None else len(owner), len(bias)), -1)
            slopes = like.new_zeros(()).expand(*lower.shape, like.shape[1])
            return torch.where(lower.isnan(), -math.inf, lower), slopes, lower
        if isinstance(found, Window):
            if both and isinstance(self.region, Box):  # an intermediate bound: nobody asks for its slopes
                lower = bias + windows.minimize(self.region, found, owner)
                return torch.where(lower.isnan(), -math.inf, lower), lower, bias
            found = found.dense()
        slopes = found.flatten(2)
        boxes = max(len(like) if owner is None else len(owner), len(slopes))
        slopes, bias = slopes.expand(boxes, *slopes.shape[1:]), bias.expand(boxes, *bias.shape[1:])
        lower = bias + self.region.minimize(slopes, owner)
        return torch.where(lower.isnan(), -math.inf, lower), slopes, bias
