"""An operator without a converter, as torch itself writes it out of smaller ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

Sizes = Sequence[int]


def pieces(operator: Any, arguments: Any, known: Collection[str]) -> torch.fx.Graph | None:
    """The graph of an operator on tensors, other numbers fixed; None where it is of one piece.

    `arguments` (positional, named) hold tensors (of the right shapes) where the graph has placeholders, in this order.
    Operators that are `known` stay whole.
    """
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils import _pytree

    if not isinstance(operator, torch._ops.OpOverload):
        return None
    leaves, layout = _pytree.tree_flatten(arguments)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def apply(*tensors: Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        positional, named = _pytree.tree_unflatten(filled, layout)
        return operator(*positional, **named)

    table = torch.export.default_decompositions()
    unknown: dict[Any, Callable[..., Any]] = {op: table[op] for op in list(table) if str(op) not in known}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own
        made = make_fx(torch.func.functionalize(apply), decomposition_table=unknown)(*(leaves[p] for p in places))
    graph = made.graph
    whole = any(node.target is operator for node in graph.nodes)
    return None if whole else graph
