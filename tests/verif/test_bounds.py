"""The bound engine against samples, against a plain dense sweep, and against itself in batches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from graphs import Graph
from graphs.derivatives import jacobian
from relaxations import RULES, Call, Interval, Relaxation, lanes, slab_pulls
from relaxations.affine import AffineRelaxation
from relaxations.sets import Ball, Box
from tests.verif.networks import attention, mlp, pendulum, residual
from verif.bounds import Engine, crown, engine as engine_module, interval
from verif.bounds.engine import OutOfTime
from verif.bounds.structure import exact_nodes, row_size, slab_size

NETWORKS = {
    "relu": mlp(),
    "deep": mlp(3, (3, 10, 10, 10, 10, 2)),
    "tanh": mlp(1, act="tanh"),
    "gelu": mlp(2, act="gelu"),
    "wide input": mlp(4, (30, 8, 8, 3)),
    "residual": residual(),
    "pendulum": pendulum(),
    "attention": attention(),
}


def boxes(graph: Graph, width: float, count: int = 5, seed: int = 0) -> Box:
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(count, graph[graph.inputs[0]].size, generator=generator, dtype=torch.float64)
    radius = width * torch.rand(center.shape, generator=generator, dtype=torch.float64)
    return Box(center - radius, center + radius)


def sampled(graph: Graph, box: Box, count: int = 500) -> Tensor:
    """Outputs (count, B, M) at random points and corners."""
    points = box.sample(count, torch.Generator().manual_seed(1)).transpose(0, 1)
    corner = torch.rand(points.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    points[::2] = torch.where(corner, box.lower, box.upper)[::2]
    return torch.stack([graph(p)[0].flatten(1) for p in points])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("width", [1e-6, 0.05, 0.5, 5.0])
def test_samples_lie_above_lower_bounds(name: str, width: float) -> None:
    graph = NETWORKS[name]
    box = boxes(graph, width)
    values = sampled(graph, box)
    rows = torch.cat([torch.eye(values.shape[2]), -torch.eye(values.shape[2])]).double()
    lower = crown(graph, box, rows)
    least = (values @ rows.T).amin(0)
    assert (lower <= least + 1e-9 * (1 + least.abs())).all()
    cheap = interval(graph, box)
    assert (cheap.lower.flatten(1) <= values.amin(0) + 1e-9).all()
    assert (cheap.upper.flatten(1) >= values.amax(0) - 1e-9).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_small_boxes_are_bounded_to_second_order(name: str) -> None:
    graph = NETWORKS[name]
    box = boxes(graph, 1e-5)
    slack = sampled(graph, box).amin(0) - crown(graph, box)
    assert (slack < 1e-3).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_is_bounded_as_its_boxes_one_by_one(name: str) -> None:
    graph = NETWORKS[name]
    box = boxes(graph, 0.2)
    together = crown(graph, box)
    alone = torch.cat([crown(graph, box.take(torch.tensor([b]))) for b in range(len(box))])
    assert torch.allclose(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_chunks_change_nothing(name: str) -> None:
    graph = NETWORKS[name]
    box = boxes(graph, 0.2)
    whole = Engine(graph, chunk_bytes=1 << 30).bound(box).lower
    assert torch.allclose(Engine(graph, chunk_bytes=4096).bound(box).lower, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_ragged_and_shared_rows_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = NETWORKS[name]
    box = boxes(graph, 0.2)
    monkeypatch.setattr(engine_module, "DENSE_SHARE", -1.0)
    shared = crown(graph, box)
    monkeypatch.setattr(engine_module, "DENSE_SHARE", 2.0)
    assert torch.allclose(crown(graph, box), shared, rtol=1e-6, atol=1e-6)


def reference(graph: Graph, box: Box, values: dict[str, Interval]) -> Tensor:
    """The last sweep on the engine's own intervals, with whole dense rows and nothing shared."""
    (output,) = graph.outputs
    size = graph[output].size
    terms = {output: torch.eye(size, dtype=torch.float64).expand(len(box), size, size)}
    bias = torch.zeros(len(box), size, dtype=torch.float64)
    for node in reversed(list(graph.nodes.values())):
        if node.op == "input" or node.name not in terms:
            continue
        relaxation: Relaxation = RULES[node.op].relax(Call.of(graph, node), [values[i] for i in node.inputs])
        pulled, extra = relaxation.pull(terms.pop(node.name).unflatten(2, node.shape))
        bias = bias + extra
        for source, rows in zip(node.inputs, pulled, strict=True):
            rows = rows.flatten(2)
            terms[source] = terms[source] + rows if source in terms else rows
    return bias + box.minimize(terms[graph.inputs[0]])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_sweep_is_the_plain_one(name: str) -> None:
    graph = NETWORKS[name]
    box = boxes(graph, 0.2)
    found = Engine(graph).bound(box)
    plain = reference(graph, box, dict(found.intervals))
    own = found.bias + box.minimize(found.slopes)
    assert torch.allclose(own, plain, rtol=1e-9, atol=1e-9)


def test_windows_give_the_bounds_of_dense_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual(size=12)
    box = boxes(graph, 0.2, count=3)
    monkeypatch.setattr(engine_module, "DENSE_SHARE", 2.0)  # rows for undecided entries only, on both sides
    windowed = Engine(graph).bound(box)
    monkeypatch.setattr(Engine, "is_map", lambda self, name: False)
    dense = Engine(graph).bound(box)
    for name, held in windowed.intervals.items():
        assert torch.allclose(held.lower, dense.intervals[name].lower, rtol=1e-9, atol=1e-9), name
        assert torch.allclose(held.upper, dense.intervals[name].upper, rtol=1e-9, atol=1e-9), name


@pytest.mark.parametrize("count", [1, 3])
def test_slabs_give_the_bounds_of_dense_rows(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = attention()
    box = boxes(graph, 0.2, count)
    monkeypatch.setattr(lanes, "common_part", lambda rows, level: 0 * rows[..., :1])  # what few whole rows gain
    kept = Engine(graph).bound(box)
    monkeypatch.setattr(slab_pulls, "pull", lambda relaxation, rows, owner: None)
    dense = Engine(graph).bound(box)
    for name, held in kept.intervals.items():
        assert torch.allclose(held.lower, dense.intervals[name].lower, rtol=1e-9, atol=1e-9), name
        assert torch.allclose(held.upper, dense.intervals[name].upper, rtol=1e-9, atol=1e-9), name


def test_windows_are_smaller_than_whole_values() -> None:
    graph = residual(size=16)
    second = [node.name for node in graph if node.op == "conv"][1]
    assert row_size(graph, second) < graph[second].size / 2
    assert row_size(graph, graph.outputs[0]) == max(node.size for node in graph)


def test_rows_of_a_jacobian_read_one_row_of_it() -> None:
    derivative = jacobian(mlp())
    assert len(derivative[derivative.outputs[0]].shape) == 2
    assert slab_size(derivative, derivative.outputs[0]) == max(node.shape[-1] for node in derivative)
    assert slab_size(attention(), attention().outputs[0]) <= max(node.size for node in attention())


def test_exact_nodes_are_the_first_linear_map_and_what_follows_entry_by_entry() -> None:
    graph = mlp()
    names = list(graph.nodes)
    assert exact_nodes(graph) == frozenset(names[:3])  # input, linear, relu
    assert graph[names[3]].op == "linear"


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_balls(norm: float) -> None:
    graph = mlp(5, (6, 10, 10, 3))
    generator = torch.Generator().manual_seed(0)
    ball = Ball(
        torch.randn(4, 6, generator=generator, dtype=torch.float64), torch.tensor([0.1, 0.3, 1.0, 2.0]).double(), norm
    )
    lower = crown(graph, ball)
    values = torch.stack([graph(p)[0] for p in ball.sample(2000, generator).transpose(0, 1)])
    assert (lower <= values.amin(0) + 1e-9).all()
    assert (lower >= crown(graph, ball.box()) - 1e-9).all()


def test_float32_agrees_with_float64() -> None:
    graph = NETWORKS["deep"]
    box = boxes(graph, 0.3)
    single = crown(graph.to(torch.float32), box.to(torch.float32)).double()
    assert torch.allclose(single, crown(graph, box), rtol=1e-4, atol=1e-4)


def test_a_tighter_box_of_width_zero_is_a_point() -> None:
    graph = NETWORKS["residual"]
    box = boxes(graph, 0.0)
    assert torch.allclose(crown(graph, box), graph(box.lower)[0], rtol=1e-9, atol=1e-9)


def test_nan_in_a_relaxation_never_becomes_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = NETWORKS["relu"]
    box = boxes(graph, 0.3)
    original = type(RULES["relu"]).relax

    def broken(self: object, call: Call, inputs: list[Interval]) -> Relaxation:
        lines = original(self, call, inputs)  # type: ignore[arg-type]
        assert not isinstance(lines, AffineRelaxation)
        return replace(lines, upper_slope=torch.full_like(lines.upper_slope, math.nan))  # type: ignore[call-arg]

    monkeypatch.setattr(type(RULES["relu"]), "relax", broken)
    lower = crown(graph, box)
    assert not lower.isnan().any()
    assert (lower <= sampled(graph, box).amin(0) + 1e-9).all()


def test_a_deadline_that_has_passed_ends_the_pass() -> None:
    graph = NETWORKS["deep"]
    with pytest.raises(OutOfTime):
        Engine(graph).bound(boxes(graph, 0.3), deadline=0.0)
