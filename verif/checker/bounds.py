"""Linear bounds with a proved rounding error: rows are pulled back through the steps in float64.

Model of arithmetic: a sum of n products, in any order, fused or not, is off by at most gamma(n) times the sum of their
sizes (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), and where products underflow by no more
than FLOOR in all. Each rounding is charged where it happens, as a change of one row times the largest size of the value
that the row is on. Shape letters: B boxes, S rows, N numbers of a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verif.checker import convex, curves, waves
from verif.checker.errors import Refused
from verif.checker.forms import Forms
from verif.checker.lines import (
    FLOOR,
    LARGEST,
    SAFETY,
    Lines,
    Planes,
    Range,
    curve_lines,
    gamma,
    maximum_planes,
    moved,
    product_planes,
    relu_lines,
)
from verif.checker.network import Array, Network, Step
from verif.checker.windows import sizes, terms, times

CHUNK = 400_000  # numbers of a sweep's largest value: what stays in caches


@dataclass(frozen=True)
class Rows:
    """Sound lower bounds of rows (B, S), and their slopes in the input (B, S, n), which are not bounds."""

    lower: Array
    slopes: Array


class Bounds:
    """The values of a network over boxes lower <= x <= upper, (B, n) each; ends are exact."""

    def __init__(self, network: Network, lower: Array, upper: Array) -> None:
        self.network = network
        self.ranges: list[Range] = [Range(lower, upper)]
        self.masses: list[Array] = [lower[:, :0]]
        self.lines: dict[int, Lines] = {}
        self.planes: dict[int, Planes] = {}
        self._require(0)
        self.forms = Forms(lower, upper)
        for place, step in enumerate(network.steps[1:], 1):
            self._visit(place, step)
            self._require(place)

    def _require(self, place: int) -> None:
        self._require_small(self.ranges[place])

    def _require_small(self, held: Range) -> None:
        if not (held.size <= LARGEST).all():
            raise Refused("values too large to be checked")

    def _open(self, place: int) -> Array:
        """The numbers of a value that vary, (B, N)."""
        found: Array = self.ranges[place].lower < self.ranges[place].upper
        return found

    def _visit(self, place: int, step: Step) -> None:
        """The range of a step's value; before a ReLU, by rows on its input where signs are open."""
        first = self.ranges[step.sources[0]]
        mass, loose = first.lower[:, :0], step.loose
        if step.op == "dense":
            absolute = sizes(step.matrix)
            mass = times(absolute, first.size) + np.abs(step.shift)
            middle = first.lower / 2 + first.upper / 2
            radius = first.upper / 2 - first.lower / 2
            centre, spread = times(step.matrix, middle) + step.shift, times(absolute, radius)
            error = SAFETY * 3 * gamma(terms(step.matrix) + 3 + loose) * mass + FLOOR
            found = Range(centre - spread - error, centre + spread + error)
        elif step.op == "scale":
            mass = first.size * np.abs(step.factors) + np.abs(step.shift)
            ends = np.stack([first.lower * step.factors, first.upper * step.factors])
            error = SAFETY * gamma(2 + loose) * mass + FLOOR
            found = Range(ends.min(0) + step.shift - error, ends.max(0) + step.shift + error)
        elif step.op == "pick":
            found = moved(step, [first])
        elif step.op == "join":
            held = [self.ranges[source] for source in step.sources]
            found = Range(*(np.concatenate([getattr(r, end) for r in held], 1) for end in ("lower", "upper")))
        elif step.op == "add":
            second = self.ranges[step.sources[1]]
            error = SAFETY * gamma(2) * (first.size + second.size) + FLOOR
            found = Range(first.lower + second.lower - error, first.upper + second.upper + error)
        elif step.op == "relu":
            first = self._tightened(step.sources[0], (first.lower < 0) & (first.upper > 0))
            self.lines[place] = relu_lines(first)
            found = moved(step, [first])
        elif step.op == "max":
            first, second = (self.ranges[source] for source in step.sources)
            overlap = (first.lower < second.upper) & (second.lower < first.upper)
            first, second = (self._tightened(source, overlap) for source in step.sources)
            self.planes[place] = maximum_planes(first, second)
            found = moved(step, [first, second])
        elif step.op == "jump":
            first = self._tightened(step.sources[0], (first.lower <= 0) & (first.upper >= 0))
            found = Range((first.lower > 0).astype(float), (first.upper >= 0).astype(float))
            flat = np.zeros_like(found.lower)
            self.lines[place] = Lines(flat, found.lower, flat, found.upper)
        elif step.op == "mul":
            first, second = (self._tightened(source, self._open(source)) for source in step.sources)
            self.planes[place] = product_planes(first, second)
            corners = np.stack([a * b for a in (first.lower, first.upper) for b in (second.lower, second.upper)])
            error = gamma(2) * first.size * second.size + FLOOR
            found = Range(corners.min(0) - error, corners.max(0) + error)
        else:
            first = self._tightened(step.sources[0], self._open(step.sources[0]))
            if step.op == "floor":
                found = Range(np.floor(first.lower), np.floor(first.upper))
            else:
                bent = convex if step.op in convex.CONVEX else waves if step.op in waves.WAVES else curves
                found = Range(*bent.ends(step.op, first.lower, first.upper))
            self._require_small(found)
            self.lines[place] = curve_lines(step.op, first)
        given = [self.ranges[source] for source in step.sources]
        self.ranges.append(self.forms.step(step, given, self.lines.get(place), found))
        self.masses.append(mass)

    def _tightened(self, place: int, wanted: Array) -> Range:
        """The range of a step's value, with rows for the numbers `wanted` (B, N); of numbers that were picked, bent or
        are the larger of two, by rows on what they come from.
        """
        held, open_, step = self.ranges[place], np.flatnonzero(wanted.any(0)), self.network.steps[place]
        if not len(open_) or place <= 1:  # the first step's range is that of its rows
            return held
        if step.op in ("pick", "relu", "max"):
            before = wanted
            if step.op == "pick":
                before = np.zeros(self.ranges[step.sources[0]].lower.shape, bool)
                np.logical_or.at(before.T, step.index, wanted.T)
            self.ranges[place] = moved(step, [self._tightened(source, before) for source in step.sources])
            return self.ranges[place]
        if step.op not in ("dense", "scale", "add", "join", "mul"):  # whose range is an image of tightened ones
            return held
        unit = np.zeros((len(open_), held.lower.shape[1]))
        unit[np.arange(len(open_)), open_] = 1.0
        found = self.rows(place, np.concatenate([unit, -unit])).lower
        # A box's own numbers only: what a box shows must not depend on its neighbours.
        low = np.where(wanted[:, open_], found[:, : len(open_)], -np.inf)
        high = np.where(wanted[:, open_], -found[:, len(open_) :], np.inf)
        lower, upper = held.lower.copy(), held.upper.copy()
        lower[:, open_] = np.fmax(lower[:, open_], low)
        upper[:, open_] = np.fmin(upper[:, open_], high)
        # Both ends are sound: where they cross, the box is one number seen twice with errors.
        self.ranges[place] = Range(np.minimum(lower, upper), np.maximum(lower, upper))
        return self.ranges[place]

    def rows(self, place: int, rows: Array) -> Rows:
        """Lower bounds of rows (S, N) on the value of a step, some rows at a time."""
        count = len(self.ranges[0].lower)
        most = max(16, CHUNK // (count * max(step.size for step in self.network.steps[: place + 1])))
        parts = []
        for first in range(0, len(rows), most):
            part = rows[first : first + most]
            parts.append(self._swept(place, np.broadcast_to(part, (count, *part.shape))))
        return Rows(*(np.concatenate([getattr(part, name) for part in parts], 1) for name in ("lower", "slopes")))

    def _swept(self, place: int, rows: Array) -> Rows:
        return Sweep(self, place, rows).run(place)


class Sweep:
    """One pull of rows to the input: coefficients by step (B, S, N); bias, magnitude and error (B, S)."""

    def __init__(self, bounds: Bounds, place: int, rows: Array) -> None:
        self.bounds = bounds
        self.terms: dict[int, Array] = {place: rows}
        self.bias = np.zeros(rows.shape[:2])
        self.magnitude = np.zeros(rows.shape[:2])
        self.error = np.zeros(rows.shape[:2])

    def run(self, place: int) -> Rows:
        """Pull back to the input, and take the least over each box."""
        for at in range(place, 0, -1):
            if at in self.terms:
                self._pull(at, self.bounds.network.steps[at], self.terms.pop(at))
        box = self.bounds.ranges[0]
        slopes = self.terms.get(0, np.zeros((*self.bias.shape, box.lower.shape[1])))
        low = dot(np.maximum(slopes, 0.0), box.lower) + dot(np.minimum(slopes, 0.0), box.upper)
        size = dot(np.abs(slopes), box.size)
        terms = 2 * slopes.shape[2] + 4 * len(self.bounds.network.steps)
        error = SAFETY * (self.error + gamma(terms) * (self.magnitude + size)) + FLOOR
        error = np.where(self.magnitude + size <= LARGEST, error, np.inf)
        with np.errstate(invalid="ignore"):
            return Rows(np.nextafter(low + self.bias - error, -np.inf), slopes)

    def _pull(self, at: int, step: Step, rows: Array) -> None:
        size = self.bounds.ranges[step.sources[0]].size
        if step.op == "dense":
            self._shift(at, step, rows, gamma(step.size + step.loose))
            self._send(step.sources[0], times(step.matrix.T, rows))
        elif step.op == "scale":
            self._shift(at, step, rows, gamma(2 + step.loose))
            self._send(step.sources[0], rows * step.factors)
        elif step.op == "pick":
            self._send(step.sources[0], self._gathered(at, step, rows, size.shape[1]))
        elif step.op == "join":
            first = 0
            for source in step.sources:
                last = first + self.bounds.network.steps[source].size
                self._send(source, rows[..., first:last])
                first = last
        elif step.op == "add":
            for source in step.sources:
                self._send(source, rows)
        elif step.op in ("mul", "max"):
            self._pull_pair(step, self.bounds.planes[at], rows)
        else:
            lines, minus, plus = self._lines(at), np.minimum(rows, 0.0), np.maximum(rows, 0.0)
            shift, mass = dot(minus, lines.shift), -dot(minus, np.abs(lines.shift))
            if step.op != "relu":  # whose lines below go through 0
                shift, mass = shift + dot(plus, lines.base), mass + dot(plus, np.abs(lines.base))
            self._bias(shift, mass, 2 * step.size)
            plus *= lines.lower[:, None]
            minus *= lines.upper[:, None]
            plus += minus
            self.error += gamma(2) * dot(np.abs(plus, out=minus), size)
            self._send(step.sources[0], self._multiplied(at, plus))

    def _gathered(self, at: int, step: Step, rows: Array, size: int) -> Array:
        """Rows on what was picked from; where an entry was picked several times, sums."""
        moved = np.zeros((*rows.shape[:2], size))
        order = np.argsort(step.index, kind="stable")
        _, starts, counts = np.unique(step.index[order], return_index=True, return_counts=True)
        for turn in range(counts.max()):
            own = order[starts[counts > turn] + turn]
            moved[..., step.index[own]] += rows[..., own]
        if counts.max() > 1:
            self.error += gamma(int(counts.max())) * dot(np.abs(rows), self.bounds.ranges[at].size)
        return moved

    def _shift(self, at: int, step: Step, rows: Array, share: float) -> None:
        """What a linear step's constants add, no larger than its mass, which also bounds what rounding does."""
        mass = dot(np.abs(rows), self.bounds.masses[at])
        self.error += share * mass
        if step.shift.any():
            self._bias(rows @ step.shift, mass, step.size)

    def _lines(self, at: int) -> Lines:
        return self.bounds.lines[at]

    def _multiplied(self, at: int, sent: Array) -> Array:
        """Rows on a bent step's input with what is known of its signs."""
        return sent

    def _pull_pair(self, step: Step, planes: Planes, rows: Array) -> None:
        minus, plus = np.minimum(rows, 0.0), np.maximum(rows, 0.0)
        for source, low, high in zip(step.sources, planes.lower, planes.upper, strict=True):
            sent = plus * low[:, None] + minus * high[:, None]
            self.error += gamma(2) * dot(np.abs(sent), self.bounds.ranges[source].size)
            self._send(source, sent)
        shift = dot(plus, planes.base) + dot(minus, planes.shift)
        self._bias(shift, dot(plus, np.abs(planes.base)) - dot(minus, np.abs(planes.shift)), 2 * step.size)

    def _bias(self, value: Array, size: Array, count: int) -> None:
        self.bias = self.bias + value
        self.magnitude += size
        self.error += gamma(count) * size

    def _send(self, source: int, rows: Array) -> None:
        if source in self.terms:
            rows = self.terms[source] + rows
            self.error += gamma(2) * dot(np.abs(rows), self.bounds.ranges[source].size)
        self.terms[source] = rows


def dot(rows: Array, vector: Array) -> Array:
    """rows (B, S, N) with vectors (B, N): (B, S)."""
    found: Array = np.matmul(rows, vector[..., None])[..., 0]
    return found
