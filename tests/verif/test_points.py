"""Input sets that are finitely many points for the network."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from verif import Verdict, verify
from verif.points import finite
from verif.properties import linear
from verif.query import Query, compile_query

LOWER, UPPER = torch.tensor([[-2.5, -1.25, 0.3], [1.75, 2.0, 0.3]], dtype=torch.float64)


def stepped(op: str, *, plain: bool = False) -> Graph:
    """A ReLU network of two inputs behind a step function and one that is read as it is; `plain`: the first is too."""
    generator = torch.Generator().manual_seed(0)
    builder = GraphBuilder()
    x = builder.input("x", (3,))
    parts = [builder.add("slice", [x], attrs={"axis": 0, "start": a, "stop": b}) for a, b in ((0, 1), (1, 2), (2, 3))]
    steps = [builder.add(op, [part]) for part in parts[:2]]
    joined = builder.add("concat", [*steps, parts[2], *parts[: int(plain)]], attrs={"axis": 0})
    for n, m in ((builder.nodes[joined].size, 8), (8, 1)):
        weight = torch.randn(m, n, generator=generator).double()
        joined = builder.add("linear", [joined], {"weight": weight})
        joined = builder.add("relu", [joined]) if m > 1 else joined
    return builder.build([joined])


def query(graph: Graph, threshold: float) -> Query:
    """Unsafe: the output is at most `threshold`."""
    return compile_query(linear(graph, LOWER, UPPER, [[1.0]], [threshold]), graph)


def values(graph: Graph) -> Tensor:
    """Outputs at many random points of the box, boundaries among them."""
    unit = torch.rand(5000, 3, generator=torch.Generator().manual_seed(1)).double()
    points = LOWER + unit * (UPPER - LOWER)
    whole = points.round().clamp(LOWER, UPPER)
    return graph(torch.cat([points, whole]))[0].flatten()


@pytest.mark.parametrize(("op", "cells"), [("floor", 5 * 5), ("ceil", 5 * 4), ("trunc", 4 * 4)])
def test_the_points_take_every_value(op: str, cells: int) -> None:
    graph = stepped(op)
    points = finite(query(graph, 0.0))
    assert points is not None and len(points) == cells
    at_points = graph(points.at(points.exact, slice(None)))[0].flatten()
    assert (torch.cdist(values(graph)[:, None], at_points[:, None]).amin(1) < 1e-12).all()


@pytest.mark.parametrize("op", ["floor", "ceil", "trunc"])
def test_verdicts(op: str) -> None:
    graph = stepped(op)
    least = float(values(graph).amin())
    holds = verify(None, query(graph, least - 1e-3))
    assert holds.verdict is Verdict.HOLDS
    assert holds.lower_bound is not None and 0 < holds.lower_bound <= 1e-3 + 1e-9
    assert holds.rounding == "proved"
    found = verify(None, query(graph, least + 1e-3))
    assert found.verdict is Verdict.VIOLATED and found.counterexample is not None


def test_what_rounding_could_decide_is_left_open() -> None:
    graph = stepped("floor")
    least = float(values(graph).amin())
    assert verify(None, query(graph, least)).verdict is Verdict.UNKNOWN


def test_points_that_are_alike_are_one() -> None:
    """What is read is whether floor(x_0) is 0 and whether it is floor(x_1), and x_2, which is fixed."""
    builder = GraphBuilder()
    x = builder.input("x", (3,))
    parts = [builder.add("slice", [x], attrs={"axis": 0, "start": a, "stop": a + 1}) for a in range(3)]
    first, second = (builder.add("floor", [part]) for part in parts[:2])
    flags = [builder.add("is_zero", [value]) for value in (first, builder.add("sub", [first, second]))]
    joined = builder.add("concat", [*flags, parts[2]], attrs={"axis": 0})
    graph = builder.build([builder.add("linear", [joined], {"weight": torch.tensor([[2.0, 1.0, 1.0]]).double()})])
    points = finite(query(graph, 0.0))
    assert points is not None and len(points) == 4
    found = graph(points.at(points.exact, slice(None)))[0].flatten()
    assert (torch.cdist(values(graph)[:, None], found[:, None]).amin(1) < 1e-12).all()


def test_programs_are_not_decided_by_points() -> None:
    graph = stepped("floor")
    asked = linear(graph, LOWER, UPPER, [[1.0]], [-100.0])
    assert verify(None, compile_query(asked, graph, arithmetic="float32")).verdict is Verdict.UNKNOWN


def test_what_is_not_enclosed_is_measured() -> None:
    graph = stepped("floor")
    with mock.patch("verif.points.unknown_ops", lambda _: ("floor",)):
        found = verify(None, query(graph, float(values(graph).amin()) - 1e-3))
    assert (found.verdict, found.rounding) == (Verdict.HOLDS, "measured: no proved error of floor")


def test_inputs_that_are_read_in_another_way_are_not_points() -> None:
    assert finite(query(stepped("floor", plain=True), 0.0)) is None
    assert finite(query(stepped("tanh"), 0.0)) is None


def test_no_time_is_no_verdict() -> None:
    assert verify(None, query(stepped("floor"), -100.0), timeout=0.0).verdict is Verdict.TIMEOUT
