"""Sums of huge terms that cancel: bounds cross by what rounding does to the terms, and no part is empty for it."""

from __future__ import annotations

import math
from fractions import Fraction
from unittest import mock

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from verif import Verdict, verify
from verif.properties import linear
from verif.verify import Run

INPUTS, ROWS, SLOPE, HUGE = 2, 3, 0.1, 1e9


def _drawn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator).double()


def _cancelling(seed: int) -> Graph:
    """Pairs of rows, nearly equal, whose difference goes on."""
    drawn = torch.Generator().manual_seed(seed)
    base, own = HUGE * _drawn(drawn, ROWS, INPUTS), _drawn(drawn, ROWS, INPUTS)
    weight, bias = torch.cat([base + own, base]).float().double(), HUGE * _drawn(drawn, ROWS)
    builder = GraphBuilder()
    params = {"weight": weight, "bias": torch.cat([bias, bias])}
    x = builder.add("linear", [builder.input("x", (INPUTS,))], params)
    x = builder.add("leaky_relu", [x], attrs={"slope": SLOPE})
    x = builder.add("linear", [x], {"weight": torch.cat([torch.eye(ROWS), -torch.eye(ROWS)], 1).double()})
    x = builder.add("relu", [builder.add("linear", [x], {"weight": _drawn(drawn, 6, ROWS), "bias": _drawn(drawn, 6)})])
    return builder.build([builder.add("linear", [x], {"weight": _drawn(drawn, 1, 6)})])


def _exact(graph: Graph, x: list[Fraction]) -> Fraction:
    for node in graph:
        if node.op == "linear":
            params = graph.params(node)
            weight = params["weight"].tolist()
            bias = params["bias"].tolist() if "bias" in params else [0.0] * len(weight)
            products = [sum(Fraction(w) * v for w, v in zip(row, x, strict=True)) for row in weight]
            x = [p + Fraction(b) for p, b in zip(products, bias, strict=True)]
        elif node.op != "input":
            low = Fraction(SLOPE) if node.op == "leaky_relu" else Fraction(0)
            x = [v if v > 0 else low * v for v in x]
    return x[0]


@pytest.mark.parametrize("strategy", ["values", "boxes"])
@pytest.mark.parametrize("seed", [14, 17, 37])
def test_a_point_that_violates_is_never_proved(seed: int, strategy: str) -> None:
    graph = _cancelling(seed)
    point = _drawn(torch.Generator().manual_seed(seed), INPUTS)
    value = _exact(graph, [Fraction(v) for v in point.tolist()])
    limit = float(value)
    while Fraction(limit) < value:
        limit = math.nextafter(limit, math.inf)
    with mock.patch.object(Run, "_attack", lambda *_: None), mock.patch.object(Run, "_replayed", lambda *_: None):
        found = verify(graph, linear(graph, point, point, [[1.0]], [limit]), timeout=0.3, strategy=strategy)
    assert found.verdict is not Verdict.HOLDS
