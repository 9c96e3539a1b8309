"""Values that are computed twice."""

from __future__ import annotations

from collections.abc import Hashable

from graphs.ir import Graph, Node
from graphs.passes.rewrite import Sweep, rewrite


def merge_equal(graph: Graph) -> Graph:
    """Nodes of the same op, inputs, constants and attributes become one."""
    seen: dict[Hashable, str] = {}

    def rule(sweep: Sweep, node: Node) -> str | None:
        params = tuple((role, p.shape, p.numpy(force=True).tobytes()) for role, p in sorted(sweep.params(node).items()))
        key = (node.op, node.inputs, params, repr(sorted(node.attrs.items())))
        first = seen.setdefault(key, node.name)
        return None if first == node.name else first

    return rewrite(graph, rule)
