"""Checking that a graph is well formed."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from graphs.errors import GraphError
from graphs.ir import INPUT, Graph, Node
from graphs.ops import OPS


def check(graph: Graph, *, shapes: bool = True) -> None:
    """Raise GraphError G107 where the graph breaks a rule of the IR; without `shapes` no op is run."""
    problem = next(_problems(graph, shapes), None)
    if problem is not None:
        where, message = problem
        raise GraphError(
            "G107", message, where=where, help="this is a defect of the pass or importer that made the graph"
        )


def _problems(graph: Graph, shapes: bool) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for key, node in graph.nodes.items():
        where = f"node '{node.name}' ({node.op})"
        yield from ((where, message) for message in _node(graph, key, node, seen))
        if shapes and node.op != INPUT:
            yield from ((where, message) for message in _shape(graph, node))
        seen.add(node.name)
    inputs = [node.name for node in graph if node.op == INPUT]
    if list(graph.inputs) != inputs:
        yield "graph", f"the inputs are {list(graph.inputs)} but the input nodes are {inputs}"
    if not graph.outputs:
        yield "graph", "there is no output"
    yield from (("graph", f"output '{name}' does not exist") for name in graph.outputs if name not in graph.nodes)
    for name, value in graph.constants.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            yield f"constant '{name}'", "it holds NaN or infinite numbers"


def _node(graph: Graph, key: str, node: Node, seen: set[str]) -> Iterator[str]:
    if key != node.name:
        yield f"it is stored under another name, '{key}'"
    if node.op != INPUT and node.op not in OPS:
        yield f"there is no op '{node.op}' in the op table"
    if node.op != INPUT and not node.inputs:
        yield "it has no inputs"
    yield from (f"it reads '{name}', which is not computed before it" for name in node.inputs if name not in seen)
    missing = (f"{role} '{name}'" for role, name in node.params.items() if name not in graph.constants)
    yield from (f"its {what} does not exist" for what in missing)
    if not node.origin:
        yield "it has no origin"


def _shape(graph: Graph, node: Node) -> Iterator[str]:
    dtype = next((c.dtype for c in graph.constants.values() if c.is_floating_point()), torch.float64)
    zeros = [torch.zeros(1, *graph[name].shape, dtype=dtype) for name in node.inputs]
    try:
        with torch.no_grad():
            shape = tuple(graph.apply(node, zeros).shape[1:])
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        yield f"it cannot be computed: {str(error).splitlines()[0]}"
        return
    if shape != node.shape:
        yield f"its shape is {list(node.shape)} but it computes {list(shape)}"
