"""Points that a network cannot tell apart: what varies is read through few numbers, which are alike at many of them.

Shape letters: P points, k inputs that vary, n inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT, Node
from graphs.ops import OPS

SELECTIONS = ("reshape", "slice", "transpose", "gather")  # ops that only pass numbers on
WHOLE = {"floor", "ceil", "round", "trunc", "step", "is_zero", "sign"}
SUMS = {"add", "sub", "neg", "shift", "scale", "mul"}
SMALL = 512  # numbers of a value that is computed for all points
PARTS, LARGEST = 2.0**10, 2.0**16  # sums and products of two numbers of no finer parts and no larger are exact


def passed_on(graph: Graph) -> dict[str, Tensor]:
    """The values that only pass inputs on, and which, (1, *N) float64."""
    (source,) = graph.inputs
    found = {source: torch.arange(graph[source].size, dtype=torch.float64)[None]}
    for node in graph:
        held = [found[name] for name in node.inputs if name in found]
        if node.op in SELECTIONS and len(held) == 1 == len(node.inputs):
            found[node.name] = OPS[node.op].forward(*held, **graph.params(node), **node.attrs)
    return found


def told_apart(graph: Graph, region: Tensor, axes: Tensor, values: Tensor) -> Tensor:
    """Of points in regions (P,), with values (P, k) of the inputs `axes` (k,), which are read by floor, ceil and trunc
    only: the first ones of those that are alike for the rest of the network, in order.
    """
    known: dict[str, Tensor] = {}
    read: dict[str, Tensor] = {}
    passed, readers = passed_on(graph), graph.consumers()
    place = torch.full((graph[graph.inputs[0]].size,), -1)
    place[axes] = torch.arange(len(axes))
    for node in graph:
        if node.name in passed:
            at = place[passed[node.name].flatten().long()]
            if bool((at >= 0).all()) and node.size <= SMALL:
                known[node.name] = values[:, at].reshape(-1, *node.shape)
            elif bool((at >= 0).any()) and any(reader.name not in passed for reader in readers[node.name]):
                return torch.arange(len(region))
        elif node.op != INPUT:
            value = _exactly(graph, node, known)
            if value is None:
                read |= {name: known[name] for name in node.inputs if name in known}
            else:
                known[node.name] = value
    read |= {name: known[name] for name in graph.outputs if name in known}
    keys = torch.cat([region[:, None].double(), *(value.reshape(len(region), -1) for value in read.values())], 1)
    _, same = keys.unique(dim=0, return_inverse=True)
    order = torch.arange(len(region))
    return torch.full_like(order, len(region)).scatter_reduce(0, same, order, "amin")[: int(same.max()) + 1].sort()[0]


def _exactly(graph: Graph, node: Node, known: Mapping[str, Tensor]) -> Tensor | None:
    """A small value at all points, where it is computed without rounding."""
    if node.size > SMALL or not all(name in known for name in node.inputs):
        return None
    held = [known[name] for name in node.inputs]
    if node.op in WHOLE or node.op in SELECTIONS:
        return graph.apply(node, held)
    fine = (bool(((x * PARTS).round() == x * PARTS).logical_and(x.abs() < LARGEST).all())
            for x in (*held, *graph.params(node).values()))  # fmt: skip
    return graph.apply(node, held) if node.op in SUMS and all(fine) else None
