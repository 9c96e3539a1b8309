"""Intervals inside a network by branch-and-bound: they hold at every point, and verdicts from them are the same."""

from __future__ import annotations

import contextlib
import itertools
import math
import time

import pytest
import torch

from graphs import Graph, GraphBuilder
from relaxations.kernels.library import available
from relaxations.sets import Box
from verif.bounds import Engine
from verif.bounds.engine import OutOfTime
from verif.fronts import Front, before
from verif.refined import RefinedSearch
from verif.signs import SignSearch

pytestmark = pytest.mark.skipif(not available(torch.float64), reason="the native library is not built")


def _dense(seed: int, deep: int = 3) -> Graph:
    torch.manual_seed(seed)
    builder = GraphBuilder()
    x = builder.input("x", (30,))
    for i, (columns, rows) in enumerate(itertools.pairwise((30, *[10] * deep, 1))):
        weight, bias = torch.randn(rows, columns).double() / columns**0.5, torch.randn(rows).double() / 3
        x = builder.add("linear", [x], {"weight": weight, "bias": bias})
        x = builder.add("relu", [x]) if i < deep else x
    return builder.build([x])


def _maps(seed: int) -> Graph:
    """Convolutions with a skip between them, whose values have channels."""
    torch.manual_seed(seed)
    builder = GraphBuilder()
    flat = builder.input("x", (72,))
    x = builder.add("reshape", [flat], attrs={"shape": (1, 2, 6, 6)})
    for i, channels in enumerate((2, 3, 3)):
        weight = torch.randn(3, channels, 3, 3).double() / (9 * channels) ** 0.5
        params = {"weight": weight, "bias": torch.randn(3).double() / 3}
        attrs = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
        y = builder.add("conv", [x], params, attrs)
        x = builder.add("relu", [y if i < 2 else builder.add("add", [x, y])])
    x = builder.add("reshape", [x], attrs={"shape": (108,)})
    x = builder.add("linear", [x], {"weight": torch.randn(1, 108).double() / 9, "bias": torch.zeros(1).double()})
    return builder.build([x])


def _box(graph: Graph, radius: float) -> Box:
    center = torch.rand(1, graph[graph.inputs[0]].size, generator=torch.Generator().manual_seed(1)).double()
    return Box(center - radius, center + radius)


def _search(graph: Graph, box: Box, limit: float, seconds: float) -> SignSearch:
    rows, target = torch.ones(1, 1, 1).double(), torch.tensor([limit]).double()
    return SignSearch(Engine(graph), box, rows, target, time.monotonic() + seconds)


def _lowest(graph: Graph, box: Box) -> float:
    """The lowest value that descents from many points find."""
    points, step = box.sample(2000)[0], 0.2
    for _ in range(60):
        points = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(graph(points)[0].sum(), points)
        points = (points - step * gradient.sign()).maximum(box.lower).minimum(box.upper)
        step *= 0.93
    return float(graph(points.detach())[0].min())


def test_a_front_allows_for_rounding_too() -> None:
    """Of all values up to its own."""
    graph = _dense(0)
    held = {node.name: torch.full(node.shape, 1e-9, dtype=torch.float64) for node in graph}
    names = [node.inputs[0] for node in graph if node.op == "relu"]
    engine = before(Engine(graph, errors=held), names[1])
    assert engine.errors == {node.name: held[node.name] for node in engine.graph}
    assert names[1] in engine.errors and names[2] not in engine.errors


@pytest.mark.parametrize("seconds", [None, 0.0, 0.4])
@pytest.mark.parametrize("made", [_dense, _maps])
def test_intervals_hold_and_are_tighter_the_longer_it_takes(made: type, seconds: float | None) -> None:
    graph = made(3)
    box = _box(graph, 0.3)
    search = _search(graph, box, 1e9, 60.0)
    next(search.run())
    values = graph.evaluate({"x": box.sample(5000)[0]}, [node.name for node in graph])
    for name in RefinedSearch(search)._values():
        front = Front.of(search, name)
        if seconds is not None:
            for _ in front.run(seconds):
                pass
        known, found, best = search.ranges[name], front.found, front.best
        assert bool(((values[name] >= found.lower - 1e-9) & (values[name] <= found.upper + 1e-9)).all())
        assert bool((found.lower >= known.lower - 1e-9).all())
        assert bool((found.upper <= known.upper + 1e-9).all())
        assert bool((found.lower <= best.lower.maximum(known.lower) + 1e-9).all())
        if seconds:
            assert float((known.width - found.width).max()) > 1e-2
            search.ranges[name] = found


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Values are tried at once and to their end, whatever they promise, until a search was begun again a few times."""
    lacking: list[float] = []
    values = {"FIRST": 0.0, "ROOTS": 0.0, "PROMISE": -math.inf, "WON": -math.inf, "LESS": math.inf}
    values |= {"ASKING": 1e9, "SLICE": 0.0}
    for name, value in values.items():
        monkeypatch.setattr(f"verif.refined.{name}", value)
    begin = RefinedSearch._begin

    def again(search: RefinedSearch, name: str) -> None:
        lacking.append(search.lacking)
        if len(lacking) % 3 == 0:
            monkeypatch.setattr(search, "_asked", lambda name: None)
        begin(search, name)

    monkeypatch.setattr(RefinedSearch, "_begin", again)
    return lacking


@pytest.mark.parametrize("seed", range(3))
def test_it_proves_what_is_true_and_nothing_else(seed: int, eager: list[float]) -> None:
    graph = _dense(seed)
    box = _box(graph, 0.3)
    lowest = _lowest(graph, box)
    root = _search(graph, box, lowest, 60.0)
    next(root.run())
    bound = root.lowest + lowest
    true = RefinedSearch(_search(graph, box, lowest - 0.25 * (lowest - bound), 60.0))
    for _ in true.run():
        pass
    assert not len(true.open)
    assert not true.unresolved
    assert len(eager) >= 2
    assert eager[1] < eager[0]
    false = RefinedSearch(_search(graph, box, lowest + 1e-9, 0.5))
    with contextlib.suppress(OutOfTime):  # in the middle of a root
        for _ in false.run():
            assert false.points.shape[1] == 30
    assert len(false.open) or false.unresolved


def test_a_value_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LESS": 1e-9, "LEAST": 0.0, "TRIAL": 0.0, "SLICE": 0.0}.items():
        monkeypatch.setattr(f"verif.refined.{name}", value)
    graph = _dense(0)
    search = RefinedSearch(_search(graph, _box(graph, 0.3), 1e9, 60.0))
    next(search.run())
    search.lacking = search.left = 1e9
    front = Front.of(search.search, "linear.2")
    done, wide = [], []
    while not front.finished:
        for _ in search._tightened(front):
            pass
        done.append(front.work.done)
        wide.append(float(search.search.ranges["linear.2"].width.sum()))
    assert len(done) > 3
    assert done == sorted(set(done))
    assert wide == sorted(wide, reverse=True)
    assert wide[-1] < wide[0]
    assert search.before == done[-1]
