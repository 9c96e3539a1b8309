"""A limit on memory: passes in slices of boxes, batches of a search that fit, and the sizes that the command takes."""

from __future__ import annotations

import pytest
import torch

import verif
from cli.options import memory_bytes
from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from verif.bounds import Engine
from verif.bounds.memory import UNLIMITED, bound_in_slices, box_bytes, ration


def _network() -> Graph:
    torch.manual_seed(0)
    builder = GraphBuilder()
    x = builder.input("x", (6,))
    for rows, columns in ((12, 6), (12, 12), (3, 12)):
        weight, bias = torch.randn(rows, columns).double(), torch.randn(rows).double()
        x = builder.add("linear", [x], {"weight": weight, "bias": bias})
        x = builder.add("relu", [x]) if rows == 12 else x
    return builder.build([x])


@pytest.mark.parametrize("boxes", [1, 2, 5, 100])
def test_slices_are_the_whole(boxes: int) -> None:
    graph = _network()
    lower = torch.rand(5, 6).double()
    region, engine = Box(lower, lower + 0.3), Engine(graph)
    whole = engine.bound(region)
    parts = bound_in_slices(engine, region, boxes * box_bytes(graph, 8))
    for name in ("lower", "slopes", "bias"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name), rtol=1e-12, atol=1e-12)


def test_a_ration_grows_with_the_limit_and_says_what_is_missing() -> None:
    graph = _network()
    small, large = (ration(graph, limit, 100_000_000, 4) for limit in (101_000_000, 110_000_000))
    assert 1 <= small.boxes <= large.boxes <= UNLIMITED.boxes
    assert small.state_bytes < large.state_bytes
    assert ration(graph, 1_000_000, 100_000_000, 4).missing > 99_000_000


def test_verdicts_do_not_depend_on_memory() -> None:
    model, property = "cases/collision/model.onnx", "cases/collision/head_on_is_never_clear.vnnlib"
    results = [verif.verify(model, property, memory=memory) for memory in (None, 1_000_000)]
    assert [r.verdict for r in results] == [verif.Verdict.HOLDS] * 2
    assert not results[0].warnings
    assert "more than it was given" in results[1].warnings[-1]


@pytest.mark.parametrize(
    ("text", "found"),
    [("2GB", 2 * 10**9), ("512MB", 512 * 10**6), ("1.5g", 1_500_000_000), ("4000", 4000), ("0", None), ("lots", None)],
)
def test_sizes(text: str, found: int | None) -> None:
    assert memory_bytes(text) == found
