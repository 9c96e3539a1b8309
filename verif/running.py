"""Bounds whose rounding is bounded while they are computed: what a sweep can lose is summed by its own coefficients.

`verif.roundoff` bounds coefficients a priori by products of |W|, which is of no use where these grow by orders of
magnitude from layer to layer. Here a row a on the value h of a node is known when it is pulled back (relaxations.md,
5.2): rounding changes what it becomes by gamma of |a| |W| |x|, where |x| has a sound bound, and the intercepts that it
meets by gamma of |a| |b|. With own_h = 3 gamma (|W| |x| + |b|) of the node, both are at most |a| . own_h, and the bound
is lowered by as much. The same own_h is what intervals of the node are moved outward by when they are not from rows,
and in forward mode (|x| is then the size of the forms' terms) what biases are. So every interval is sound when lines
are made of it, and nothing is passed on by absolute values but in forward mode.

Softmax touches its planes at points; what rounding does to their values and slopes is in `verif.planes`.
Shape letters: B boxes, R rows, S signs or rows, n inputs, N one node's shape.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from graphs.ops import OPS, Kind
from relaxations import RULES, Affine, Call, Interval, Relaxation, windows
from relaxations.forward import least_and_most
from relaxations.kernels.tiles import TileSweep
from relaxations.selections import Selection
from relaxations.sets import Box
from relaxations.slabs import Slab
from relaxations.windows import Window
from verif.bounds import Engine, Rounds
from verif.bounds.engine import CHUNK_BYTES, OutOfTime, State
from verif.bounds.entries import meet
from verif.bounds.sweep import Given, Rows, Sweep
from verif.bounds.tiles import TilePass, TilePrograms
from verif.carries import carry, known, top
from verif.planes import alive, passed_on, planes_of_softmax, steepest
from verif.roundoff import BENT, LEAST, MARGIN, UNIT, absolute, gamma, products, terms

FINE = torch.float64
LAST = 5  # times as many rounds for the last rows as for those of intermediate values
MOVES = {"reshape", "transpose", "slice"}


class Effort(NamedTuple):
    """Of one pass: whether inputs of kinks get rows of their own, and up to how many numbers those of other ops; the
    share of an interval's width that may be lost where tiles bound it, and the rounds that optimise their slopes.
    """

    kinks: bool
    others: float
    little: float
    rounds: int


FORMS = Effort(False, 0, 0.0, 0)
KINKS = tuple(Effort(True, 16, 1e-2, rounds) for rounds in (0, 2, 6))
ALL = tuple(Effort(True, math.inf, 1e-2, rounds) for rounds in (0, 2, 6))
SURE = Effort(True, math.inf, 1e-5, 0)


def unknown_ops(graph: Graph) -> tuple[str, ...]:
    """Ops whose rounding has no bound here, each once."""
    ops = (node.op for node in graph if node.op != INPUT and not _known(node.op))
    masked = ("softmax with a mask" for node in graph if node.op == "softmax" and "mask" in graph.params(node))
    return tuple(dict.fromkeys((*ops, *masked)))


def _known(op: str) -> bool:
    return (OPS[op].kind is Kind.AFFINE and op != "transposed") or op in BENT or op == "softmax" or known(op)


class Running:
    """Lower bounds of a graph's outputs over boxes, rounding taken off; for graphs without unknown ops."""

    def __init__(self, graph: Graph, dtype: torch.dtype = FINE, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.engine, self.dtype = Engine(graph.to(dtype), chunk_bytes=chunk_bytes), dtype
        self.untiled = _Untiled(self.engine.graph)

    @property
    def tiled(self) -> bool:
        """Whether slopes can be optimised."""
        like = torch.zeros(1, dtype=self.dtype)
        return self.engine.tiles.sweep(self.engine.output, like) is not None

    def lower(
        self,
        boxes: Box,
        effort: Effort = SURE,
        deadline: float = math.inf,
        expected: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Bounds (B, M), -inf where nothing is known, and slopes (B, M, n) of rows. Raises OutOfTime.

        `expected` are signs of values (B, size), by node, 0 where both ends are wanted: whatever they are, bounds are
        sound, and where they are right most rows are needed for one end only.
        """
        engine = self.engine
        rounds, ends = Rounds(effort.rounds), Interval(boxes.lower, boxes.upper)
        state = _State(engine, boxes, {engine.source: ends}, rounds, deadline)
        state.seed()
        state.effort, state.expected = effort, expected or {}
        state.untiled = TilePass(self.untiled, boxes, state.relaxations, rounds, state.intervals)
        for node in engine.graph:
            if node.op != INPUT:
                state.visit(node.name, backward=effort.kinks if node.op in BENT else node.size <= effort.others)
        size = engine.graph[engine.output].size
        last = Selection(torch.arange(size), (1, size))
        lower, slopes, _ = state.final(engine.output, last, 0)
        lower = lower.maximum(state.intervals[engine.output].lower.reshape(len(lower), -1))
        return lower.maximum(state.optimised(last)) if effort.rounds else lower, slopes


class _Untiled(TilePrograms):
    """Tiles do not tell what their rows were."""

    def sweep(self, at: str, like: Tensor) -> TileSweep | None:
        """None."""
        return None


class _State(State):
    """One pass in progress; all of its intervals are sound."""

    own: dict[str, Tensor]
    charged: dict[str, Tensor]  # what rows pay for where they pass: `own`, or the total of all behind where they start
    total: dict[str, Tensor]
    least: dict[str, Tensor]
    untiled: TilePass
    effort: Effort
    expected: Mapping[str, Tensor]

    def seed(self) -> None:
        """Sizes of the input, and how many nodes read each."""
        super().seed()
        self.tiled, source = self.tiles, self.intervals[self.engine.source]
        self.unit, self.underflow = UNIT[source.lower.dtype], LEAST[source.lower.dtype]
        self.own, self.least, self.readers = {}, {}, dict.fromkeys(self.engine.graph.nodes, 0)
        for node in self.engine.graph:
            for name in node.inputs:
                self.readers[name] += 1
        self.charged = self.own
        count = 2 * source.lower.shape[1] + 2 * self.readers[self.engine.source] + 32
        self.total = {self.engine.source: 3 * gamma(count, self.unit) * top(source)}

    def visit(self, name: str, *, backward: bool) -> None:
        """Bound one node: its interval moved outward by what rounding does to it, forms too."""
        engine, node, call = self.engine, self.engine.graph[name], self.engine.calls[name]
        rule = RULES[node.op]
        if backward and name not in engine.affine:
            inputs = [self.intervals[i] for i in node.inputs]
            for source, mask in zip(node.inputs, rule.undecided(call, inputs), strict=True):
                if mask is not None and source not in engine.exact and source not in self.swept:
                    self.tighten(source, mask)
        inputs = [self.intervals[i] for i in node.inputs]
        sizes = [top(ends) for ends in inputs]
        relaxation = self.relaxations[name] = rule.relax(call, inputs)
        if node.op in MOVES and self.readers[name] <= 1:  # nothing is rounded
            self.total[name] = passed_on(call, inputs, [self.total[i] for i in node.inputs], self.unit)
            interval = rule.interval(call, inputs)
            self.intervals[name] = self.push(name, relaxation, interval) if self.forward else interval
            return
        own = self.own[name] = self.lost(call, inputs, sizes)
        mass = sum((size.reshape(len(size), -1).sum(1) for size in sizes), torch.ones(self.boxes, dtype=own.dtype))
        self.least[name] = self.underflow * products(call) * mass[:, None]
        passed = passed_on(call, inputs, [self.total[i] for i in node.inputs], self.unit)
        self.total[name] = MARGIN * (passed + own + self.least[name].reshape(-1, *[1] * (own.dim() - 1)))
        low, high = rule.interval(call, inputs)
        interval = Interval(low - own, high + own)
        self.intervals[name] = self.push(name, relaxation, interval) if self.forward else interval

    def lost(self, call: Call, held: Sequence[Interval], sizes: Sequence[Tensor]) -> Tensor:
        """What rounding does to one entry of a node's value, (B or 1, *N), where inputs or their terms have sizes."""
        node, graph = call.node, self.engine.graph
        several, xs = len(graph.nodes) + 64, list(sizes)
        rounds = gamma(node.size + several, self.unit)
        if node.name in self.engine.affine:
            carried, offset = absolute(call, xs), absolute(call, xs, only_offset=True)
            error, size = 3 * gamma(terms(call, xs), self.unit) * carried + rounds * offset, carried + offset
        elif node.op in BENT:
            size = alive(call, held[0], steepest(call) * xs[0].maximum(top(held[0])))
            error = 3 * rounds * size
        elif node.op == "softmax":
            error, size = planes_of_softmax(call, held[0], xs[0], self.unit)
            error = error + gamma(2 * node.size + several, self.unit) * 3 * size
        else:
            passed = carry(call, held, 2 * self.unit)
            if passed is None:
                return xs[0].new_full((1, *node.shape), math.inf)
            size = passed.through(xs) + passed.level
            error = 3 * gamma(sum(graph[name].size for name in node.inputs) + node.size + several, self.unit) * size
        error = error + gamma(2 * self.readers[node.name] + 8, self.unit) * size + self.underflow * products(call)
        return MARGIN * error.nan_to_num(nan=math.inf)

    def tighten(self, name: str, mask: Tensor) -> None:
        """By tiles, which do not tell what their rows were, or rows that are not asked, where that hardly counts."""
        held, most = self.intervals[name], torch.where(mask, self.total[name], 0)
        few = bool((most <= self.effort.little * torch.where(mask, held.width, math.inf)).all())
        self.tiles, self.at = (self.tiled if few else self.untiled), name
        self.charged = {name: self.total[name]} if few else self.own
        super().tighten(name, mask)
        self.charged = self.own

    def _tiled(self, sweep: TileSweep, rows: tuple[Tensor, Tensor], bounds: tuple[Tensor, Tensor]) -> None:
        """Rows (box, entry) a tile at a time, and all that any rows could lose."""
        if sweep.signs and self.at in self.expected:
            found = self.tiles.ends(sweep, rows, self.expected[self.at][rows], self.deadline)
        else:
            found = self.tiles.both(sweep, *rows, self.deadline)
        if found is None:
            raise OutOfTime
        lower, upper = bounds
        total = self.total[self.at].flatten(1)
        lost = total.expand(self.boxes, -1)[rows]
        lower[rows] = torch.fmax(lower[rows], found[0] - lost)
        upper[rows] = torch.fmin(upper[rows], found[1] + lost)

    def optimised(self, last: Selection) -> Tensor:
        """Rows on the output by tiles, with optimised slopes, less all that any rows could lose (B, S)."""
        at = self.engine.output
        sweep, like = self.tiled.sweep(at), self.intervals[self.engine.source].lower
        if sweep is None:
            return like.new_full((1, 1), -math.inf)
        rows = last.dense(like, self.engine.graph[at].shape)
        found = self.tiled.rows(sweep, rows, self.deadline, LAST * self.effort.rounds)
        if not found.complete:
            raise OutOfTime
        low = found.low - self.total[at].flatten(1)
        return torch.where(low.isnan(), -math.inf, low)

    def push(self, name: str, relaxation: Relaxation, interval: Interval) -> Interval:
        """Forward mode for one node; biases are moved outward by what rounding does to forms of such terms."""
        node, call = self.engine.graph[name], self.engine.calls[name]
        forms = [self.forward[i] for i in node.inputs]
        box = self.region.box()
        size = box.lower.abs().maximum(box.upper.abs())
        if type(relaxation).push is Relaxation.push:
            slope = interval.lower.new_zeros(()).expand(self.boxes, size.shape[1], *interval.lower.shape[1:])
            self.forward[name] = Affine(slope, interval.lower, slope, interval.upper)
            return interval
        if name not in self.own:
            self.forward[name] = relaxation.push(forms)
            return interval
        pushed, lost = relaxation.push(forms), self.lost(call, [self.intervals[i] for i in node.inputs],
                                                         [_mass(form, size) for form in forms])  # fmt: skip
        found = Affine(pushed.lower_slope, pushed.lower_bias - lost, pushed.upper_slope, pushed.upper_bias + lost)
        self.forward[name] = found
        if name not in self.engine.affine or name in self.engine.exact:
            return interval
        lower, upper = least_and_most(found, box.center, box.radius)
        rounded = 3 * MARGIN * gamma(2 * size.shape[1] + 16, self.unit) * _mass(found, size)
        return meet(interval, lower - rounded, upper + rounded)

    def sweep(
        self, at: str, rows: Given, owner: Tensor | None, *, both: bool, rounds: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Minimum over the region of rows on node `at`, (B, S), less what the sweep may have lost."""
        if time.monotonic() > self.deadline:
            raise OutOfTime
        like = self.intervals[self.engine.source].lower
        sweep = _Sweep(self.engine.graph, self.relaxations, owner, like, both=both)
        sweep.own, sweep.least, sweep.error = self.charged, self.least, like.new_zeros(1, 1)
        found, bias = sweep.run(at, rows)
        lower = bias.expand(max(sweep.boxes, len(bias)), -1)
        error = sweep.error + gamma(16, self.unit) * bias.abs()
        if found is not None:
            box = self.region.box()
            size = box.lower.abs().maximum(box.upper.abs())
            boxes, sizes = Box(box.lower, box.upper), Box(-size, size)
            if isinstance(found, Window):
                least, mass = (windows.minimize(each, found, owner) for each in (boxes, sizes))
            else:
                least, mass = (each.minimize(found.flatten(2), owner) for each in (boxes, sizes))
            lower = lower + least
            count = 2 * size.shape[1] + 2 * self.readers[self.engine.source] + 32
            error = error - 3 * gamma(count, self.unit) * mass
        lower = lower - MARGIN * error
        if isinstance(found, Tensor):
            slopes = found.flatten(2).expand(len(lower), -1, -1)
        else:  # of windows nobody asks for it
            slopes = like.new_zeros(()).expand(*lower.shape, like.shape[1])
        return torch.where(lower.isnan(), -math.inf, lower), slopes, bias


class _Sweep(Sweep):
    """A sweep that sums what its rows lose: `error` (B or 1, S), from each node's `own` and `least`."""

    own: Mapping[str, Tensor]
    least: Mapping[str, Tensor]
    error: Tensor

    def _visit(self, name: str) -> None:
        if name in self.own:
            least = self._read(self.least[name]) if name in self.least else 0.0
            self.error = self.error + least + self._charge(name, self.terms[name])
        super()._visit(name)

    def _negate(self) -> None:
        super()._negate()
        self.error = torch.cat([self.error, self.error], 1)

    def _read(self, values: Tensor) -> Tensor:
        """Values (B or 1, ...) of the boxes that rows belong to."""
        return values if self.owner is None or len(values) == 1 else values[self.owner]

    def _charge(self, name: str, rows: Rows) -> Tensor:
        """|rows| . own, (B or 1, S)."""
        own = self.own[name]
        if isinstance(rows, Window):
            owner = self.owner if len(own) > 1 else None
            read = rows.view(owner).read(own.reshape(-1, *rows.shape))
            return _dot(rows.rows, read)
        if isinstance(rows, Slab):
            return _dot(rows.rows, rows.read(own, self.owner))
        flat = self._read(own)
        flat = flat.reshape(len(flat), -1)
        if isinstance(rows, Selection):
            index = rows.index.reshape(rows.lead)
            count = max(len(flat), len(index))
            return flat.expand(count, -1).gather(1, index.expand(count, -1))
        return _dot(rows, flat)


def _dot(rows: Tensor, own: Tensor) -> Tensor:
    """|rows| . own: rows (B or 1, S, *N), own (B or 1, *N) to (B or 1, S); NaN where 0 meets inf."""
    size, column = rows.reshape(*rows.shape[:2], -1).abs(), own.reshape(len(own), -1).unsqueeze(-1)
    return torch.matmul(size, column).squeeze(-1)


def _mass(form: Affine, size: Tensor) -> Tensor:
    """The largest sum of the sizes of a form's terms on either side, (B, *N), where inputs have sizes (B, K)."""
    sides = []
    for slope, bias in ((form.lower_slope, form.lower_bias), (form.upper_slope, form.upper_bias)):
        shaped = size.reshape(*size.shape, *[1] * (slope.dim() - 2))
        sides.append((slope.abs() * shaped).sum(1) + bias.abs())
    return sides[0].maximum(sides[1])
