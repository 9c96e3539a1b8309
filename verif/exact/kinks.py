"""From a graph to a `Program`: affine nodes by their matrices, piecewise-linear ones by ReLUs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from graphs import Graph
from graphs.ir import INPUT, Node
from graphs.ops import OPS, Kind
from relaxations import Call, Interval
from relaxations.maximum import windows_of
from verif.exact.matrices import Index, expand
from verif.exact.program import Builder, Program, Value, scaled

MOST = 20_000_000  # coefficients of a program


def supported(graph: Graph) -> bool:
    """Whether every op of a graph with one flat input is affine or one of the piecewise-linear ones."""
    return all(node.op == INPUT or node.op in KINKS or OPS[node.op].kind is Kind.AFFINE for node in graph)


def program(graph: Graph, intervals: Mapping[str, Interval], deadline: float = math.inf) -> Program | None:
    """The program of a graph over one box, from the intervals (1, *N) of a float64 pass (`Pass.intervals`).

    None where an op is of another kind, an interval is not finite, or matrices would be too large. Raises OutOfTime.
    """
    if not supported(graph):
        return None
    builder = Builder(deadline=deadline)
    values: dict[str, Value] = {}
    for node in graph:
        low, high = (end.detach().double().flatten().cpu().numpy() for end in intervals[node.name])
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return None
        if node.op == INPUT:
            values[node.name] = builder.unit(builder.variables(low, high))
            continue
        inputs = [values[name] for name in node.inputs]
        step = Step(graph, node, builder)
        made = KINKS[node.op](step, inputs) if node.op in KINKS else step.affine(inputs)
        if made is None or made.rows.nnz + sum(b.rows.nnz for b in builder.blocks) > MOST:
            return None
        values[node.name] = Value(made.rows, made.offset, made.size, low, high)
    return builder.build(graph[graph.inputs[0]].size, values[graph.outputs[0]])


class Step:
    """One node on its way into a builder."""

    def __init__(self, graph: Graph, node: Node, builder: Builder) -> None:
        self.node, self.builder = node, builder
        self.call, self.shapes = Call.of(graph, node), [graph[name].shape for name in node.inputs]

    def affine(self, inputs: Sequence[Value]) -> Value | None:
        """Rows of rows."""
        found = expand(self.call, self.shapes, self.builder.deadline)
        if found is None:
            return None
        matrices, offset = found
        wide = self.builder.wide
        parts = [m @ wide(value.rows) for m, value in zip(matrices, inputs, strict=True)]
        total = sum(m @ value.offset for m, value in zip(matrices, inputs, strict=True)) + offset
        size = sum(abs(m) @ value.size for m, value in zip(matrices, inputs, strict=True)) + np.abs(offset)
        self.builder.terms += 4 + max((int(np.diff(m.indptr).max(initial=0)) for m in matrices), default=0)
        rows = parts[0]
        for part in parts[1:]:
            rows = rows + part
        return Value(rows.tocsr(), total, size, total, total)

    def relu(self, inputs: Sequence[Value]) -> Value:
        """max(x, 0)."""
        return self.builder.relu(inputs[0], self.node.inputs[0])[1]

    def bent(self, inputs: Sequence[Value]) -> Value:
        """x where x >= 0, else slope x: slope x + (1 - slope) max(x, 0)."""
        slope = -1.0 if self.node.op == "abs" else self.call.params.get("slope", self.node.attrs.get("slope"))
        below = torch.as_tensor(slope, dtype=torch.float64).expand(self.node.shape).flatten().numpy()
        x, positive, sign = self.builder.relu(inputs[0], self.node.inputs[0])
        wide = self.builder.wide
        left = np.where(sign > 0, 1.0, below)
        right = np.where(sign == 0, 1.0 - below, 0.0)
        rows = scaled(left, wide(x.rows)) + scaled(right, wide(positive.rows))
        size = np.abs(left) * x.size + np.abs(right) * positive.size
        return Value(rows, left * x.offset + right * positive.offset, size, x.low, x.high)

    def clip(self, inputs: Sequence[Value]) -> Value:
        """min(max(x, lower), upper)."""
        value, lower, upper = inputs[0], float(self.node.attrs["lower"]), float(self.node.attrs["upper"])
        if np.isfinite(lower):
            value = self._larger(value, self._constant(lower, len(value)))
        if np.isfinite(upper):
            value = _negated(self._larger(_negated(value), self._constant(-upper, len(value))))
        return value

    def pair(self, inputs: Sequence[Value]) -> Value:
        """The larger or the smaller of two values."""
        a, b = (
            value.take(_broadcast(shape, self.node.shape)) for value, shape in zip(inputs, self.shapes, strict=True)
        )
        if self.node.op == "minimum":
            return _negated(self._larger(_negated(a), _negated(b)))
        return self._larger(a, b)

    def window(self, inputs: Sequence[Value]) -> Value:
        """The largest or the smallest of the entries of windows, two at a time."""
        places = windows_of(self.call, self.shapes[0], torch.device("cpu")).reshape(self.node.size, -1).numpy()
        places = np.sort(places, 1)[:, ::-1]  # padding, which is -1, last
        value = _negated(inputs[0]) if self.node.op == "reduce_min" else inputs[0]
        best = value.take(places[:, 0])
        for place in places.T[1:]:
            there = place >= 0
            larger = self._larger(best.take(np.flatnonzero(there)), value.take(place[there]))
            best = larger if there.all() else self._replaced(best, np.flatnonzero(there), larger)
        return _negated(best) if self.node.op == "reduce_min" else best

    def _larger(self, a: Value, b: Value) -> Value:
        """max(a, b): b + max(a - b, 0), or the one that is known to be larger."""
        wide = self.builder.wide
        rows = wide(a.rows) - wide(b.rows)
        difference = Value(rows, a.offset - b.offset, a.size + b.size, a.low - b.high, a.high - b.low)
        _, positive, sign = self.builder.relu(difference)
        first, second, open_ = (np.where(c, 1.0, 0.0) for c in (sign > 0, sign <= 0, sign == 0))
        rows = scaled(first, wide(a.rows)) + scaled(second, wide(b.rows)) + scaled(open_, wide(positive.rows))
        offset = first * a.offset + second * b.offset
        size = np.maximum(a.size, b.size) + open_ * positive.size
        return Value(rows, offset, size, np.maximum(a.low, b.low), np.maximum(a.high, b.high))

    def _constant(self, number: float, count: int) -> Value:
        full = np.full(count, number)
        return Value(self.builder.chosen(count, *np.zeros((2, 0), dtype=np.int64)), full, np.abs(full), full, full)

    def _replaced(self, value: Value, places: Index, other: Value) -> Value:
        """A value with some of its entries replaced."""
        import scipy.sparse as sparse

        order = np.arange(len(value))
        order[places] = len(value) + np.arange(len(places))
        wide = self.builder.wide
        rows = sparse.vstack([wide(value.rows), wide(other.rows)], format="csr")
        pairs = ((getattr(value, f), getattr(other, f)) for f in ("offset", "size", "low", "high"))
        return Value(rows, *(np.concatenate(pair) for pair in pairs)).take(order)


KINKS: Mapping[str, Callable[[Step, Sequence[Value]], Value]] = {
    "relu": Step.relu,
    "leaky_relu": Step.bent,
    "prelu": Step.bent,
    "abs": Step.bent,
    "clip": Step.clip,
    "maximum": Step.pair,
    "minimum": Step.pair,
    "reduce_max": Step.window,
    "reduce_min": Step.window,
    "max_pool": Step.window,
}


def _negated(value: Value) -> Value:
    return Value(-value.rows, -value.offset, value.size, -value.high, -value.low)


def _broadcast(shape: Sequence[int], target: Sequence[int]) -> Index:
    """Positions in a value of `shape` of the entries of `target`."""
    places = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    return np.broadcast_to(places, target).flatten()
