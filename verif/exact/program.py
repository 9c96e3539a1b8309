"""A network of affine and piecewise-linear ops as linear rows and ReLUs.

Every kink becomes a ReLU h = max(z, 0) of a variable z (see `kinks.py`). ReLUs whose sign the bounds leave open are
relaxed to their triangle; with all signs given the rows describe the network exactly.
Shape letters: n inputs, V variables (the inputs first), K undecided ReLUs, E equations, M outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from verif.exact.matrices import Array, Index, Sparse

UNIT = 2.0**-53  # one rounding
WIDEN = 2.0**-40  # of the terms of a value: what a float64 pass may have rounded off its bounds


@dataclass(frozen=True)
class Value:
    """A node's value as rows (N, V) of the variables and an offset (N,), with bounds low and high (N,).

    `size` (N,) is at least the sum of the absolute terms anywhere on the way, to which rounding is proportional.
    """

    rows: Sparse
    offset: Array
    size: Array
    low: Array
    high: Array

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, index: Index) -> Value:
        """Some entries."""
        return Value(self.rows[index], *(a[index] for a in (self.offset, self.size, self.low, self.high)))


@dataclass(frozen=True)
class Block:
    """One step of evaluation: variables `columns` are rows @ v + offset, then v[after] = max(v[before], 0).

    `origin` names the graph's value whose entries `entries` are v[before] ("" for values inside of an op).
    """

    rows: Sparse
    offset: Array
    size: Array
    columns: Index
    before: Index
    after: Index
    origin: str
    entries: Index


@dataclass(frozen=True)
class Triangles:
    """Rows (3 K, V) <= at (3 K,): per ReLU z - h <= 0, then its chord, then h - z <= -l; `size` as in Value."""

    rows: Sparse
    at: Array
    size: Array


@dataclass(frozen=True)
class Program:
    """Variables v in lower <= v <= upper (V,), equations equal @ v = equal_at, ReLUs v[after] = max(v[before], 0).

    `outputs` gives the graph's output. `terms` bounds the number of roundings of any sum over rows or columns.
    """

    inputs: int
    lower: Array
    upper: Array
    blocks: tuple[Block, ...]
    equal: Sparse
    equal_at: Array
    equal_size: Array
    before: Index
    after: Index
    outputs: Value
    terms: int

    @property
    def size(self) -> int:
        """Number of variables."""
        return len(self.lower)

    @property
    def rounding(self) -> float:
        """What one unit of absolute terms may be off by."""
        return self.terms * UNIT

    def values(self, x: Array) -> Array:
        """All variables (V,) at an input (n,)."""
        v = np.zeros(self.size)
        v[: self.inputs] = x
        for block in self.blocks:
            v[block.columns] = block.rows @ v + block.offset
            v[block.after] = np.maximum(v[block.before], 0.0)
        return v

    def triangles(self) -> Triangles:
        """The triangle relaxation of the undecided ReLUs over the variables' bounds.

        Chords are rounded so that they lie above both ends of the ReLU.
        """
        import scipy.sparse as sparse

        low, high = self.lower[self.before], self.upper[self.before]
        count, shape = len(self.before), (len(self.before), self.size)
        spread = np.maximum(high - low, np.finfo(float).tiny)
        slope = np.clip(high / spread, 0.0, 1.0)
        bias = np.maximum(-slope * low, high - slope * high)
        bias = np.maximum(bias + 4 * UNIT * (np.abs(low) + np.abs(high)), 0.0)
        one, each = np.ones(count), np.arange(count)
        z, h = (sparse.csr_array((one, (each, columns)), shape) for columns in (self.before, self.after))
        chord = h - sparse.csr_array((slope, (each, self.before)), shape)
        rows = sparse.vstack([z - h, chord, h - z], format="csr")
        size = 3 * (np.abs(low) + np.abs(high))
        deepest = np.maximum(-low, 0.0)  # h - z = max(-z, 0), which is 0 and not negative where l > 0
        return Triangles(rows, np.concatenate([0 * one, bias, deepest]), np.tile(size, 3))


@dataclass
class Builder:
    """Collects variables and blocks while a graph is walked, up to a deadline."""

    lower: list[Array] = field(default_factory=list)
    upper: list[Array] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    count: int = 0
    terms: int = 64
    deadline: float = math.inf

    def variables(self, low: Array, high: Array) -> Index:
        """New variables with these bounds; their columns."""
        self.lower.append(low)
        self.upper.append(high)
        self.count += len(low)
        return np.arange(self.count - len(low), self.count)

    def unit(self, columns: Index) -> Value:
        """Variables as a value."""
        rows = self.chosen(len(columns), np.arange(len(columns)), columns)
        low, high = self.bounds(columns)
        return Value(rows, np.zeros(len(columns)), np.maximum(np.abs(low), np.abs(high)), low, high)

    def bounds(self, columns: Index) -> tuple[Array, Array]:
        """The bounds of variables."""
        return np.concatenate(self.lower)[columns], np.concatenate(self.upper)[columns]

    def chosen(self, count: int, entries: Index, columns: Index) -> Sparse:
        """Rows (count, V): one variable in each of `entries`, zero in the others."""
        import scipy.sparse as sparse

        return sparse.csr_array((np.ones(len(entries)), (entries, columns)), (count, self.count))

    def wide(self, rows: Sparse) -> Sparse:
        """Rows with a column for every variable there is by now."""
        import scipy.sparse as sparse

        shape = (rows.shape[0], self.count)
        return rows if rows.shape == shape else sparse.csr_array((rows.data, rows.indices, rows.indptr), shape)

    def span(self, value: Value) -> tuple[Array, Array]:
        """Bounds of a value over the variables' box, rounded outwards."""
        low, high = self.bounds(np.arange(self.count))
        rows = self.wide(value.rows)
        middle, radius = rows @ ((low + high) / 2) + value.offset, abs(rows) @ ((high - low) / 2)
        slack = (self.terms + self.count) * UNIT * value.size
        return middle - radius - slack, middle + radius + slack

    def relu(self, value: Value, origin: str = "") -> tuple[Value, Value, Array]:
        """The ReLU of a value: the value itself (with variables of its own), the result, and its sign (N,), 0: open."""
        rows = self.wide(value.rows)
        filled = np.diff(rows.indptr)
        own = (filled == 1) & (value.offset == 0.0) & (abs(rows).sum(1) == 1.0) & (rows.sum(1) == 1.0)
        low, high = self.span(value)
        slack = WIDEN * value.size
        low = np.where(own, low, np.maximum(low, value.low - slack))
        high = np.where(own, high, np.minimum(high, value.high + slack))
        columns = np.zeros(len(value), dtype=np.int64)
        columns[own] = rows[own].indices
        if own.any():
            low[own], high[own] = self.bounds(columns[own])
        low, high = np.minimum(low, high), np.maximum(low, high)
        sign = np.where(low >= 0, 1, np.where(high <= 0, -1, 0))
        fresh = ~own & ((sign == 0) | ((sign > 0) & (filled > 1)))
        columns[fresh] = self.variables(low[fresh], high[fresh])
        open_ = sign == 0
        after = self.variables(np.zeros(int(open_.sum())), high[open_])
        block = (rows[fresh], value.offset[fresh], value.size[fresh], columns[fresh])
        self.blocks.append(Block(*block, columns[open_], after, origin, np.flatnonzero(open_)))
        kept = scaled((~fresh).astype(float), self.wide(rows))
        before = kept + self.chosen(len(value), np.flatnonzero(fresh), columns[fresh])
        size = np.where(fresh, np.maximum(np.abs(low), np.abs(high)), value.size)
        whole = Value(before, np.where(fresh, 0.0, value.offset), size, low, high)
        active = scaled((sign > 0).astype(float), before)
        positive = active + self.chosen(len(value), np.flatnonzero(open_), after)
        result = Value(
            positive, np.where(sign > 0, whole.offset, 0.0), size, np.maximum(low, 0.0), np.maximum(high, 0.0)
        )
        return whole, result, sign

    def build(self, inputs: int, outputs: Value) -> Program:
        """Freeze."""
        import scipy.sparse as sparse

        blocks = [Block(self.wide(b.rows), *(getattr(b, f) for f in _REST)) for b in self.blocks]
        parts = [self.chosen(len(b.columns), np.arange(len(b.columns)), b.columns) - b.rows for b in blocks]
        empty = np.zeros(0, dtype=np.int64)
        return Program(
            inputs,
            *self.bounds(np.arange(self.count)),
            tuple(blocks),
            sparse.vstack([sparse.csr_array((0, self.count)), *parts], format="csr"),
            np.concatenate([empty, *(b.offset for b in blocks)]),
            np.concatenate([empty, *(b.size for b in blocks)]),
            np.concatenate([empty, *(b.before for b in blocks)]),
            np.concatenate([empty, *(b.after for b in blocks)]),
            Value(self.wide(outputs.rows), outputs.offset, outputs.size, outputs.low, outputs.high),
            self.terms + self.count + sum(p.shape[0] for p in parts) + 4 * sum(len(b.after) for b in blocks),
        )


def scaled(factor: Array, rows: Sparse) -> Sparse:
    """Each row times a number; rows of zeros hold nothing."""
    import scipy.sparse as sparse

    result = sparse.csr_array(sparse.diags_array(factor) @ rows)
    result.eliminate_zeros()
    return result


_REST = ("offset", "size", "columns", "before", "after", "origin", "entries")
