"""Rounding that is measured, where no error of it is proved."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from graphs.ir import INPUT
from relaxations.sets import Box
from tests.verif.test_roundoff import network
from verif.properties import linear
from verif.query import compile_query
from verif.rounding import EPS, JUMPS, beyond, noise, shaken
from verif.roundoff import allowance


def jumping() -> Graph:
    """y = 3 floor(w x) + sign(w x) + w x."""
    builder = GraphBuilder()
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    x = builder.add("linear", [builder.input("x", (3,))], {"weight": weight})
    steps = builder.add("scale", [builder.add("floor", [x])], {"factor": torch.full((4,), 3.0, dtype=torch.float64)})
    return builder.build([builder.add("add", [builder.add("add", [steps, builder.add("sign", [x])]), x])])


def side_by_side(double: Graph, points: Tensor) -> Tensor:
    """`shaken` as it is defined: all values twice, as they are and shaken; jumps are made of the former."""
    generator = torch.Generator().manual_seed(0)
    values = {double.inputs[0]: points.double()}
    near = dict(values)
    for node in double:
        if node.op != INPUT:
            values[node.name] = double.apply(node, [values[name] for name in node.inputs])
            moved = double.apply(node, [near[name] for name in node.inputs])
            change = torch.rand(moved.shape, generator=generator, dtype=torch.float64) - 0.5
            jumps = node.op in JUMPS
            near[node.name] = values[node.name] if jumps else moved * (1 + EPS[torch.float32] * change)
    return near[double.outputs[0]]


@pytest.mark.parametrize("graph", [jumping(), network(0, 3), network(1, 6, 20)], ids=["jumps", "residual", "wide"])
def test_shaken_values_are_those_of_two_passes_side_by_side(graph: Graph) -> None:
    double = graph.to(torch.float64)
    points = torch.randn(16, double[double.inputs[0]].size, generator=torch.Generator().manual_seed(1))
    assert torch.equal(shaken(double, points), side_by_side(double, points))


def test_errors_are_measured_where_float32_agrees_by_chance() -> None:
    """On zeros nothing is rounded; what is shaken shows what rounding might do."""
    double = network(0, 3).to(torch.float64)
    points = torch.zeros(4, 3)
    values = double(points.double())[0]
    assert bool((beyond(shaken(double, points), values) > 0).all())
    assert bool((noise(double.to(torch.float32), double, points) >= 0).all())


@pytest.mark.parametrize(("size", "trusted"), [(1e13, False), (0.0, True)])
def test_float32_is_not_believed_where_it_is_off_by_as_much_as_values_are(size: float, trusted: bool) -> None:
    """y = relu(size x_0 + x_1) - relu(size x_0), beside an op whose errors have no bound."""
    builder = GraphBuilder()
    x = builder.input("x", (2,))
    weight = torch.tensor([[size, 1.0], [size, 0.0]], dtype=torch.float64)
    pair = builder.add("relu", [builder.add("linear", [x], {"weight": weight})])
    y = builder.add("linear", [pair], {"weight": torch.tensor([[1.0, -1.0]], dtype=torch.float64)})
    other = builder.add("logsumexp", [x], {}, {"axes": (0,), "keepdims": True})
    graph = builder.build([builder.add("add", [y, other])])
    query = compile_query(linear(graph, [1.0, 1.0], [2.0, 2.0], [[1.0]], [0.0]), graph)
    double, points = query.graph.to(torch.float64), 1 + torch.rand(16, 2, generator=torch.Generator().manual_seed(0))
    found = allowance(query, Box(*query.outer()), query.graph.to(torch.float32), double, points)
    assert found.unproved
    assert found.counts(torch.float32) is trusted and found.counts(torch.float64)
