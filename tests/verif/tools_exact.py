"""A verdict from the exact search alone, made as `verif.verify` makes its own."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs import Graph
from relaxations.sets import Box
from verif import Verdict
from verif.bounds import Engine
from verif.clauses import ClauseTable
from verif.exact import ExactSearch
from verif.query import Property, compile_query
from verif.replay import replay
from verif.rounding import EPS, noise


@dataclass(frozen=True)
class Decided:
    """A verdict, the point of a violation, and the nodes that it took."""

    verdict: Verdict
    point: Tensor | None
    nodes: int


def decide(graph: Graph, property: Property, *, noise: float | None = None, timeout: float = 20.0) -> Decided:
    """Search every region. With a given `noise` points count in float64, without a replay."""
    query = compile_query(property, graph)
    exact, table, box = query.graph.to(torch.float64), ClauseTable.of(query.property), Box(*query.outer())
    slack = _noise(query.graph, box) if noise is None else torch.full_like(_noise(query.graph, box), noise)
    region = torch.arange(len(box.lower))
    search = ExactSearch(Engine(exact), table, box, region, slack, time.monotonic() + timeout)
    for _ in search.run():
        for point in search.points:
            if noise is None:
                violated = replay(query, point).violated
            else:
                violated = bool(
                    (table.worst(table.gaps(exact(point.expand(len(region), -1))[0], region)[0]) <= 0).any()
                )
            if violated:
                return Decided(Verdict.VIOLATED, point, search.done)
    verdict = Verdict.TIMEOUT if search.left else Verdict.UNKNOWN if search.unresolved else Verdict.HOLDS
    return Decided(verdict, None, search.done)


def _noise(graph: Graph, box: Box) -> Tensor:
    single, double = graph.to(torch.float32), graph.to(torch.float64)
    return noise(single, double, box.sample(16).flatten(0, 1)) * (EPS[torch.float64] / EPS[torch.float32])
