"""Proofs of conditions on expressions over their variables' box, and certified ranges of expressions.

The bounded graph holds networks, derivatives and everything around them; counterexamples are points at
which that graph, evaluated in float64, breaks the condition. Shape letters: n variables' numbers, B boxes, P points.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from graphs.passes.dead import drop_dead
from relaxations.sets import Box
from verif.bab import Progress
from verif.bounds import Engine
from verif.bounds.engine import OutOfTime
from verif.clauses import ClauseTable
from verif.conditions import Condition
from verif.errors import PropertyError, require_kind
from verif.expressions import Expression, Space
from verif.jacobians import require_defined
from verif.properties import over_boxes
from verif.query import Clauses, Network, Query, Variable, compile_query
from verif.rounding import EPS, noise, of_terms
from verif.verdict import Verdict
from verif.verify import POINTS, Result, verify

_BATCH, _SAMPLES, _SLIVER = 256, 4096, 16


def prove(
    condition: Condition,
    *,
    timeout: float | None = None,
    seed: int = 0,
    on_event: Callable[[Progress], None] | None = None,
) -> Result:
    """HOLDS where the condition is true for all values of its variables, VIOLATED with values for which it is not, by
    more than rounding.

    Raises PropertyError P115 where a value of some expression is not defined on all of the box.
    """
    require_kind(condition, (Condition,), "what is proved is a condition on variables, such as y <= 1")
    query = compile_condition(condition)
    require_defined(query.graph.to(torch.float64), condition.space.box)
    result = verify(None, query, timeout=timeout, seed=seed, on_event=on_event)
    if result.counterexample is not None and not _clear(query, result.counterexample.point):
        reason = "a point breaks the condition by no more than rounding may have added"
        return replace(result, verdict=Verdict.UNKNOWN, counterexample=None, reason=reason)
    return result


def _clear(query: Query, point: Tensor) -> bool:
    """Whether a point (n,) breaks the condition by more than float64 may be wrong by: numbers here are real."""
    graph, box = query.graph.to(torch.float64), Box(*query.outer())
    points = torch.cat([point[None], box.sample(POINTS, torch.Generator().manual_seed(0))[0]])
    slack = noise(query.graph.to(torch.float32), graph, points) * (EPS[torch.float64] / EPS[torch.float32])
    with torch.no_grad():
        (values,) = graph(point[None])
    gaps, _ = ClauseTable.of(query.property).gaps(values, torch.zeros(1, dtype=torch.long), -slack[None])
    return bool((ClauseTable.worst(gaps) <= 0).all())


def compile_condition(condition: Condition) -> Query:
    """The query whose unsafe set is where some clause of the condition has no literal that holds."""
    space = condition.space
    names = list(dict.fromkeys(literal.value for clause in condition.clauses for literal in clause))
    if not names:
        raise PropertyError("P112", "the condition has no comparison")
    graph, starts = _joined(space, names)
    places = {one: k for k, one in enumerate(dict.fromkeys(o for clause in condition.clauses for o in clause))}
    longest = max(map(len, condition.clauses))
    rows = torch.zeros(len(places), graph[graph.outputs[0]].size, dtype=torch.float64)
    for literal, k in places.items():
        rows[k, starts[literal.value] + literal.entry] = -literal.sign
    atoms = torch.full((len(condition.clauses), longest), -1)
    strict = torch.zeros(atoms.shape, dtype=torch.bool)
    for row, clause in enumerate(condition.clauses):
        for column, literal in enumerate(clause):
            atoms[row, column], strict[row, column] = places[literal], not literal.strict
    clauses = Clauses(atoms, torch.zeros(atoms.shape, dtype=torch.float64), strict)
    box = space.box
    property = over_boxes(Network("", graph, None), (box.lower, box.upper), rows, clauses)
    shapes = [(name, graph[name].shape) for name in graph.inputs]
    named = tuple(Variable(name, "", name, "input", shape, "float64", name) for name, shape in shapes)
    outputs = tuple(one for one in property.variables if one.kind == "output")
    query = compile_query(replace(property, variables=named + outputs), Network("", graph, None))
    return replace(query, graph=query.graph.to(torch.float64))


def _joined(space: Space, names: list[str]) -> tuple[Graph, dict[str, int]]:
    """The graph from the variables to all numbers of some nodes, and where each node's begin."""
    builder, parts, starts, end = GraphBuilder.extend(space.graph(*names)), [], {}, 0
    for name in names:
        size = builder.nodes[name].size
        parts.append(builder.add("reshape", [name], attrs={"shape": (size,)}))
        starts[name], end = end, end + size
    whole = builder.add("concat", parts, attrs={"axis": 0}) if len(parts) > 1 else parts[0]
    return drop_dead(builder.build([whole])), starts


@dataclass(frozen=True)
class Range:
    """All values of an expression lie in [lower, upper]; `least` and `most` were seen, at points (n,) of the variables.

    `boxes` were bounded in `seconds`.
    """

    lower: float
    upper: float
    least: float
    most: float
    at_least: Tensor
    at_most: Tensor
    boxes: int
    seconds: float

    @property
    def size(self) -> float:
        """An upper bound of the absolute value."""
        return max(abs(self.lower), abs(self.upper))


def certified_range(
    expression: Expression, *, timeout: float | None = 60.0, tolerance: float = 0.01, seed: int = 0
) -> Range:
    """Bounds of a number over its variables' box, by branch-and-bound until time is over or each is near a value seen.

    Near is within `tolerance` times the width of the values seen. Raises PropertyError P112 where the expression is not
    one number, and P115 where it is not defined on all of the box.
    """
    if expression.size != 1:
        raise PropertyError("P112", f"a range is of one number, the expression has {expression.size}: index it")
    started = time.monotonic()
    query = compile_condition(expression <= 0)  # its only atom is minus the expression
    graph, box = query.graph.to(torch.float64), expression.space.box
    require_defined(graph, box)
    deadline = math.inf if timeout is None else started + timeout
    points = torch.cat([box.center, box.sample(_SAMPLES, torch.Generator().manual_seed(seed))[0]])
    with torch.no_grad():
        values = -graph(points)[0][:, 0]
    width = float(values.max() - values.min())
    level = tolerance * max(width, 1e-9 * float(values.abs().max()), 1e-300)
    sides = [_Minimum(Engine(graph), sign, box, level, deadline) for sign in (-1.0, 1.0)]
    for side, place in zip(sides, (values.argmin(), values.argmax()), strict=True):
        side.see(points[place][None])
    _run(sides, deadline)
    low, high = sides
    done = low.done + high.done
    return Range(low.bound, -high.bound, low.best, -high.best, low.at, high.at, done, time.monotonic() - started)


def bounds_over(expression: Expression, boxes: Box) -> tuple[Tensor, Tensor]:
    """Bounds (B,) of a number over each of B boxes of the variables, flat and in order, from one pass; for pictures."""
    graph = compile_condition(expression <= 0).graph.to(torch.float64)
    boxes = boxes.to(torch.float64)
    found = Engine(graph).bound(boxes, torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    lower = found.lower - of_terms(found, boxes.lower, boxes.upper)
    lower = torch.where(lower.isnan(), -math.inf, lower)
    return lower[:, 0], -lower[:, 1]


def _run(sides: Sequence[_Minimum], deadline: float) -> None:
    """Steps of one search after the other until each is over, or the time."""
    try:
        while (left := [side for side in sides if len(side.bounds)]) and time.monotonic() < deadline:
            for side in left:
                side.step()
    except OutOfTime:
        pass


class _Minimum:
    """Best-first branch-and-bound for the least value of sign * output, a number, over a box (1, n)."""

    def __init__(self, engine: Engine, sign: float, box: Box, level: float, deadline: float) -> None:
        self.engine, self.level, self.deadline = engine, level, deadline
        self.rows = torch.tensor([[sign]], dtype=torch.float64)
        self.open, self.bounds = box, torch.full((1,), -math.inf, dtype=torch.float64)
        self.width = box.upper - box.lower
        self.closed, self.best, self.at, self.done = math.inf, math.inf, box.center[0], 0

    @property
    def bound(self) -> float:
        """No value is below it."""
        return min(self.closed, self.best, *self.bounds.tolist()) if len(self.bounds) else min(self.closed, self.best)

    def see(self, points: Tensor) -> None:
        """Values at points (P, n)."""
        with torch.no_grad():
            values = float(self.rows) * self.engine.graph(points)[0][:, 0]
        values = torch.where(values.isfinite(), values, math.inf)
        place = int(values.argmin())
        if float(values[place]) < self.best:
            self.best, self.at = float(values[place]), points[place]

    def step(self) -> None:
        """Bound the boxes with the lowest bounds, close what is near the best value, halve the others."""
        order = self.bounds.argsort()
        first, rest = order[:_BATCH], order[_BATCH:]
        box = Box(self.open.lower[first], self.open.upper[first])
        found = self.engine.bound(box, self.rows, deadline=self.deadline)
        lower = (found.lower - of_terms(found, box.lower, box.upper))[:, 0]
        lower = torch.where(lower.isnan(), -math.inf, lower).maximum(self.bounds[first])
        self.done += len(first)
        slopes = found.slopes[:, 0]
        self.see(torch.cat([torch.where(slopes > 0, box.lower, box.upper), box.center]))
        near = lower >= self.best - self.level
        axis = self.axes(slopes.abs(), box.upper - box.lower)
        at = torch.arange(len(axis))
        stuck = (box.center[at, axis] <= box.lower[at, axis]) | (box.center[at, axis] >= box.upper[at, axis])
        ends = near | stuck
        if bool(ends.any()):
            self.closed = min(self.closed, float(lower[ends].min()))
        halves = Box(box.lower[~ends], box.upper[~ends]).split(axis[~ends])
        self.open = Box(
            torch.cat([self.open.lower[rest], halves.lower]), torch.cat([self.open.upper[rest], halves.upper])
        )
        self.bounds = torch.cat([self.bounds[rest], lower[~ends].repeat(2)])

    def axes(self, slopes: Tensor, width: Tensor) -> Tensor:
        """Along which to halve boxes (B, n): where bounds change most, but slivers along their long side.

        Lines of a jump's bounds are the steeper, the narrower the box is, and would be halved for ever.
        """
        change = (slopes.clamp(min=1e-3 * float(slopes.max())) * width).argmax(1)
        share = width / self.width.clamp(min=1e-300)
        longest = share.argmax(1)
        sliver = share.gather(1, change[:, None])[:, 0] * _SLIVER < share.gather(1, longest[:, None])[:, 0]
        return torch.where(sliver, longest, change)
