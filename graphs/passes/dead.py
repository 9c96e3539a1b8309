"""Values and constants that no output needs."""

from __future__ import annotations

from dataclasses import replace

from graphs.ir import INPUT, Graph


def drop_dead(graph: Graph) -> Graph:
    """Without the nodes that no output depends on (inputs stay) and the constants that no node uses."""
    alive = set(graph.outputs)
    for node in reversed(list(graph)):
        if node.name in alive:
            alive.update(node.inputs)
    nodes = {node.name: node for node in graph if node.name in alive or node.op == INPUT}
    used = {name for node in nodes.values() for name in node.params.values()}
    return replace(graph, nodes=nodes, constants={k: v for k, v in graph.constants.items() if k in used})
