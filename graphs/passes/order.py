"""Hidden units in a canonical order: a network and its permuted copy become equal node by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from graphs.ir import Graph, Node
from graphs.ops import OPS, Kind


def order_units(graph: Graph) -> Graph:
    """Sort the units of every hidden layer (linear, entry by entry, linear; nothing else reads it) by bias and weights.

    Only sums change their order. `merge_equal` then finds what two networks have in common.
    """
    readers, nodes, constants = graph.consumers(), dict(graph.nodes), dict(graph.constants)
    for name in graph.nodes:
        last = _behind(nodes[name], readers, graph.outputs)
        if last is None:
            continue
        first, second = nodes[name], nodes[last]
        params = {role: constants[param] for role, param in first.params.items()}
        order = _order(params["weight"], params.get("bias"))
        own = {role: value.index_select(0, order) for role, value in params.items()}
        nodes[name] = _with(first, own, constants)
        columns = {"weight": constants[second.params["weight"]].index_select(1, order)}
        nodes[last] = _with(second, columns, constants)
    return replace(graph, nodes=nodes, constants=constants)


def _behind(node: Node, readers: Mapping[str, list[Node]], outputs: tuple[str, ...]) -> str | None:
    """The linear node that alone reads the units of a linear node through one scalar op."""
    path = [node]
    for _ in range(2):
        behind = readers[path[-1].name]
        if len(behind) != 1 or path[-1].name in outputs:
            return None
        path.append(behind[0])
    first, middle, last = path
    scalar = OPS.get(middle.op)
    plain = scalar is not None and scalar.kind is Kind.SCALAR and not middle.params
    return last.name if first.op == last.op == "linear" and plain else None


def _order(weight: Tensor, bias: Tensor | None) -> Tensor:
    keys = weight.detach().cpu().numpy().T
    if bias is not None:
        keys = np.concatenate([keys, bias.detach().cpu().numpy()[None]])
    return torch.from_numpy(np.lexsort(keys)).to(weight.device)


def _with(node: Node, values: Mapping[str, Tensor], constants: dict[str, Tensor]) -> Node:
    """The node with some constants of its own."""
    names = {role: f"{node.name}.{role}.ordered" for role in values}
    constants.update({names[role]: value for role, value in values.items()})
    return replace(node, params={**node.params, **names})
