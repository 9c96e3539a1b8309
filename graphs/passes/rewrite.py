"""The loop that passes share: one sweep in topological order in which a rule may replace each node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from torch import Tensor

from graphs.ir import INPUT, Graph, GraphBuilder, Node

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Sweep:
    """What a rule sees: the graph built so far, the old readers of each value, and how often new values are read; the
    values of `moving` constants are today's only (parameters in training).
    """

    builder: GraphBuilder
    old: Graph
    readers: dict[str, list[Node]]
    uses: dict[str, int]
    moving: frozenset[str] = frozenset()

    def node(self, name: str) -> Node:
        """A node of the new graph."""
        return self.builder.nodes[name]

    def free(self, maker: Node) -> bool:
        """Whether a node of the new graph has one reader only, into which it may go."""
        return self.uses[maker.name] == 1 and maker.name not in self.old.outputs

    def between(
        self,
        op: str,
        source: str,
        node: Node,
        *,
        params: Mapping[str, Tensor] = _NONE,
        attrs: Mapping[str, Any] = _NONE,
    ) -> str:
        """Add a node in front of the one that is to replace `node`, which alone will read it."""
        name = self.builder.add(op, [source], params, attrs, name=f"{node.name}:{op}", origin=node.origin)
        self.uses[name] = 1
        return name

    def fixed(self, node: Node) -> bool:
        """Whether the constants of a node stay what they are."""
        return self.moving.isdisjoint(node.params.values())

    def params(self, node: Node) -> dict[str, Tensor]:
        """The constants of a node of the new graph by role."""
        return {role: self.builder.constants[name] for role, name in node.params.items()}


Rule = Callable[[Sweep, Node], str | None]


def rewrite(graph: Graph, rule: Rule, moving: frozenset[str] = frozenset()) -> Graph:
    """Offer every node (with its inputs already replaced) to `rule`, which returns the name of a value that replaces
    it, or None to keep it. Outputs keep their names: what replaces one takes its name over, where it can.
    """
    readers = graph.consumers()
    sweep = Sweep(GraphBuilder(constants=dict(graph.constants)), graph, readers, {}, moving)
    builder, names, taken = sweep.builder, dict[str, str](), dict[str, str]()
    for old in graph:
        node = replace(old, inputs=tuple(names[name] for name in old.inputs))
        new = None if node.op == INPUT else rule(sweep, node)
        if new not in (None, node.name) and node.name in graph.outputs:
            if new in builder.inputs or new in graph.outputs or new in taken:
                new = None
            else:
                taken[str(new)] = node.name
        if new is None:
            builder.nodes[node.name] = node
            builder.inputs += [node.name] if node.op == INPUT else []
            new = node.name
        names[old.name] = new
        count = len(readers[old.name]) + graph.outputs.count(old.name)
        sweep.uses[new] = sweep.uses.get(new, 0) + count
    return rename(builder.build([names[name] for name in graph.outputs]), taken)


def rename(graph: Graph, names: dict[str, str]) -> Graph:
    """Other names for values."""
    if not names:
        return graph
    nodes = {
        names.get(node.name, node.name): replace(
            node,
            name=names.get(node.name, node.name),
            inputs=tuple(names.get(name, name) for name in node.inputs),
        )
        for node in graph
    }
    inputs, outputs = (tuple(names.get(name, name) for name in group) for group in (graph.inputs, graph.outputs))
    return Graph(nodes, inputs, outputs, graph.constants)
