"""Values at points and what they are off by, against exact rationals and other points near them."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from graphs import Graph, GraphBuilder
from tests.verif.programs import exact
from tests.verif.test_roundoff import CURVES, curved, network
from verif.enclosures import enclosed, unknown_ops


def pair(graph: Graph) -> tuple[Graph, Graph]:
    return graph.to(torch.float32), graph.to(torch.float64)


@pytest.mark.parametrize("spread", [0, 3, 6])
@pytest.mark.parametrize("inputs", [3, 20])
def test_exact_values_are_inside(spread: int, inputs: int) -> None:
    moved = 0
    for seed in range(10):
        graph = network(seed, spread, inputs)
        points = torch.randn(3, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        value, error = enclosed(pair(graph), points, torch.zeros_like(points))
        assert bool((error < 1e-9 * (1 + value.abs()) * 10.0 ** (3 * spread)).all())
        for p, point in enumerate(points):
            real = exact(graph, [Fraction(x) for x in point.tolist()])
            for v, e, r in zip(value[p].tolist(), error[p].tolist(), real, strict=True):
                assert abs(Fraction(v) - r) <= Fraction(e)
                moved += Fraction(v) != r
    assert moved


@pytest.mark.parametrize("op", [*CURVES, "trunc"])
@pytest.mark.parametrize("radius", [1e-9, 1e-3])
def test_values_of_points_near_are_inside(op: str, radius: float) -> None:
    useful = 0
    for seed in range(8):
        inputs = (3, 20)[seed // 4]
        graph, generator = curved(op, seed, inputs).to(torch.float64), torch.Generator().manual_seed(seed)
        points = torch.randn(4, inputs, generator=generator, dtype=torch.float64)
        near = points + radius * torch.rand(50, 4, inputs, generator=generator, dtype=torch.float64).mul(2).sub(1)
        value, error = enclosed(pair(graph), points, torch.full_like(points, radius))
        values = graph(near.flatten(0, 1))[0].reshape(50, 4, -1)
        assert bool(((values - value).abs() <= error + 1e-12 * values.abs()).all())
        useful += bool((error < 0.1 * (1 + value.abs())).any())
    assert useful > 1


def first(numbers: list[float]) -> tuple[float, float]:
    """Whether the largest of some numbers is the second one, and what that is off by."""
    builder = GraphBuilder()
    x = builder.input("x", (len(numbers),))
    position = builder.add("arg_max", [x], {}, {"axis": 0, "keepdims": True, "last": False})
    shifted = builder.add("shift", [position], {"offset": torch.full((1,), -1.0).double()})
    graph = builder.build([builder.add("is_zero", [shifted])])
    points = torch.tensor([numbers], dtype=torch.float64)
    value, error = enclosed(pair(graph), points, torch.full_like(points, 1e-6))
    return float(value), float(error)


def test_positions_are_exact_unless_two_are_near() -> None:
    assert first([1.0, 1.1, 0.0]) == (1.0, 0.0)
    assert first([1.1, 1.0, 0.0]) == (0.0, 0.0)
    value, error = first([1.0 + 1e-7, 1.0, 0.0])
    assert value - error <= 0.0 and value + error >= 1.0


def test_ops_without_a_bound() -> None:
    builder = GraphBuilder()
    graph = builder.build([builder.add("softmax", [builder.input("x", (2,))], {}, {"axis": 0})])
    assert unknown_ops(graph) == ("softmax",)
