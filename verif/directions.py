"""In which directions a network's output can move with one input number, read from the signs of its weights.

Exact: only signs are combined, so no rounding enters. It settles what a bound cannot: a slope that is 0 on a flat part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphs import Graph, Node
from graphs.ops import OPS, Kind

_WEIGHTED = {"linear", "conv", "conv_transpose", "matmul_left", "matmul_right"}


@dataclass(frozen=True)
class Directions:
    """Where a value (shaped like it, bool) may rise and may fall as the input number rises."""

    rises: Tensor
    falls: Tensor

    def turned(self) -> Directions:
        """Those of the negated value."""
        return Directions(self.falls, self.rises)


def directions(graph: Graph, feature: int, output: int) -> tuple[bool, bool]:
    """Whether entry `output` of the first output may rise, and may fall, as number `feature` of the flat inputs rises.

    (True, False): it never falls, for any inputs at which the network is defined. (True, True) where signs do not tell.
    """
    found: dict[str, Directions] = {}
    for name in graph.inputs:
        mine = torch.arange(graph[name].size).reshape(graph[name].shape) == feature
        feature -= graph[name].size
        found[name] = Directions(mine, torch.zeros_like(mine))
    for node in graph:
        if node.name not in found:
            found[node.name] = _through(graph, node, [found[name] for name in node.inputs])
    last = found[graph.outputs[0]]
    return bool(last.rises.flatten()[output]), bool(last.falls.flatten()[output])


def _through(graph: Graph, node: Node, inputs: list[Directions]) -> Directions:
    op = OPS[node.op]
    if node.op in _WEIGHTED:
        return _weighted(graph, node, inputs[0])
    if node.op == "neg":
        return inputs[0].turned()
    if node.op == "sub":
        return Directions(inputs[0].rises | inputs[1].falls, inputs[0].falls | inputs[1].rises)
    if node.op == "scale":
        factor = graph.params(node)["factor"]
        kept, turned = factor > 0, factor < 0
        own = inputs[0]
        return Directions(own.rises & kept | own.falls & turned, own.falls & kept | own.rises & turned)
    if op.monotone and op.kind is Kind.AFFINE:
        return Directions(
            _moved(graph, node, [i.rises for i in inputs]), _moved(graph, node, [i.falls for i in inputs])
        )
    if op.monotone and op.kind is Kind.SCALAR:
        return inputs[0]
    up, down = any(bool(i.rises.any()) for i in inputs), any(bool(i.falls.any()) for i in inputs)
    if not op.monotone:
        up = down = up or down
    return Directions(torch.full(node.shape, up), torch.full(node.shape, down))


def _weighted(graph: Graph, node: Node, own: Directions) -> Directions:
    """Sums of an input's entries: 0s and 1s stand for them, so that no sum is rounded."""
    weight = graph.params(node)["weight"]

    def reached(entries: Tensor, there: Tensor) -> Tensor:
        (result,) = OPS[node.op].forward(entries.double()[None], weight=there.double(), **node.attrs)
        return torch.as_tensor(result > 0.5)

    plus, minus = weight > 0, weight < 0
    return Directions(
        reached(own.rises, plus) | reached(own.falls, minus), reached(own.falls, plus) | reached(own.rises, minus)
    )


def _moved(graph: Graph, node: Node, entries: list[Tensor]) -> Tensor:
    """Entries of an affine op with no negative coefficient that depend on any of the marked ones."""
    numbers = {role: p.new_zeros(p.shape) if p.is_floating_point() else p for role, p in graph.params(node).items()}
    attrs = {**node.attrs, "value": 0.0} if "value" in node.attrs else node.attrs
    (result,) = OPS[node.op].forward(*[e.double()[None] for e in entries], **numbers, **attrs)
    return torch.as_tensor(result > 0)
