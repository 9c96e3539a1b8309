"""Rewriting passes: each takes a graph and returns an equal one that is smaller or easier to bound."""

from __future__ import annotations

from graphs.ir import Graph
from graphs.passes.composites import recognise_composites
from graphs.passes.dead import drop_dead
from graphs.passes.fuse import fuse_affine
from graphs.passes.identity import drop_identities
from graphs.passes.merge import merge_equal


def simplify(graph: Graph) -> Graph:
    """All passes, in the order in which they help one another. The outputs keep their names."""
    graph = merge_equal(drop_identities(drop_dead(graph)))
    graph = drop_dead(recognise_composites(graph))
    return drop_dead(drop_identities(fuse_affine(graph)))
