"""Networks in exact rational numbers, for single points of small networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from verif.checker.convex import CONVEX
from verif.checker.curves import CURVES
from verif.checker.errors import Refused
from verif.checker.network import Array, Network, Step
from verif.checker.waves import WAVES
from verif.checker.windows import Window, unfolded

MOST = 300_000  # products


def evaluate(network: Network, point: Sequence[Fraction]) -> list[Fraction]:
    """The outputs at a point."""
    if sum(step.matrix.work if isinstance(step.matrix, Window) else step.matrix.size for step in network.steps) > MOST:
        raise Refused("the network is too large for exact arithmetic")
    if any(step.loose or step.op in ("jump", *CURVES, *CONVEX, *WAVES) for step in network.steps):
        raise Refused("values of this network are not rational numbers")
    values = [list(point)]
    for step in network.steps[1:]:
        values.append(_value(step, [values[source] for source in step.sources]))
    return values[network.output]


def _value(step: Step, given: list[list[Fraction]]) -> list[Fraction]:
    first = given[0]
    if step.op == "dense":
        matrix = unfolded(step.matrix, len(first))
        return [combined(row, first) + Fraction(shift) for row, shift in zip(matrix, step.shift, strict=True)]
    if step.op == "scale":
        return [Fraction(f) * x + Fraction(s) for f, x, s in zip(step.factors, first, step.shift, strict=True)]
    if step.op == "pick":
        return [first[index] for index in step.index]
    if step.op == "join":
        return [x for part in given for x in part]
    if step.op == "add":
        return [x + y for x, y in zip(first, given[1], strict=True)]
    if step.op == "mul":
        return [x * y for x, y in zip(first, given[1], strict=True)]
    if step.op == "max":
        return [max(x, y) for x, y in zip(first, given[1], strict=True)]
    if step.op == "floor":
        return [Fraction(math.floor(x)) for x in first]
    return [max(x, Fraction(0)) for x in first]


def combined(row: Array, values: Sequence[Fraction]) -> Fraction:
    """The sum of a row's floats times values."""
    return sum((Fraction(float(row[place])) * values[place] for place in row.nonzero()[0].tolist()), Fraction(0))
