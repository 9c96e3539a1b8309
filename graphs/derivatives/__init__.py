"""Differentiation of graphs: a graph in, a graph of the same ops out.

The result is an ordinary graph, so every engine and every property works on it; applied twice it gives second
derivatives (of smooth networks: a kink has no second derivative). Shape letters: S rows, N one value's shape,
M the output's numbers.
"""

from __future__ import annotations

from torch import Tensor, eye

from graphs.derivatives.rules import JUMPING, pulled
from graphs.derivatives.tape import Cotangent, Tape
from graphs.errors import GraphError, UnsupportedError
from graphs.ir import INPUT, Graph, GraphBuilder
from graphs.passes.dead import drop_dead

COTANGENT, TANGENT = "cotangent", "tangent"


def jacobian(graph: Graph, rows: Tensor | None = None, *, output: str | None = None, wrt: str | None = None) -> Graph:
    """The graph whose output (S, *N) is the derivative of rows . output by the value `wrt`, of shape N.

    `rows` (S, M) are linear functions of the flat output (default: every entry); `output` defaults to the first one,
    `wrt` to the first input. At a kink the derivative is one of the limits from either side.
    Raises UnsupportedError (G301) where an op on the way has no derivative.
    """
    output, wrt = _names(graph, output, wrt)
    tape = Tape(graph, GraphBuilder.extend(graph))
    size = graph[output].size
    seed = eye(size, dtype=tape.dtype) if rows is None else rows.to(tape.dtype)
    if seed.dim() != 2 or seed.shape[1] != size:
        raise GraphError("G302", f"the rows have the shape {list(seed.shape)}, the output has {size} numbers")
    found = backward(tape, output, seed.reshape(len(seed), *graph[output].shape), wrt)
    return drop_dead(tape.builder.build([found]))


def vjp(graph: Graph, *, output: str | None = None, wrt: str | None = None) -> Graph:
    """The graph of c^T J, shaped like `wrt`, with one more input "cotangent" c that is shaped like the output."""
    output, wrt = _names(graph, output, wrt)
    builder = GraphBuilder.extend(graph)
    c = builder.input(COTANGENT, graph[output].shape)
    tape = Tape(graph, builder)
    found = backward(tape, output, tape.row(c), wrt)
    last = builder.add("reshape", [found], attrs={"shape": graph[wrt].shape}, name="vjp")
    return drop_dead(builder.build([last]))


def jvp(graph: Graph, *, output: str | None = None, wrt: str | None = None) -> Graph:
    """The graph of J t, shaped like the output, with one more input "tangent" t that is shaped like `wrt`.

    It is the transpose of the transpose: c^T J is linear in c, and its derivative by c along t is J t.
    """
    output, wrt = _names(graph, output, wrt)
    back = vjp(graph, output=output, wrt=wrt)
    builder = GraphBuilder.extend(back)
    t = builder.input(TANGENT, graph[wrt].shape)
    tape = Tape(back, builder)
    c = back.inputs[-1]
    found = backward(tape, back.outputs[0], tape.row(t), c)
    last = builder.add("reshape", [found], attrs={"shape": graph[output].shape}, name="jvp")
    whole = drop_dead(builder.build([last]))
    nodes = {name: node for name, node in whole.nodes.items() if name != c}
    return Graph(nodes, tuple(name for name in whole.inputs if name != c), whole.outputs, whole.constants)


def backward(tape: Tape, output: str, seed: Cotangent, wrt: str) -> str:
    """The node (S, *N) of the value `wrt` for a seed (S, *N_out) of the value `output`, added to the tape's builder."""
    graph = tape.graph
    reached = {wrt}
    for node in graph:
        if any(name in reached for name in node.inputs):
            reached.add(node.name)
    cotangents: dict[str, Cotangent] = {output: seed} if output in reached else {}
    for node in reversed(list(graph)):
        if node.name == wrt or node.op == INPUT or node.name not in cotangents:
            continue
        jumping = [node.inputs[place] for place in JUMPING.get(node.op, ())]
        if any(name in reached for name in jumping):
            raise UnsupportedError(
                "G301", f"'{node.op}' jumps where its choice changes: no derivative", where=f"node '{node.origin}'"
            )
        parts = pulled(tape, node, cotangents.pop(node.name))
        for name, part in zip(node.inputs, parts, strict=True):
            if part is not None and name in reached:
                cotangents[name] = tape.plus(cotangents[name], part) if name in cotangents else part
    found = cotangents.get(wrt)
    if found is None:
        found = seed.new_zeros(len(seed), *graph[wrt].shape) if isinstance(seed, Tensor) else _zeros(tape, seed, wrt)
    return tape.constant(found, wrt) if isinstance(found, Tensor) else found


def _zeros(tape: Tape, seed: str, wrt: str) -> Tensor:
    return tape.number(0.0).expand(tape.builder.nodes[seed].shape[0], *tape.graph[wrt].shape)


def _names(graph: Graph, output: str | None, wrt: str | None) -> tuple[str, str]:
    names = graph.outputs[0] if output is None else output, graph.inputs[0] if wrt is None else wrt
    for name in names:
        if name not in graph.nodes:
            raise GraphError("G302", f"the graph has no value '{name}'")
    return names
