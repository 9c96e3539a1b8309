"""Networks as the checker sees them: a list of exact real-number steps from one flat input to one flat output."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from verif.checker.errors import Refused
from verif.checker.values import Array as Array
from verif.checker.windows import Window


@dataclass(frozen=True)
class Step:
    """One value, flat. Its `op` says how it comes from the values `sources`:

    input; dense (matrix @ x + shift); scale (matrix * x + shift, entry by entry); pick (x[index]); join (side by side);
    add (x + y); mul (x y); max (of x and y); relu, sigmoid, tanh, exp, reciprocal, floor, sin, cos; jump (anything in
    [0, 1] at 0, else 0 or 1). Entries of a matrix are off by `loose` roundings.
    """

    op: str
    size: int
    sources: tuple[int, ...] = ()
    matrix: Array | Window = field(default_factory=lambda: np.empty(0))
    shift: Array = field(default_factory=lambda: np.empty(0))
    index: Array = field(default_factory=lambda: np.empty(0, np.int64))
    loose: int = 0

    @property
    def factors(self) -> Array:
        """Of a scale."""
        assert not isinstance(self.matrix, Window)
        return self.matrix


@dataclass(frozen=True)
class Network:
    """Steps in the order of evaluation; the first is the input. `output` is the place of the output's step."""

    steps: tuple[Step, ...]
    output: int

    @staticmethod
    def of(steps: list[Step], output: int) -> Network:
        """Without the steps that the output does not need."""
        needed = {0, output}
        for place in range(output, 0, -1):
            if place in needed:
                needed.update(steps[place].sources)
        at = {place: k for k, place in enumerate(sorted(needed))}
        kept = [replace(steps[place], sources=tuple(at[source] for source in steps[place].sources)) for place in at]
        return Network(tuple(kept), at[output])

    @property
    def inputs(self) -> int:
        """Numbers of the input."""
        return self.steps[0].size

    @property
    def outputs(self) -> int:
        """Numbers of the output."""
        return self.steps[self.output].size


@dataclass
class Builder:
    """Collects steps."""

    steps: list[Step] = field(default_factory=list)

    def put(self, step: Step) -> int:
        """Add one step; its place."""
        matrix = step.matrix.kernel if isinstance(step.matrix, Window) else step.matrix
        for array in (matrix, step.shift):
            if not np.isfinite(array).all():
                raise Refused("a constant of the model is not finite")
        self.steps.append(step)
        return len(self.steps) - 1

    def dense(self, source: int, matrix: Array | Window, shift: Array, loose: int = 0) -> int:
        """matrix @ x + shift."""
        matrix = matrix if isinstance(matrix, Window) else np.ascontiguousarray(matrix)
        return self.put(Step("dense", len(shift), (source,), matrix, shift, loose=loose))

    def scale(self, source: int, factor: Array, shift: Array, loose: int = 0) -> int:
        """factor * x + shift; what only adds to a matrix product becomes its own shift."""
        before = self.steps[source]
        if not loose and (factor == 1.0).all():
            if not shift.any():
                return source
            if before.op == "dense" and not before.shift.any():
                return self.dense(before.sources[0], before.matrix, shift, before.loose)
        return self.put(Step("scale", len(shift), (source,), factor, shift, loose=loose))

    def pick(self, source: int, index: Array) -> int:
        """x[index]."""
        if np.array_equal(index, np.arange(self.steps[source].size)):
            return source
        return self.put(Step("pick", len(index), (source,), index=index))

    def add(self, first: int, second: int) -> int:
        """x + y."""
        return self.put(Step("add", self.steps[first].size, (first, second)))

    def join(self, sources: list[int]) -> int:
        """Values side by side."""
        if len(sources) == 1:
            return sources[0]
        return self.put(Step("join", sum(self.steps[source].size for source in sources), tuple(sources)))

    def negated(self, source: int) -> int:
        """-x."""
        size = self.steps[source].size
        return self.scale(source, -np.ones(size), np.zeros(size))

    def mul(self, first: int, second: int) -> int:
        """x y, entry by entry."""
        return self.put(Step("mul", self.steps[first].size, (first, second)))

    def larger(self, first: int, second: int) -> int:
        """max(x, y), entry by entry."""
        return self.put(Step("max", self.steps[first].size, (first, second)))

    def bent(self, op: str, source: int) -> int:
        """relu, sigmoid, tanh, exp, reciprocal, floor, sin or cos of x."""
        return self.put(Step(op, self.steps[source].size, (source,)))
