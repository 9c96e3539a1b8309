"""Slope optimisation in tiles: bounds that only improve, are those of the rows that come with them, and are sound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from tests.verif.networks import mlp, residual
from tests.verif.test_tiles import each_library as each_library, fast as fast, threads as threads
from tests.verif.tiled import Random, Relaxations, random_region, relax, tolerance, units
from verif.bounds import Engine
from verif.bounds.entries import by_pixel
from verif.bounds.tiles import Rounds, TilePass, TilePrograms

SOME = Rounds(6, 6)


def box(graph: Graph, boxes: int, seed: int) -> Box:
    found = random_region("box", graph[graph.inputs[0]].size, boxes, seed)
    assert isinstance(found, Box)
    return found


def sample(graph: Graph, region: Box, at: str, seed: int) -> tuple[Tensor, Tensor]:
    """Points (P, B, n) of the boxes, half of them corners, and the values (P, B, N) of a node there."""
    generator = torch.Generator().manual_seed(seed)
    points = region.sample(60, generator).transpose(0, 1)
    corner = torch.rand(points.shape, generator=generator) < 0.5
    points[::2] = torch.where(corner, region.lower, region.upper)[::2]
    values = [graph.evaluate({graph.inputs[0]: p}, [at])[at].reshape(len(p), -1) for p in points]
    return points, torch.stack(values)


def entries(
    graph: Graph, region: Box, relaxations: Relaxations, at: str, rounds: Rounds
) -> tuple[Tensor, Tensor] | None:
    """Bounds (B, N) of every entry of a node; None where it has no tile sweep."""
    tiles = TilePass(TilePrograms(graph), region, relaxations, rounds, Engine(graph).interval(region))
    sweep = tiles.sweep(at)
    if sweep is None:
        return None
    owner, entry = by_pixel(torch.ones(len(region), graph[at].size, dtype=torch.bool), sweep.channels)
    found = tiles.both(sweep, owner, entry, math.inf)
    assert found is not None
    bounds = region.lower.new_zeros(2, len(region), graph[at].size)
    bounds[:, owner, entry] = torch.stack(found)
    return bounds[0], bounds[1]


@pytest.mark.usefixtures("each_library", "threads")
@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed: int) -> None:
    graph = Random(seed).graph(4 + seed % 9)
    region = box(graph, 1 + seed // 3 % 4, seed)
    relaxations = relax(graph, region)
    for at in [node.name for node in graph]:
        plain = entries(graph, region, relaxations, at, Rounds())
        if plain is None:
            continue
        best = entries(graph, region, relaxations, at, SOME)
        assert best is not None
        _, values = sample(graph, region, at, seed)
        slack = 1e-9 * tolerance(graph, relaxations, at, units(graph, at, region.lower), region)
        assert bool((best[0] <= values.amin(0) + slack).all()) and bool((best[1] >= values.amax(0) - slack).all())
        # An entry whose sign the rows of one side have settled takes no more steps.
        assert bool((best[0] >= plain[0] - 1e-3 * slack).all()) and bool((best[1] <= plain[1] + 1e-3 * slack).all())


@pytest.mark.usefixtures("each_library")
@pytest.mark.parametrize("seed", range(40))
def test_bounds_are_those_of_the_rows_that_come_with_them(seed: int) -> None:
    graph = Random(seed).graph(4 + seed % 9)
    region = box(graph, 1 + seed // 3 % 4, seed)
    relaxations, at = relax(graph, region), graph.outputs[0]
    rows = torch.randn(1, 11, *graph[at].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    tiles = TilePass(TilePrograms(graph), region, relaxations, SOME, Engine(graph).interval(region))
    sweep = tiles.sweep(at, rows)
    if sweep is None:
        pytest.skip("this network has no tile sweep")
    found = tiles.rows(sweep, rows, math.inf)
    assert found.complete and found.slopes is not None and found.bias is not None
    size = tolerance(graph, relaxations, at, rows, region)
    assert bool(((found.bias + region.minimize(found.slopes) - found.low).abs() <= 1e-12 * size + 1e-300).all())
    points, values = sample(graph, region, at, seed)
    claimed = torch.einsum("bsn,pbn->pbs", found.slopes, points) + found.bias
    assert bool((claimed <= values @ rows.reshape(11, -1).T + 1e-9 * size).all())


@pytest.mark.usefixtures("fast")
def test_a_batch_takes_the_steps_of_its_boxes_one_by_one() -> None:
    for graph in (mlp(3, (20, 12, 12, 5)), residual()):
        region = box(graph, 4, 0)
        relaxations, at = relax(graph, region), graph.outputs[0]
        together = entries(graph, region, relaxations, at, SOME)
        assert together is not None
        for b in range(4):
            one = torch.tensor([b])
            taken = {name: relaxation.take(one) for name, relaxation in relaxations.items()}
            alone = entries(graph, region.take(one), taken, at, SOME)
            assert alone is not None
            assert torch.equal(alone[0], together[0][one]) and torch.equal(alone[1], together[1][one])


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_steps_gain_something(name: str) -> None:
    graph = residual() if name == "residual" else mlp(3, (20, 12, 12, 12, 5))
    region = box(graph, 4, 0)
    before = Engine(graph).bound(region).lower
    after = Engine(graph).bound(region, rounds=Rounds(0, 10)).lower
    assert bool((after >= before - 1e-9).all()) and bool((after > before + 1e-3 * before.abs()).any())


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_boxes_that_are_not_finite(value: float) -> None:
    """Gradients that are NaN move no slope out of its range."""
    for graph in (mlp(1, (20, 9, 9, 4)), residual()):
        region = box(graph, 2, 0)
        region.upper[0, 0] = value
        found = Engine(graph).bound(region, rounds=SOME).lower
        inner = Box(region.lower, torch.where(region.upper.isfinite(), region.upper, region.lower + 1))
        _, values = sample(graph, inner, graph.outputs[0], 0)
        assert not bool(found.isnan().any()) and bool((found <= values.amin(0) + 1e-9).all())


def test_values_in_front_of_curved_ops_get_all_rounds_even_where_their_sign_is_known() -> None:
    """A tile of float64 has half as many rows as one of float32: both find the same intervals."""
    generator = torch.Generator().manual_seed(0)
    builder = GraphBuilder()
    value = builder.input("x", (12,))
    for n, m in ((12, 40), (40, 40), (40, 40)):
        weight = torch.randn(m, n, generator=generator) * 2 / n**0.5
        value = builder.add("linear", [value], {"weight": weight, "bias": torch.full((m,), 1.5)})
        value = builder.add("sigmoid", [value])
    graph = builder.build([value])
    region = box(graph, 1, 0)
    widths = []
    for dtype in (torch.float32, torch.float64):
        found = Engine(graph.to(dtype)).bound(region.to(dtype), rounds=Rounds(20, 0)).intervals
        widths.append(torch.stack([found[node.inputs[0]].width[0].double() for node in graph if node.op == "sigmoid"]))
    assert bool(
        (
            widths[1][-1] < Engine(graph).bound(region.to(torch.float32)).intervals[graph[value].inputs[0]].width * 0.9
        ).any()
    )
    torch.testing.assert_close(widths[0], widths[1], rtol=5e-3, atol=1e-4)
