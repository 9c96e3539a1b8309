"""Rewriting passes: each takes a graph and returns an equal one that is smaller or easier to bound."""

from __future__ import annotations

from graphs.ir import Graph
from graphs.passes.dead import drop_dead


def simplify(graph: Graph) -> Graph:
    """All passes, in the order in which they help one another."""
    return drop_dead(graph)
