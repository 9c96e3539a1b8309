"""Parts of a query: together they are the whole, and what is proved of one holds at each of its points."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import verif
from graphs import Graph
from relaxations.kernels.library import available
from relaxations.sets import Box
from tests.verif.test_sign_search import _lowest, _network
from verif.bounds import Engine
from verif.bounds.engine import OutOfTime
from verif.parts import plan
from verif.query import Network, Query, compile_query
from verif.sides import below, within
from verif.signs import SignSearch
from verif.splits import INPUT, Part, Split, parts
from verif.strategy import Strategy

native = pytest.mark.skipif(not available(torch.float64), reason="the native library is not built")
CASES = Path(__file__).resolve().parents[2] / "cases"


def query(graph: Graph, radius: float, above: float) -> Query:
    """Whether the output exceeds a number around a point."""
    network, ends = Network("", graph, None), ([0.5 - radius] * 30, [0.5 + radius] * 30)
    return compile_query(verif.linear(network, *ends, [[1.0]], [above]), network)


def proved(graph: Graph, box: Box, limit: float, part: Part, seconds: float) -> bool:
    rows = torch.ones(1, 2, 1, dtype=torch.float64)
    limits = torch.tensor([limit - 1.0, limit], dtype=torch.float64)
    search = below(SignSearch(Engine(graph), box, rows, limits, time.monotonic() + seconds), part)
    for _ in search.run():
        pass
    return not len(search.open) and not search.unresolved


def inside(graph: Graph, points: Tensor, part: Part) -> Tensor:
    """Which points (P, n) belong to a part of signs, (P,)."""
    found = torch.ones(len(points), dtype=torch.bool)
    fronts = [graph[split.name].inputs[0] for split in part.splits]
    values = graph.evaluate({graph.inputs[0]: points}, fronts)
    for split, above in part.sides():
        front = values[graph[split.name].inputs[0]].flatten(1)[:, split.entry]
        found &= (front >= 0) if above else (front <= 0)
    return found


@native
@pytest.mark.parametrize("seed", range(3))
def test_what_is_proved_of_a_part_holds_at_its_points(seed: int) -> None:
    graph = _network(seed)
    box = Box(torch.full((1, 30), -0.5).double(), torch.full((1, 30), 1.5).double())
    lowest, points = _lowest(graph, box), box.sample(20_000)[0]
    values = graph(points)[0][:, 0]
    limit = float(values.quantile(0.01))
    splits = plan(query(graph, 1.0, lowest - 0.01), 3, 20.0, Strategy())
    assert len(splits) == 3 and all(split.name != INPUT for split in splits)
    covered, sure = torch.zeros(len(points), dtype=torch.bool), []
    for part in parts("k", splits):
        own = inside(graph, points, part)
        covered |= own
        if proved(graph, box, limit, part, 0.3):
            sure.append(part)
            assert not bool((values[own] <= limit).any())
    assert bool(covered.all()) and 0 < len(sure) < 8
    assert all(proved(graph, box, lowest - 0.1, part, 10.0) for part in parts("k", splits))


@native
@pytest.mark.parametrize("calls", range(4))
def test_where_there_is_no_time_to_choose_inputs_are_halved(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over at the first, second, ... pass."""
    left, bound = iter(range(calls)), Engine.bound

    def late(self: Engine, *args: Any, **more: Any) -> Any:
        if next(left, None) is None:
            raise OutOfTime
        return bound(self, *args, **more)

    monkeypatch.setattr(Engine, "bound", late)
    found = plan(query(_network(0), 0.4, 2.0), 2, 60.0, Strategy())
    assert len(found) == 2
    assert calls or {split.name for split in found} == {INPUT}


def test_boxes_of_parts_cover_the_whole() -> None:
    asked = compile_query(CASES / "collision" / "dead_ahead_never_left.vnnlib", CASES / "collision" / "model.onnx")
    splits = plan(asked, 3, 20.0, Strategy("boxes"))
    assert splits and all(split.name == INPUT for split in splits)
    lower, upper = asked.property.lower, asked.property.upper
    points = lower[0] + torch.rand(1000, lower.shape[1]).double() * (upper - lower)[0]
    covered = torch.zeros(1000, dtype=torch.bool)
    for part in parts("k", splits):
        own = within(asked, part).property
        covered |= ((points >= own.lower) & (points <= own.upper)).all(1)
        assert bool((own.lower >= lower).all() and (own.upper <= upper).all())
        assert float((own.upper - own.lower).prod()) < 0.6 ** len(splits) * float((upper - lower).prod())
    assert bool(covered.all())


def test_regions_outside_a_part_are_left_out() -> None:
    from dataclasses import replace

    asked = compile_query(CASES / "collision" / "dead_ahead_never_left.vnnlib", CASES / "collision" / "model.onnx")
    one = asked.property
    shifted = replace(
        one,
        lower=torch.cat([one.lower, one.lower + 100]),
        upper=torch.cat([one.upper, one.upper + 100]),
        spans=one.spans.repeat(2, 1, 1),
    )
    split = Split(INPUT, 0, float(one.upper[0, 0]) + 1, verif.__version__)
    below_, above = (within(replace(asked, property=shifted), part).property for part in parts("k", [split]))
    assert torch.equal(below_.lower, one.lower) and torch.equal(above.upper, one.upper + 100)
    assert len(above.spans) == 1 and math.isfinite(float(above.lower.sum()))


def test_parts_of_a_part_are_in_it() -> None:
    splits = [Split(INPUT, axis, 0.5, verif.__version__) for axis in range(5)]
    for part in parts("k", splits[:2]):
        inner = parts("p", splits[2:], part)
        assert all(one.sides()[:2] == part.sides() for one in inner)
        assert len({tuple(one.sides()) for one in inner}) == 8
