"""Tile sweeps where something is missing, odd or changed, and what is left to plain torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from operator import attrgetter

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.kernels.tiles import TileSweep
from relaxations.scalar.lines import ScalarLines
from relaxations.sets import Box, InputSet
from tests.verif.networks import PLAIN, mlp, residual, weights
from tests.verif.test_tiles import fast as fast
from tests.verif.tiled import Relaxations, random_region, relax
from verif.bounds import Engine, Pass, engine as engine_module, tiles as tiles_module
from verif.bounds.engine import OutOfTime
from verif.bounds.entries import by_pixel
from verif.bounds.tiles import TilePass, TilePrograms

pytestmark = pytest.mark.usefixtures("fast")


def without_tiles(graph: Graph, region: InputSet, rows: Tensor | None = None) -> Pass:
    """A pass by plain torch alone, with rows for undecided entries only, as tiles have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TilePrograms, "sweep", lambda self, at, like: None)
        patch.setattr(engine_module, "DENSE_SHARE", 2.0)
        return Engine(graph).bound(region, rows)


def same(graph: Graph, region: InputSet, rows: Tensor | None = None) -> Pass:
    """A pass with tiles, which agrees with that by plain torch."""
    tiled, torched = Engine(graph).bound(region, rows), without_tiles(graph, region, rows)
    assert tiled.lower.shape == torched.lower.shape and tiled.slopes.shape == torched.slopes.shape
    assert torch.allclose(tiled.lower, torched.lower, rtol=1e-9, atol=1e-9)
    assert torch.allclose(tiled.slopes, torched.slopes, rtol=1e-9, atol=1e-9)
    assert torch.allclose(tiled.bias, torched.bias, rtol=1e-9, atol=1e-9)
    for name, held in torched.intervals.items():
        assert torch.allclose(tiled.intervals[name].lower, held.lower, rtol=1e-9, atol=1e-9), name
        assert torch.allclose(tiled.intervals[name].upper, held.upper, rtol=1e-9, atol=1e-9), name
    return tiled


def box(size: int, boxes: int, seed: int = 0) -> Box:
    found = random_region("box", size, boxes, seed)
    assert isinstance(found, Box)
    return found


def dense(builder: GraphBuilder, x: str, size: int, seed: int, *, bias: bool = True) -> str:
    params = {"weight": weights(seed, size, builder.nodes[x].size)}
    if bias:
        params["bias"] = weights(seed + 100, size, 1).flatten()
    return builder.add("linear", [x], params)


def swept(graph: Graph, at: str, region: InputSet, relaxations: Relaxations) -> tuple[Tensor, Tensor]:
    """Bounds (B, N) of every entry of a node in tiles."""
    tiles = TilePass(TilePrograms(graph), region, relaxations)
    sweep = tiles.sweep(at)
    assert sweep is not None
    owner, entry = by_pixel(torch.ones(len(region), graph[at].size, dtype=torch.bool), sweep.channels)
    found = tiles.both(sweep, owner, entry, math.inf)
    assert found is not None
    bounds = torch.zeros(2, len(region), graph[at].size, dtype=region.box().lower.dtype)
    bounds[:, owner, entry] = torch.stack(found)
    return bounds[0], bounds[1]


def test_a_value_that_is_flat_for_one_sweep_and_a_map_for_another() -> None:
    builder = GraphBuilder()
    flat = builder.add("relu", [dense(builder, builder.input("x", (20,)), 27, 0)])
    side = builder.add("relu", [dense(builder, flat, 5, 1)])  # this sweep sees a flat value of 27 entries
    image = builder.add("reshape", [flat], attrs={"shape": (1, 3, 3, 3)})  # this one a map of 9 pixels
    conv = builder.add("conv", [image], {"weight": weights(2, 4, 3, 3, 3)}, PLAIN)
    joined = builder.add("relu", [conv])
    head = dense(builder, builder.add("reshape", [joined], attrs={"shape": (36,)}), 3, 3)
    graph = builder.build([builder.add("add", [head, dense(builder, side, 3, 4)])])
    same(graph, box(20, 3))


def test_a_map_that_no_convolution_reads() -> None:
    builder = GraphBuilder()
    x = dense(builder, builder.input("x", (20,)), 24, 0)
    x = dense(builder, builder.add("relu", [x]), 24, 1)
    x = builder.add("relu", [builder.add("reshape", [x], attrs={"shape": (1, 2, 3, 4)})])
    graph = builder.build([dense(builder, builder.add("reshape", [x], attrs={"shape": (24,)}), 3, 2)])
    same(graph, box(20, 3))


def test_an_output_without_axes() -> None:
    builder = GraphBuilder()
    x = builder.add("relu", [dense(builder, builder.input("x", (20,)), 7, 0)])
    x = builder.add("reshape", [dense(builder, x, 1, 1)], attrs={"shape": ()})
    graph = builder.build([x])
    same(graph, box(20, 3))
    same(graph, box(20, 3), torch.tensor([[1.0], [-2.0]], dtype=torch.float64))


@pytest.mark.parametrize("boxes", [1, 3])
@pytest.mark.parametrize("kind", ["box", "ball 2", "meet"])
def test_rows_of_their_own_for_each_box(kind: str, boxes: int) -> None:
    """Also where one set serves several batches of rows."""
    graph = mlp(1, (20, 9, 8, 4))
    rows = torch.randn(3, 11, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    same(graph, random_region(kind, 20, boxes, 0), rows)


@pytest.mark.parametrize("kind", ["ball 2", "meet"])
def test_rows_over_balls_are_taken_some_at_a_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their slopes have to be kept until the minimum over the ball is taken."""
    graph, region = residual(), random_region(kind, 64, 2, 0)
    relaxations = relax(graph, region)
    at = next(node.name for node in graph if node.op == "add")
    whole = swept(graph, at, region, relaxations)
    counts: list[int] = []
    units = TileSweep.units

    def counted(self: TileSweep, relaxed: object, tiles: object, entry: Tensor, inputs: object) -> object:
        counts.append(len(entry))
        return units(self, relaxed, tiles, entry, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(TileSweep, "units", counted)
    monkeypatch.setattr(tiles_module, "SLOPE_BYTES", 40 * 2 * 64 * 8)
    parts = swept(graph, at, region, relaxations)
    assert torch.equal(parts[0], whole[0]) and torch.equal(parts[1], whole[1])
    assert max(counts) == 40 and sum(counts) == 2 * graph[at].size


def test_no_rows_at_all() -> None:
    graph = mlp(1, (20, 9, 8, 4))
    tiles = TilePass(TilePrograms(graph), box(20, 3), relax(graph, box(20, 3)))
    sweep = tiles.sweep(graph.outputs[0])
    nothing = torch.zeros(0, dtype=torch.int64)
    assert sweep is not None
    ball = random_region("ball 2", 20, 3, 0)
    for each in (tiles, TilePass(TilePrograms(graph), ball, relax(graph, ball))):
        found = each.both(sweep, nothing, nothing, math.inf)
        assert found is not None and found[0].shape == found[1].shape == (0,)
    last = tiles.rows(sweep, torch.zeros(1, 0, 4, dtype=torch.float64), math.inf)
    assert last.complete and last.low.shape == (3, 0)


@pytest.mark.parametrize("name", ["mlp", "residual", "sigmoid"])
def test_a_batch_is_swept_as_its_boxes_one_by_one(name: str) -> None:
    graph = {"mlp": mlp(3, (20, 12, 12, 5)), "residual": residual(), "sigmoid": mlp(2, (20, 9, 9, 3), "sigmoid")}[name]
    region = box(graph[graph.inputs[0]].size, 5)
    relaxations = relax(graph, region)
    low, high = swept(graph, graph.outputs[0], region, relaxations)
    for b in range(5):
        one = torch.tensor([b])
        taken = {name: relaxation.take(one) for name, relaxation in relaxations.items()}
        alone = swept(graph, graph.outputs[0], region.take(one), taken)
        assert torch.equal(alone[0], low[b : b + 1]) and torch.equal(alone[1], high[b : b + 1])
    together = Engine(graph).bound(region).lower
    singly = [Engine(graph).bound(region.take(torch.tensor([b]))).lower for b in range(5)]
    assert torch.allclose(together, torch.cat(singly), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_time(seconds: float) -> None:
    graph = residual()
    with pytest.raises(OutOfTime):
        Engine(graph).bound(box(64, 3), deadline=time.monotonic() + seconds)


def test_time_that_runs_out_in_one_thread_is_not_forgotten_by_another() -> None:
    graph = mlp(1, (20, 40, 40, 4))
    region = box(20, 1)
    tiles = TilePass(TilePrograms(graph), region, relax(graph, region))
    sweep = tiles.sweep(graph.outputs[0])
    assert sweep is not None
    rows = torch.randn(1, 24, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # three tiles
    wanted = tiles.rows(sweep, rows, math.inf).low
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(3000):
            found = tiles.rows(sweep, rows, 0.0)
            assert not found.complete or torch.equal(found.low, wanted)
    finally:
        torch.set_num_threads(threads)


def gradients(make: Callable[[], tuple[Graph, InputSet, Tensor | None, Tensor]]) -> tuple[Tensor, Tensor]:
    """Gradients of the sum of all bounds of (network, region, rows) in a tensor: found, and by plain torch."""
    graph, region, rows, wanted = make()
    (found,) = torch.autograd.grad(Engine(graph).bound(region, rows).lower.sum(), wanted)
    graph, region, rows, wanted = make()
    (right,) = torch.autograd.grad(without_tiles(graph, region, rows).lower.sum(), wanted)
    return found, right


@pytest.mark.parametrize("sizes", [(20, 9, 4), (20, 4)])
@pytest.mark.parametrize("part", ["lower", "upper", "center", "radius", "first.upper", "second.radius"])
def test_gradients_in_the_region(part: str, sizes: tuple[int, ...]) -> None:
    def make() -> tuple[Graph, InputSet, Tensor | None, Tensor]:
        kind = {"lower": "box", "upper": "box", "center": "ball 2", "radius": "ball 2"}.get(part, "meet")
        region = random_region(kind, 20, 2, 0)
        return mlp(1, sizes), region, None, attrgetter(part)(region).requires_grad_()

    found, right = gradients(make)
    assert torch.allclose(found, right, rtol=1e-9, atol=1e-9)


def test_gradients_in_the_rows() -> None:
    def make() -> tuple[Graph, InputSet, Tensor | None, Tensor]:
        rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
        return mlp(1, (20, 9, 4)), box(20, 2), rows, rows

    found, right = gradients(make)
    assert torch.allclose(found, right, rtol=1e-9, atol=1e-9) and bool(right.any())


@pytest.mark.parametrize("role", ["weight", "bias"])
def test_gradients_in_the_network(role: str) -> None:
    def make() -> tuple[Graph, InputSet, Tensor | None, Tensor]:
        graph = mlp(1, (20, 9, 4))
        wanted = next(value for name, value in graph.constants.items() if name.endswith(role)).requires_grad_()
        return graph, box(20, 2), None, wanted

    found, right = gradients(make)
    assert torch.allclose(found, right, rtol=1e-9, atol=1e-9) and bool(right.any())
    with torch.no_grad():
        same(*make()[:2])


@pytest.mark.parametrize("field", ["lower_slope", "lower_bias", "upper_slope", "upper_bias"])
def test_gradients_in_lines(field: str) -> None:
    graph, region = mlp(1, (20, 9, 4), "sigmoid"), box(20, 2)
    relaxations = relax(graph, region)
    name = next(node.name for node in graph if node.op == "sigmoid")
    wanted = getattr(relaxations[name], field).clone().requires_grad_()
    relaxations[name] = replace(relaxations[name], **{field: wanted})
    assert TilePass(TilePrograms(graph), region, relaxations).sweep(graph.outputs[0]) is None
    with torch.no_grad():
        assert TilePass(TilePrograms(graph), region, relaxations).sweep(graph.outputs[0]) is not None


def changing() -> Graph:
    """A network with constants of every kind that the library reads."""
    builder = GraphBuilder.extend(residual())
    (x,) = residual().outputs
    x = builder.add("scale", [x], {"factor": weights(5, 3)})
    x = builder.add("shift", [x], {"offset": torch.ones((), dtype=torch.float64)})
    params = {"weight": weights(6, 3, 4).t(), "bias": weights(7, 4)}  # not contiguous: the library has a copy
    return builder.build([builder.add("linear", [builder.add("relu", [x])], params)])


CHANGES: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda value: value.mul_(1.5),
    "in place, unseen by autograd": lambda value: value.data.mul_(1.5),
    "another tensor's data": lambda value: setattr(value, "data", value.data * 1.5),
}


PARAMETERS, CONSTANTS, INFERENCE = torch.no_grad, torch.enable_grad, torch.inference_mode


@pytest.mark.parametrize(
    ("mode", "change"),
    [(mode, change) for mode in (PARAMETERS, INFERENCE) for change in CHANGES] + [(CONSTANTS, "in place")],
)
def test_weights_that_change_between_passes(change: str, mode: Callable[[], AbstractContextManager[None]]) -> None:
    with mode():
        graph = changing()
        if mode is PARAMETERS:
            for value in graph.constants.values():
                value.requires_grad_()
        region = box(64, 2)
        engine = Engine(graph)
        before = engine.bound(region).lower
        for value in graph.constants.values():
            CHANGES[change](value)
        after = engine.bound(region).lower
        assert not torch.allclose(before, after)
        assert torch.allclose(after, without_tiles(graph, region).lower, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("part", ["lower", "upper", "rows", "weight", "slope"])
def test_precisions_that_differ_are_left_to_torch(part: str) -> None:
    """The library would read float32 numbers as half as many float64 ones."""
    graph, region = mlp(1, (20, 9, 4)), box(20, 2)
    relaxations = relax(graph, region)
    rows = torch.ones(1, 3, 4, dtype=torch.float64)
    name = next(node.name for node in graph if node.op == "relu")
    lines = relaxations[name]
    assert isinstance(lines, ScalarLines)
    tiles = TilePass(TilePrograms(graph), region, relaxations)
    assert tiles.sweep(graph.outputs[0], rows) is not None
    if part == "slope":
        relaxations[name] = replace(lines, upper_slope=lines.upper_slope.float())
    region = Box(*(x.float() if part == end else x for end, x in (("lower", region.lower), ("upper", region.upper))))
    graph = graph.to(torch.float32) if part == "weight" else graph
    tiles = TilePass(TilePrograms(graph), region, relaxations)
    assert tiles.sweep(graph.outputs[0], rows.float() if part == "rows" else rows) is None
