"""Nodes that change nothing, and chains of nodes that move numbers around."""

from __future__ import annotations

import torch

from graphs.ir import Graph, Node
from graphs.passes.rewrite import Sweep, rewrite


def drop_identities(graph: Graph) -> Graph:
    """Without reshapes to the same shape, permutations by the identity, products with 1, and the like."""
    return rewrite(graph, _rule)


def _rule(sweep: Sweep, node: Node) -> str | None:
    if _is_identity(sweep, node):
        return node.inputs[0]
    source = sweep.node(node.inputs[0])
    if node.op != source.op or node.op not in ("reshape", "transpose", "neg"):
        return None
    if node.op == "neg":
        return source.inputs[0]
    first = sweep.node(source.inputs[0])
    if node.op == "reshape":
        attrs = {"shape": node.shape}
        nothing = first.shape == node.shape
    else:
        attrs = {"perm": tuple(source.attrs["perm"][p] for p in node.attrs["perm"])}
        nothing = attrs["perm"] == tuple(range(len(node.shape)))
    if nothing:
        return first.name
    return sweep.builder.add(node.op, [first.name], attrs=attrs, name=node.name, origin=node.origin)


def _is_identity(sweep: Sweep, node: Node) -> bool:
    """Whether the node's value is its first input's."""
    if len(node.inputs) != 1 or sweep.node(node.inputs[0]).shape != node.shape:
        return False
    match node.op:
        case "reshape" | "expand":
            return True
        case "transpose":
            return tuple(node.attrs["perm"]) == tuple(range(len(node.shape)))
        case "slice":
            return bool(node.attrs.get("step", 1) == 1)
        case "tile":
            return set(node.attrs["repeats"]) <= {1}
        case "pad":
            return not any(node.attrs["before"]) and not any(node.attrs["after"])
        case "concat":
            return not node.params
        case "sum" | "mean":
            return all(sweep.node(node.inputs[0]).shape[axis] == 1 for axis in node.attrs["axes"])
        case "scale":
            return bool((sweep.params(node)["factor"] == 1).all())
        case "shift":
            return bool((sweep.params(node)["offset"] == 0).all())
        case "gather":
            size = node.shape[node.attrs["axis"]] if node.shape else 0
            return torch.equal(sweep.params(node)["index"], torch.arange(size))
        case _:
            return False
