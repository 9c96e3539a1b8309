"""How much the planes of ops that are not affine can pass on: of sizes, and of errors (see `verif.roundoff`).

Slopes of planes are means of the function's slopes inside the box (McCormick planes: of the ends), so that bounds of
these over a box hold for the planes over every box inside. In floating point a chord may be a little steeper: between
points that are nearer than sqrt(eps) no difference is taken (`CurveRule._secant`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from relaxations import RULES, Call, Interval
from relaxations.scalar.rule import ScalarRule
from relaxations.sets import Box

LARGER = {"max_pool", "reduce_max", "reduce_min", "maximum", "minimum"}
PRODUCTS = {"mul", "div", "matmul"}
INTERCEPT = 4.0  # times the sizes of a plane's other terms and of the op's values


@dataclass(frozen=True)
class Carry:
    """What one op passes on: `through` sizes (1, *N_in) of its inputs; its values and the intercepts of its planes are
    no larger than `level`.
    """

    call: Call
    weights: tuple[Tensor, ...]
    level: Tensor

    def through(self, sizes: Sequence[Tensor]) -> Tensor:
        """The largest sum of |slope| size for any plane."""
        op = self.call.node.op
        if op in ("maximum", "minimum"):
            return sizes[0].maximum(sizes[1])
        if op in LARGER:
            return -self.call.forward(-sizes[0]) if op == "reduce_min" else self.call.forward(sizes[0])
        if op == "matmul":
            return sizes[0] @ self.weights[0] + self.weights[1] @ sizes[1]
        return sum((w * size for w, size in zip(self.weights[1:], sizes[1:], strict=True)), self.weights[0] * sizes[0])


def known(op: str) -> bool:
    """Whether `carry` knows the op."""
    return op in LARGER | PRODUCTS or isinstance(RULES.get(op), ScalarRule)


def carry(call: Call, held: Sequence[Interval], eps: float) -> Carry | None:
    """For boxes inside `held`, (1, *N_in) each; None for ops without such bounds."""
    op, rule = call.node.op, RULES[call.node.op]
    tops = [ends.lower.abs().maximum(ends.upper.abs()) for ends in held]
    if op in LARGER:
        found = Carry(call, (), torch.zeros(()))
    elif op in PRODUCTS:
        found = Carry(call, _factors(op, held, tops), torch.zeros(()))
    elif isinstance(rule, ScalarRule):
        slopes = rule.slopes(call, held[0])
        if slopes is None:
            return None
        steep = slopes.lower.abs().maximum(slopes.upper.abs())
        value = top(rule.interval(call, held))
        chord = 16 * math.sqrt(eps) * (steep + value / (1 + (held[0].lower + held[0].upper).abs() / 2))
        found = Carry(call, ((steep + chord).nan_to_num(nan=math.inf),), value)
    else:
        return None
    level = INTERCEPT * (found.through(tops) + top(rule.interval(call, held)))
    return Carry(call, found.weights, level.nan_to_num(nan=math.inf))


def top(ends: Interval) -> Tensor:
    """The largest absolute values; inf where nothing is known."""
    return ends.lower.abs().maximum(ends.upper.abs()).nan_to_num(nan=math.inf)


def _factors(op: str, held: Sequence[Interval], tops: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    if op != "div":
        return tops[1], tops[0]
    low = torch.where(held[1].lower > 0, held[1].lower, -held[1].upper)
    inverse = torch.where(low > 0, 1 / low, math.inf)
    return inverse, tops[0] * inverse * inverse


def ranges(graph: Graph, box: Box) -> dict[str, Interval]:
    """Intervals (1, *N) of every node, by one pass forward in float64 over the hull of boxes (B, n)."""
    lower, upper = box.lower.amin(0, keepdim=True), box.upper.amax(0, keepdim=True)
    values = {graph.inputs[0]: Interval(lower.double(), upper.double())}
    for node in graph:
        if node.op != INPUT:
            values[node.name] = RULES[node.op].interval(Call.of(graph, node), [values[name] for name in node.inputs])
    return values


def widened(held: Mapping[str, Interval], names: Sequence[str], errors: Mapping[str, Tensor]) -> list[Interval]:
    """Intervals of some nodes with room for what rounding may do to those of boxes inside."""
    found = []
    for name in names:
        low, high = held[name]
        found.append(Interval(low - 4 * errors[name], high + 4 * errors[name]))
    return found
