"""Small networks as they are: in exact rational arithmetic, and as programs compute them in floating point."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from graphs import Graph

Vector = np.ndarray[Any, Any]


def exact(graph: Graph, point: list[Fraction]) -> list[Fraction]:
    """The outputs at a point, without rounding."""
    values = {graph.inputs[0]: point}
    for node in graph:
        held = [values[name] for name in node.inputs]
        if node.op == "linear":
            params = graph.params(node)
            rows = [[Fraction(w) for w in row] for row in params["weight"].tolist()]
            bias = [Fraction(b) for b in params["bias"].tolist()] if "bias" in params else [Fraction(0)] * len(rows)
            products = [sum(map(Fraction.__mul__, row, held[0]), b) for row, b in zip(rows, bias, strict=True)]
            values[node.name] = products
        elif node.op == "add":
            values[node.name] = [a + b for a, b in zip(*held, strict=True)]
        elif held:
            low = Fraction({"relu": 0, "abs": -1}.get(node.op) or node.attrs.get("slope", 0))
            values[node.name] = [value if value >= 0 else low * value for value in held[0]]
    return values[graph.outputs[0]]


def program(graph: Graph, point: Vector, generator: np.random.Generator) -> Vector:
    """The outputs in the point's own type: every sum one by one, in an order of its own."""
    kind, values = point.dtype.type, {graph.inputs[0]: point}
    for node in graph:
        held = [values[name] for name in node.inputs]
        if node.op == "linear":
            params = {name: value.numpy().astype(kind) for name, value in graph.params(node).items()}
            bias = params.get("bias", np.zeros(0, kind))
            products = params["weight"] * held[0]
            sums = [total(row, bias[i : i + 1], generator) for i, row in enumerate(products)]
            values[node.name] = np.array(sums, kind)
        elif node.op == "add":
            values[node.name] = held[0] + held[1]
        elif held:
            low = kind({"relu": 0, "abs": -1}.get(node.op) or node.attrs.get("slope", 0))
            values[node.name] = np.where(held[0] >= 0, held[0], low * held[0])
    return values[graph.outputs[0]]


def total(products: Vector, bias: Vector, generator: np.random.Generator) -> Any:
    """A sum in an order that is drawn."""
    terms = generator.permutation(np.concatenate([products, bias]))
    result = terms.dtype.type(0)
    for term in terms:
        result = result + term
    return result
