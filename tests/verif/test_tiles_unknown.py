"""Tile sweeps and numbers that are not finite or not exact: what is unknown stays unknown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from graphs import Graph, GraphBuilder
from relaxations.scalar.lines import ScalarLines
from relaxations.sets import Box
from tests.verif.networks import mlp, residual
from tests.verif.test_tiles import fast as fast
from tests.verif.test_tiles_edges import box, dense, swept, without_tiles
from tests.verif.tiled import Relaxations, plain, relax, units
from verif.bounds import Engine
from verif.bounds.tiles import TilePass, TilePrograms

pytestmark = pytest.mark.usefixtures("fast")


POSITIVE = Box(torch.full((2, 4), 1.0, dtype=torch.float64), torch.full((2, 4), 2.0, dtype=torch.float64))


def dead() -> Graph:
    """Two layers of ReLU; over `POSITIVE` the first one's values are all negative. No bias anywhere."""
    builder = GraphBuilder()
    weight = -torch.eye(4, dtype=torch.float64).repeat(3, 1)
    x = builder.add("linear", [builder.input("x", (4,))], {"weight": weight})
    x = dense(builder, builder.add("relu", [x], name="first"), 6, 1, bias=False)
    return builder.build([dense(builder, builder.add("relu", [x], name="second"), 3, 2, bias=False)])


def is_unknown(graph: Graph, relaxations: Relaxations) -> bool:
    """Whether tiles bound no entry of the output that plain torch cannot bound (there are some)."""
    at = graph.outputs[0]
    if TilePass(TilePrograms(graph), POSITIVE, relaxations).sweep(at) is None:
        return True
    low, high = swept(graph, at, POSITIVE, relaxations)
    slopes, bias = plain(graph, relaxations, at, units(graph, at, low), 2)
    lost = ~(bias + POSITIVE.minimize(slopes)).isfinite()
    return bool(lost.any()) and not bool((lost & (low.isfinite() | high.isfinite())).any())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["first", "second"])
def test_slopes_that_are_not_finite(name: str, value: float) -> None:
    graph = dead()
    relaxations = relax(graph, POSITIVE)
    broken = torch.full((2, graph[name].size), value, dtype=torch.float64)
    relaxations[name] = ScalarLines(broken, None, broken, None)
    assert is_unknown(graph, relaxations)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    """In front of neurons that are zero over the whole box: infinity times zero is not zero."""
    graph = dead()
    relaxations = relax(graph, POSITIVE)
    next(c for c in graph.constants.values() if c.shape == (6, 12))[0, 0] = value
    assert is_unknown(graph, relaxations)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rows_that_are_not_finite(value: float) -> None:
    rows = torch.ones(2, 3, dtype=torch.float64)
    rows[1, 1] = value
    lower = Engine(dead()).bound(POSITIVE, rows).lower
    assert bool(lower[:, 0].isfinite().all()) and bool((lower[:, 1] == -math.inf).all())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("boxes", [1, 2])
def test_boxes_that_are_not_finite(boxes: int, value: float) -> None:
    for graph in (mlp(1, (20, 9, 9, 4)), mlp(1, (20, 4)), residual()):
        region = box(graph[graph.inputs[0]].size, boxes)
        region.upper[0, 0] = value
        tiled, torched = Engine(graph).bound(region), without_tiles(graph, region)
        assert not bool(tiled.lower.isnan().any())
        assert bool((tiled.lower <= torched.lower + 1e-9).all())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_lines_of_which_one_is_unknown(value: float) -> None:
    """Rows that take it are unknown, the others keep their bound."""
    graph, region = mlp(1, (20, 9, 9, 4)), box(20, 2)
    relaxations = relax(graph, region)
    for name, lines in relaxations.items():
        if isinstance(lines, ScalarLines):
            broken = torch.full_like(lines.upper_slope, value)
            relaxations[name] = replace(lines, upper_slope=torch.zeros_like(broken), upper_bias=broken)
    low, high = swept(graph, graph.outputs[0], region, relaxations)
    rows = units(graph, graph.outputs[0], low)
    for bound, sign in ((low, 1), (-high, -1)):
        slopes, bias = plain(graph, relaxations, graph.outputs[0], sign * rows, 2)
        torched = bias + region.minimize(slopes)
        assert torch.allclose(bound, torch.where(torched.isnan(), -math.inf, torched), rtol=1e-9, atol=1e-9)


def test_overflow() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (3,), "float32")
    for _ in range(3):
        x = builder.add("linear", [x], {"weight": torch.full((3, 3), 1e30) * torch.tensor([1.0, -1.0, 1.0])})
    graph = builder.build([builder.add("relu", [x])])
    region = Box(torch.full((1, 3), -1.0), torch.full((1, 3), 1.0))
    found = Engine(graph).bound(region)
    assert bool((found.lower <= 0).all())
    assert bool((found.intervals[x].lower == -math.inf).all() and (found.intervals[x].upper == math.inf).all())


@pytest.mark.parametrize("size", [784, 3072, 40000])
def test_wide_inputs_in_float32(size: int) -> None:
    """Sums over inputs (and over one layer's biases) err by less than what `verif.rounding` takes off."""
    builder = GraphBuilder()
    x = builder.input("x", (size,), "float32")
    x = builder.add("shift", [x], {"offset": torch.full((size,), 0.1)})
    x = builder.add("linear", [x], {"weight": torch.full((1, size), 0.7), "bias": torch.full((1,), 0.3)})
    graph = builder.build([x])
    region = Box(torch.full((1, size), 0.1), torch.full((1, size), 0.4))
    tiles = TilePass(TilePrograms(graph), region, relax(graph, region))
    sweep = tiles.sweep(x)
    assert sweep is not None
    found = tiles.rows(sweep, torch.ones(1, 1, 1), math.inf)
    double = graph.to(torch.float64)
    exact = without_tiles(double, region.to(torch.float64)).lower
    terms = size * 0.7 * (0.4 + 0.1) + 0.3
    assert (found.low.double() - exact).abs().item() <= 32 * torch.finfo(torch.float32).eps * terms
