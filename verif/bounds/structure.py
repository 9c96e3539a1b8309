"""What the shape of a graph says about bounds before any number is known."""

from __future__ import annotations

from graphs import Graph
from graphs.ir import INPUT, Node
from graphs.ops import OPS, Kind

KEEP = {"reshape", "transpose", "shift", "neg", "slice"}  # one input entry each, none used twice
CHOOSE = KEEP | {"scale", "gather", "pick", "pad", "expand", "tile", "concat", "scatter", "select"}  # one entry each


def exact_nodes(graph: Graph) -> frozenset[str]:
    """Nodes whose interval over a *box* of inputs is exact, entry by entry: no backward sweep can improve it.

    True while every entry depends on one input entry ("independent"), and for one linear map of independent entries.
    """
    independent: set[str] = set()
    exact: set[str] = set()
    for node in graph:
        if node.op == INPUT:
            independent.add(node.name)
            exact.add(node.name)
            continue
        alone = len(node.inputs) == 1 and node.inputs[0] in independent
        if _single(node) and alone and (node.op in KEEP or OPS[node.op].kind is Kind.SCALAR or _same_size(graph, node)):
            independent.add(node.name)
        if (_single(node) and all(i in exact for i in node.inputs)) or (OPS[node.op].kind is Kind.AFFINE and alone):
            exact.add(node.name)
    return frozenset(exact)


def _single(node: Node) -> bool:
    """Whether every output entry is a function of one input entry."""
    return node.op in CHOOSE or OPS[node.op].kind is Kind.SCALAR


def _same_size(graph: Graph, node: Node) -> bool:
    return node.op == "scale" and node.size == graph[node.inputs[0]].size
