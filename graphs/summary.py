"""What a graph is, in numbers: for a person who looks at a model before verifying it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from graphs.ir import INPUT, Graph, Node
from graphs.ops import OPS


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its shape without the batch, and its element type in the user's model."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class OpCount:
    """How often an op occurs, its kind ("affine", "scalar", "bilinear", "custom"), and how many numbers it makes."""

    op: str
    kind: str
    nodes: int
    values: int


@dataclass(frozen=True)
class Summary:
    """Ops by falling number of values; `parameters` counts the numbers in constants, `values` those in all nodes.

    `largest` is the node with the most numbers; `nonlinear` counts the values of all ops that are not affine.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    ops: tuple[OpCount, ...]
    nodes: int
    parameters: int
    values: int
    nonlinear: int
    largest: Node


def summary(graph: Graph) -> Summary:
    """Count what a graph holds (its own nodes, which after `simplify` are fewer than the user's)."""
    computed = [node for node in graph if node.op != INPUT]
    count, size = Counter(node.op for node in computed), Counter[str]()
    for node in computed:
        size[node.op] += node.size
    ops = [OpCount(op, OPS[op].kind.value, count[op], size[op]) for op in count]
    dtype = str(graph[graph.inputs[0]].attrs["dtype"])
    return Summary(
        inputs=tuple(Port(name, graph[name].shape, str(graph[name].attrs["dtype"])) for name in graph.inputs),
        outputs=tuple(_output(graph[name], dtype) for name in graph.outputs),
        ops=tuple(sorted(ops, key=lambda row: (-row.values, row.op))),
        nodes=len(computed),
        parameters=sum(value.numel() for value in graph.constants.values()),
        values=sum(node.size for node in graph),
        nonlinear=sum(row.values for row in ops if row.kind != "affine"),
        largest=max(graph, key=lambda node: node.size),
    )


def _output(node: Node, dtype: str) -> Port:
    """Positions are integers; everything else has the element type of the inputs."""
    return Port(node.name, node.shape, "int64" if node.op == "arg_max" else dtype)
