"""Branch-and-bound over ReLU signs: what it proves holds at every point that was tried, and it proves what is true."""

from __future__ import annotations

import math
import time

import pytest
import torch

import verif
from graphs import Graph, GraphBuilder
from relaxations.kernels.library import available
from relaxations.sets import Box
from tests.verif.networks import mlp
from verif.bounds import Engine, crown
from verif.query import Network, compile_query
from verif.signs import STORE_BYTES, SignSearch
from verif.verify import Run

pytestmark = pytest.mark.skipif(not available(torch.float64), reason="the native library is not built")


def _network(seed: int, activation: str = "relu") -> Graph:
    torch.manual_seed(seed)
    builder = GraphBuilder()
    x = builder.input("x", (30,))
    for i, (rows, columns) in enumerate(((10, 30), (8, 10), (1, 8))):
        weight, bias = torch.randn(rows, columns).double() / columns**0.5, torch.randn(rows).double() / 3
        x = builder.add("linear", [x], {"weight": weight, "bias": bias})
        x = builder.add(activation, [x]) if i < 2 else x
    return builder.build([x])


def _lowest(graph: Graph, box: Box) -> float:
    """The lowest value that descents from many points find."""
    points = box.sample(2000)[0]
    step = 0.2
    for _ in range(60):
        points = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(graph(points)[0].sum(), points)
        points = torch.minimum(torch.maximum(points - step * gradient.sign(), box.lower), box.upper)
        step *= 0.93
    return float(graph(points.detach())[0].min())


def _search(graph: Graph, box: Box, limit: float, seconds: float, store: int = STORE_BYTES) -> tuple[bool, int]:
    """Whether the output was proved to exceed the limit, and in how many cases."""
    rows = torch.ones(1, 1, 1, dtype=torch.float64)
    search = SignSearch(
        Engine(graph), box, rows, torch.tensor([limit], dtype=torch.float64), time.monotonic() + seconds, store
    )
    for _ in search.run():
        assert search.points.shape[1] == 30
    return not len(search.open) and not search.unresolved, search.done


@pytest.mark.parametrize("seed", range(8))
def test_the_minimum_is_the_border(seed: int) -> None:
    graph = _network(seed)
    center = torch.rand(1, 30).double()
    box = Box(center - 1.0, center + 1.0)
    lowest, bound = _lowest(graph, box), float(crown(graph, box))
    assert bound < lowest
    assert not _search(graph, box, lowest + 1e-9, 2.0)[0]
    proved, cases = _search(graph, box, lowest - 0.25 * (lowest - bound), 30.0)
    assert proved
    assert cases > 1


def test_little_memory_changes_the_order_and_not_the_verdict() -> None:
    graph = _network(2)
    box = Box(torch.zeros(1, 30).double(), torch.full((1, 30), 2.0).double())
    limit = 0.75 * (lowest := _lowest(graph, box)) + 0.25 * float(crown(graph, box))
    assert _search(graph, box, limit, 30.0, store=1)[0]
    assert not _search(graph, box, lowest + 1e-9, 1.0, store=1)[0]


def test_no_time_proves_nothing() -> None:
    graph, box = _network(0), Box(torch.zeros(1, 30).double(), torch.ones(1, 30).double())
    rows = torch.ones(1, 1, 1, dtype=torch.float64)
    search = SignSearch(Engine(graph), box, rows, torch.tensor([-math.inf]).double(), math.inf)
    assert list(search.run()) == [None]
    assert not len(search.open)  # everything exceeds -inf
    late = SignSearch(Engine(graph), box, rows, torch.tensor([1e9]).double(), time.monotonic() + 0.2)
    for _ in late.run():
        pass
    assert len(late.open) or late.unresolved


@pytest.mark.parametrize(("activation", "found"), [("relu", True), ("abs", False), ("sigmoid", False)])
def test_only_networks_of_relus_have_signs(activation: str, found: bool) -> None:
    box = Box(torch.zeros(1, 30).double(), torch.ones(1, 30).double())
    assert Engine(_network(0, activation)).has_signs(box) is found


@pytest.mark.parametrize("seed", range(4))
def test_no_case_is_lost(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a point violates the limit, nothing is proved, however small the batches are."""
    for name, value in (("FIRST_BATCH", 4), ("LARGEST_BATCH", 4)):
        monkeypatch.setattr(f"verif.signs.{name}", value)
    graph = mlp(seed, (30, 12, 12, 12, 1))
    box = Box(torch.full((1, 30), -0.3).double(), torch.full((1, 30), 0.3).double())
    lowest, bound = _lowest(graph, box), float(crown(graph, box))
    assert not _search(graph, box, lowest + 0.02 * (lowest - bound), 1.5)[0]


def test_slopes_are_optimised_in_either_precision() -> None:
    network = Network("", _network(0), None)
    query = compile_query(verif.linear(network, [0.4] * 30, [0.6] * 30, [[1.0]], [-9.0]), network)
    search = Run(query, time.monotonic(), 60.0).search_of_regions()
    domains = search.domains.where(torch.arange(1))
    for engine, dtype in ((search.engine, torch.float32), (search.exact, torch.float64)):
        assert len(search.levels(engine, search.region_set(domains, dtype))) > 1
