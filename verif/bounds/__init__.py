"""Bound engines: interval, forward and backward linear bounds of a graph over sets of inputs."""

from __future__ import annotations

from torch import Tensor

from graphs import Graph
from relaxations import Interval
from relaxations.sets import InputSet
from verif.bounds.engine import Engine as Engine, Pass as Pass
from verif.bounds.tiles import NO_ROUNDS as NO_ROUNDS, Rounds as Rounds

ROUNDS = Rounds(6, 20)  # reach what twenty rounds of Adam with its usual settings reach (see docs/performance.md)


def interval(graph: Graph, region: InputSet) -> Interval:
    """Interval bounds of the output, each (B, *N)."""
    return Engine(graph).interval(region)[graph.outputs[0]]


def crown(graph: Graph, region: InputSet, rows: Tensor | None = None) -> Tensor:
    """CROWN lower bounds (B, S) of rows . output; rows (S, M) or (B, S, M), default every output entry."""
    return Engine(graph).bound(region, rows).lower


def optimised(graph: Graph, region: InputSet, rows: Tensor | None = None, rounds: Rounds = ROUNDS) -> Tensor:
    """The same with optimised slopes (alpha-CROWN, Xu et al. 2021) where the network allows it: see `tiles.py`."""
    return Engine(graph).bound(region, rows, rounds=rounds).lower
