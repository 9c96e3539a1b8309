"""Branch-and-bound over ReLU signs: what it proves holds at every point that was tried, and it proves what is true."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch

import verif
from graphs import Graph, GraphBuilder
from relaxations.cut_boxes import CutBox
from relaxations.kernels.library import available
from relaxations.sets import Box
from tests.verif.networks import mlp
from verif.bounds import Engine, crown
from verif.bounds.engine import State
from verif.cases import Cases, Groups
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


@pytest.mark.parametrize("seed", range(6))
def test_subtrees_with_roots_of_their_own_prove_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every subtree of two signs is called hard after one case, and again inside."""
    for name, value in (("DEEP", 2), ("MANY", 1), ("ROOTS", 0.0)):
        monkeypatch.setattr(f"verif.signs.{name}", value)
    roots = []
    root = SignSearch._root
    monkeypatch.setattr(SignSearch, "_root", lambda self: (roots.append(self.depth), root(self))[1])
    graph = _network(seed)
    center = torch.rand(1, 30, generator=torch.Generator().manual_seed(seed)).double()
    box = Box(center - 1.0, center + 1.0)
    lowest, bound = _lowest(graph, box), float(crown(graph, box))
    assert not _search(graph, box, lowest + 1e-9, 1.0)[0]
    assert _search(graph, box, lowest - 0.1 * (lowest - bound), 30.0)[0]
    assert max(roots) >= 2


def test_what_is_put_aside_is_what_was_taken_out() -> None:
    """Also after steps in which no subtree began."""
    groups, generator = Groups(), torch.Generator().manual_seed(0)
    open_ = Cases.of_rows(torch.arange(40.0).double(), 0)
    seen = set()
    for step in range(12):
        deeper = torch.rand(len(open_), generator=generator) < (0.3 if step % 3 else 0.0)
        one = torch.where(deeper, 1, -1)
        open_ = open_.with_signs(one, torch.full_like(one, step), torch.ones_like(one))
        before = open_
        batch = open_.where(torch.rand(len(open_), generator=generator) < 0.5)
        open_, taken = groups.follow(batch, open_, 2, 2)
        gone = set(before.row.tolist()) - set(open_.row.tolist())
        assert set(taken.row.tolist()) == gone
        seen |= gone
    assert len(seen) > 10


@pytest.mark.parametrize("seed", range(4))
def test_no_case_is_lost(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a point violates the limit, nothing is proved, however many subtrees are searched by themselves."""
    for name, value in (("DEEP", 3), ("MANY", 4), ("ROOTS", 0.0), ("FIRST_BATCH", 4), ("LARGEST_BATCH", 4)):
        monkeypatch.setattr(f"verif.signs.{name}", value)
    graph = mlp(seed, (30, 12, 12, 12, 1))
    box = Box(torch.full((1, 30), -0.3).double(), torch.full((1, 30), 0.3).double())
    lowest, bound = _lowest(graph, box), float(crown(graph, box))
    assert not _search(graph, box, lowest + 0.02 * (lowest - bound), 1.5)[0]


def test_values_are_bounded_where_the_row_may_be_low() -> None:
    graph = _network(0)
    box = Box(torch.full((1, 30), -0.2).double(), torch.full((1, 30), 0.2).double())
    plain = Engine(graph).bound(box)
    points, slopes = box.sample(20_000, torch.Generator().manual_seed(0))[0], plain.slopes[0, 0]
    points[::2, :25] = torch.where(slopes >= 0, box.lower, box.upper)[:, :25]
    values = graph.evaluate({"x": points}, [node.name for node in graph])
    output = values[graph.outputs[0]][:, 0]
    limit = output.quantile(0.01)
    found = Engine(graph).bound(CutBox(box.lower, box.upper, slopes, plain.bias[0, 0] - limit), within={})
    for name in (node.inputs[0] for node in graph if node.op == "relu"):
        low, high = found.intervals[name]
        assert bool(((values[name] >= low - 1e-9) & (values[name] <= high + 1e-9))[output <= limit].all())
        assert float((plain.intervals[name].width - found.intervals[name].width).max()) > 1e-2


@pytest.mark.parametrize("seed", range(4))
def test_a_root_of_what_is_left_proves_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every case of a root gets a root of its own at once, as long as its line improves."""
    for name in ("NEAR", "WORTH"):
        monkeypatch.setattr(f"verif.signs.{name}", math.inf)
    boxes = []
    root = SignSearch._root
    monkeypatch.setattr(SignSearch, "_root", lambda self: (boxes.append(type(self.box)), root(self))[1])
    graph = _network(seed)
    center = torch.rand(1, 30, generator=torch.Generator().manual_seed(seed)).double()
    box = Box(center - 1.0, center + 1.0)
    lowest, bound = _lowest(graph, box), float(crown(graph, box))
    assert not _search(graph, box, lowest + 1e-9, 1.0)[0]
    assert _search(graph, box, lowest - 0.1 * (lowest - bound), 30.0)[0]
    assert CutBox in boxes


def test_what_only_rounding_leaves_open_has_no_root_in_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each root would be as good as the one before, without end."""
    monkeypatch.setattr("verif.signs.NEAR", math.inf)
    monkeypatch.setattr(SignSearch, "_refuted", lambda self, sweep, cases, *rest: torch.zeros(len(cases)).bool())
    graph = _network(0)
    box = Box(torch.full((1, 30), -1.0).double(), torch.ones(1, 30).double())
    assert not _search(graph, box, float(crown(graph, box)) - 1e-9, 0.3)[0]


def test_slopes_are_optimised_in_either_precision() -> None:
    network = Network("", _network(0), None)
    query = compile_query(verif.linear(network, [0.4] * 30, [0.6] * 30, [[1.0]], [-9.0]), network)
    search = Run(query, time.monotonic(), 60.0).search_of_regions()
    domains = search.domains.where(torch.arange(1))
    for engine, dtype in ((search.engine, torch.float32), (search.exact, torch.float64)):
        assert len(search.levels(engine, search.region_set(domains, dtype))) > 1


@pytest.mark.parametrize("seed", range(3))
def test_what_no_new_sign_comes_before_is_not_bounded_again(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranges that the search above found are those that sweeps would find."""
    swept: list[str] = []
    tighten = State.tighten
    monkeypatch.setattr(State, "tighten", lambda self, name, mask: (swept.append(name), tighten(self, name, mask)))
    graph = _network(seed)
    box = Box(torch.full((1, 30), -1.0).double(), torch.ones(1, 30).double())
    rows, limit = torch.ones(1, 1, 1).double(), torch.tensor([float(crown(graph, box)) + 3.0]).double()
    above = SignSearch(Engine(graph), box, rows, limit, time.monotonic() + 60)
    sweeps = above._root()
    assert sweeps is not None
    found = []
    for case in range(len(above.open)):
        below = above._subtree(sweeps.exact, above.open.where(torch.tensor([case])))
        for known in (0, -1):
            search = replace(below, box=box, known=known)
            swept.clear()
            search._root()
            found.append((set(swept), search.ranges, search.lowest))
    for (few, ranges, lowest), (many, others, same) in zip(found[::2], found[1::2], strict=True):
        assert few < many
        assert lowest == pytest.approx(same, abs=1e-6)
        for name, held in ranges.items():
            assert torch.allclose(held.lower, others[name].lower, atol=1e-9)
            assert torch.allclose(held.upper, others[name].upper, atol=1e-9)
