"""Jacobians of a user's network as graphs with one flat input, and their bounds over boxes and values at points.

Shape letters: B boxes, P points, S rows, n input numbers (all inputs of the network, flat, in order), G groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from graphs import Graph
from graphs.derivatives import jacobian
from relaxations import Interval, Relaxation
from relaxations.planes import Planes, shapes_of
from relaxations.products import corner_planes, full
from relaxations.sets import Box, InputSet
from verif.bounds import NO_ROUNDS, Engine, Pass, Rounds
from verif.errors import PropertyError
from verif.operator_norms import OperatorNorm
from verif.pivots import Pivots
from verif.properties import linear
from verif.query import Network, compile_query
from verif.rounding import of_terms

_HALVINGS, _PARTS = 16, 256  # of a box, to prove that all values are finite


def flat_rows(network: Network, rows: Any = None) -> Graph:
    """The graph from the flat input (n,) to rows . output (S,), in float64; `rows` (S, m) default to every output."""
    graph = network.graph
    n, m = sum(graph[name].size for name in graph.inputs), graph[graph.outputs[0]].size
    weight = torch.eye(m, dtype=torch.float64) if rows is None else torch.as_tensor(rows, dtype=torch.float64)
    if weight.dim() != 2 or weight.shape[1] != m:
        raise PropertyError("P112", f"rows must be a matrix with {m} columns, it has the shape {list(weight.shape)}")
    if set(map(str, _types(graph))) - {"float16", "float32", "float64"}:
        raise PropertyError("P113", f"a derivative needs inputs of floating-point type, not {_types(graph)[0]}")
    network = Network(network.name, graph.to(torch.float64), network.source)
    zeros = torch.zeros(n, dtype=torch.float64)
    return compile_query(linear(network, zeros, zeros, weight, 0.0), network).graph.to(torch.float64)


def _types(graph: Graph) -> list[str]:
    return [str(graph[name].attrs.get("dtype", "float32")) for name in graph.inputs]


@dataclass(frozen=True)
class LocalNorm:
    """An operator norm of the Jacobian of f, a graph from (n,) to (S,) in float64."""

    f: Graph
    norm: OperatorNorm
    rounds: Rounds = NO_ROUNDS

    @cached_property
    def jacobian(self) -> Graph:
        """J (S, n)."""
        return jacobian(self.f)

    @cached_property
    def engines(self) -> list[tuple[str, Engine]]:
        """Bounds of the groups' sums, for all rows together or one by one, with the names of J.

        A sweep keeps rows of J apart on its way through linear layers, but not through convolutions.
        """
        count = self.f[self.f.outputs[0]].size
        alone = not self.norm.by_columns and any(node.op.startswith("conv") for node in self.f)
        graphs = [jacobian(self.f, row[None]) for row in torch.eye(count)] if alone else [self.jacobian]
        return [(graph.outputs[0], Engine(self.norm.groups(graph))) for graph in graphs]

    @cached_property
    def pivots(self) -> Pivots:
        """The values that may be parted at their kinks."""
        return Pivots.of(self.engines[0][1].graph)

    def upper(
        self, region: InputSet, within: Mapping[str, Interval] | None = None, deadline: float = math.inf
    ) -> tuple[Tensor, Pass]:
        """An upper bound (B,) of the norm over each set, or the part of it `within` limits, and a pass that it is from.

        From linear bounds of the groups and from those of entries; -inf where no part of a set is left.
        """
        limits = {} if within is None else within
        parts = [self._bounds(*one, region, limits, deadline) for one in self.engines]
        sums, lower, upper = (torch.cat(tensors, 1) for tensors in zip(*(part[:3] for part in parts), strict=True))
        found = torch.fmin(self.norm.of_groups(sums), self.norm.of_entries(lower, upper))
        found = torch.where(found.isnan(), math.inf, found)
        empty = torch.stack([part[3].part.empty for part in parts if part[3].part is not None]).any(0)
        return torch.where(empty, -math.inf, found), parts[0][3]

    def rows(self, region: InputSet) -> Tensor:
        """Upper bounds (B, G) of the groups' sums: of the l1 norms of all rows for (inf, inf)."""
        return torch.cat([self._bounds(*one, region, {}, math.inf)[0] for one in self.engines], 1)

    def _bounds(
        self, name: str, engine: Engine, region: InputSet, within: Mapping[str, Interval], deadline: float
    ) -> tuple[Tensor, Tensor, Tensor, Pass]:
        """Upper bounds (B, G) of the groups' sums, and bounds of the entries of J, each (B, S, n)."""
        count, box = engine.graph[engine.output].size, region.box()
        rows = -torch.eye(count, dtype=torch.float64)
        found = engine.bound(region, rows, rounds=self.rounds, deadline=deadline, within=within)
        sums = found.intervals[engine.output].upper.reshape(len(found.lower), -1)
        others = _corners(engine.graph, found)
        for one in [found, engine.again(region, rows, found, others, deadline)] if others else [found]:
            sums = sums.minimum(of_terms(one, box.lower.detach(), box.upper.detach()) - one.lower)
        return sums, *found.intervals[name], found

    def matrices(self, points: Tensor) -> Tensor:
        """J (P, S, n) at points (P, n)."""
        (found,) = self.jacobian(points)
        return found


def _corners(graph: Graph, found: Pass) -> dict[str, Relaxation]:
    """Other planes for all products of a pass."""
    others: dict[str, Relaxation] = {}
    for node in graph:
        if node.op in ("mul", "smooth_chain") and node.inputs[0] != node.inputs[1]:
            inputs = [found.intervals[i] for i in node.inputs]
            others[node.name] = Planes.of(*corner_planes(*full(inputs)), found.intervals[node.name], shapes_of(inputs))
    return others


def undefined(f: Graph, box: Box) -> str:
    """The op of a value that is not proved to be finite on a whole box; "" where all are, on the box or on its parts.

    A slope says nothing across a pole, nor where there is no value.
    """
    engine, last = Engine(f), ""
    for _ in range(_HALVINGS):
        found = engine.bound(box).intervals
        finite = {name: (i.lower.isfinite() & i.upper.isfinite()).flatten(1).all(1) for name, i in found.items()}
        open_ = ~torch.stack(list(finite.values())).all(0)
        if not bool(open_.any()):
            return ""
        last = next(f[name].op for name, known in finite.items() if not bool(known.all()))
        if int(open_.sum()) > _PARTS:
            break
        left = Box(box.lower[open_], box.upper[open_])
        box = left.split(left.width.argmax(1))
    return last


def require_defined(f: Graph, region: InputSet, count: int = 64) -> None:
    """PropertyError P115 where a value of the graph is NaN or infinite at a corner, the centre or a random point."""
    box = region.box()
    points = torch.cat([box.lower, box.upper, box.center, region.sample(count)[0]])
    with torch.no_grad():
        values = f.evaluate({f.inputs[0]: points}, [node.name for node in f])
    for node in f:
        if not bool(values[node.name].isfinite().all()):
            raise PropertyError(
                "P115",
                f"'{node.op}' is not defined on all of the box",
                where=f"node '{node.origin}'",
                notes=["its value is NaN or infinite at some point"],
                help="give a box inside the model's domain",
            )
