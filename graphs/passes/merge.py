"""Values that are computed twice."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from graphs.ir import Graph, Node
from graphs.passes.rewrite import Sweep, rewrite


def merge_equal(graph: Graph) -> Graph:
    """Nodes of the same op, inputs, constants and attributes become one."""
    seen: dict[Hashable, list[Node]] = {}

    def rule(sweep: Sweep, node: Node) -> str | None:
        alike = seen.setdefault((node.op, node.inputs, tuple(node.params), repr(sorted(node.attrs.items()))), [])
        own = sweep.params(node)
        for other in alike:
            if all(torch.equal(value, own[role]) for role, value in sweep.params(other).items()):
                return other.name
        alike.append(node)
        return None

    return rewrite(graph, rule)
