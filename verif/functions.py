"""Variables, networks as functions of them, and derivatives (see `expressions.py`).

    t, x = variables(t=(0, 1), x=(0, 1))
    u = function("heat.onnx")(t, x)
    residual = grad(u, t) - 0.1 * grad(grad(u, x), x)

Shape letters: N an expression's shape, a number has (1,); M that of what is differentiated by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from graphs import Graph
from graphs.derivatives import backward
from graphs.derivatives.tape import Tape
from graphs.ir import INPUT
from verif.errors import PropertyError
from verif.expressions import Expression, Space, Value, common_space, op
from verif.networks import Networks
from verif.properties import Model

_FLOATS = {"float16", "float32", "float64"}


def variables(**ranges: tuple[Value, Value]) -> list[Expression]:
    """One expression for each name: a number between two ends, or an array between two arrays of its shape.

    Raises PropertyError (P112) where ends are not finite, not in order or of different shapes.
    """
    space = Space()
    for name, ends in ranges.items():
        low, high = (torch.atleast_1d(torch.as_tensor(end, dtype=torch.float64)) for end in ends)
        if low.shape != high.shape or not bool((low.isfinite() & high.isfinite() & (low <= high)).all()):
            raise PropertyError("P112", f"'{name}' needs two finite ends of one shape, lower <= upper")
        space.ends[space.builder.input(name, low.shape, "float64")] = (low, high)
    return [Expression(space, name) for name in space.ends]


def function(model: Model) -> Function:
    """A network as a function of expressions. Raises PropertyError (P113) where an input is of an integer type."""
    return Function(Networks.of(model).load("").graph)


@dataclass(frozen=True)
class Function:
    """A network. Call it with one expression for each input, or with several that are the numbers of its only one.

    The outputs come without leading axes of size 1.
    """

    graph: Graph

    def __post_init__(self) -> None:
        for name in self.graph.inputs:
            dtype = str(self.graph[name].attrs.get("dtype", "float32"))
            if dtype not in _FLOATS:
                raise PropertyError("P113", f"a function of variables needs inputs of floating-point type, not {dtype}")

    def __call__(self, *arguments: Expression) -> Any:
        """One expression, or a tuple of them where the network has several outputs."""
        graph = self.graph.to(torch.float64)
        given = list(arguments) if len(graph.inputs) > 1 else [vector(*arguments)]
        sizes, wanted = [one.size for one in given], [graph[name].size for name in graph.inputs]
        if sizes != wanted:
            raise PropertyError("P104", f"the function was given {sizes} numbers, it takes {wanted}")
        space = common_space(given)
        names = {name: one.reshape(graph[name].shape).name for name, one in zip(graph.inputs, given, strict=True)}
        builder = space.builder
        for node in graph:
            if node.op != INPUT:
                inputs = [names[name] for name in node.inputs]
                names[node.name] = builder.add(
                    node.op, inputs, graph.params(node), node.attrs, name=f"f.{node.name}", origin=node.origin
                )
        found = [Expression(space, names[name]) for name in graph.outputs]
        found = [one.reshape(_without_ones(one.shape)) for one in found]
        return found[0] if len(found) == 1 else tuple(found)


def grad(y: Expression, x: Expression) -> Expression:
    """The derivative of y by x: (*N, *M), or (*M,) where y is a number. At a kink it is the limit from one side.

    A proof covers both sides' limits. Raises UnsupportedError (G301) where an op has no derivative, and PropertyError
    (P116) where x is no variable and y was not made from it.
    """
    space = common_space([y, x])
    graph = space.graph(y.name)
    if x.name not in space.ends and x.name not in _ancestors(graph, y.name):
        raise PropertyError(
            "P116",
            "the expression was not made from what it is differentiated by",
            help="differentiate by variables, or make the expression from the same value: p = x[0]; grad(f(p), p)",
        )
    seed = torch.eye(y.size, dtype=torch.float64).reshape(y.size, *y.shape)
    found = Expression(space, backward(Tape(graph, space.builder), y.name, seed, x.name))
    return found.reshape(x.shape if y.size == 1 else (*y.shape, *x.shape))


def vector(*parts: Expression) -> Expression:
    """The numbers of expressions one after the other, (n,)."""
    flat = [part.reshape((part.size,)) for part in parts]
    return flat[0] if len(flat) == 1 else op("concat", *flat, axis=0)


def _ancestors(graph: Graph, name: str) -> set[str]:
    found = {name}
    for node in reversed(list(graph)):
        if node.name in found:
            found.update(node.inputs)
    return found


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    ones = next((k for k, n in enumerate(shape) if n != 1), len(shape))
    return tuple(shape[ones:]) or (1,)
