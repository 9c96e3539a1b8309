"""Rows that are windows: through ops that keep them, they say what whole rows say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations import window_pulls
from relaxations.sets import Box
from verif.bounds import Engine
from verif.bounds.structure import window_behind

Attrs = dict[str, object]
PLAIN: Attrs = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
UP: Attrs = {"stride": (2, 2), "padding": (0, 0), "output_padding": (0, 0), "dilation": (1, 1), "groups": 1}
STEPS = {
    "scale": [("scale", {"factor": (2, 1, 1)}, {})],
    "shift": [("shift", {"offset": (2, 1, 1)}, {}), ("shift", {"offset": (1, 2, 10, 10)}, {})],
    "conv_transpose": [("conv_transpose", {"weight": (2, 2, 4, 4), "bias": (2,)}, UP)],
    "conv_transpose padded": [
        ("conv_transpose", {"weight": (2, 2, 3, 2)}, {**UP, "padding": (1, 0), "output_padding": (1, 0)})
    ],
    "conv_transpose uneven": [("conv_transpose", {"weight": (2, 2, 2, 5)}, {**UP, "stride": (3, 1)})],
    "gather": [("gather", {"index": [0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 6, 6, 8, 9]}, {"axis": axis}) for axis in (2, 3)],
    "gather in no order": [("gather", {"index": [9, 0, 1, 5, 2, 2, 3, 8]}, {"axis": 2})],
    "reshape": [("reshape", {}, {"shape": (1, 2, 5, 20)})],
}  # fmt: skip


def network(steps: list[tuple[str, dict[str, object], Attrs]]) -> Graph:
    """Steps between convolutions, ReLUs around them."""
    generator = torch.Generator().manual_seed(0)
    builder = GraphBuilder()

    def add(x: str, op: str, sizes: dict[str, object], attrs: Attrs) -> str:
        params = {
            name: torch.tensor(size) if isinstance(size, list) else torch.randn(size, generator=generator).double()  # type: ignore[call-overload]
            for name, size in sizes.items()
        }
        return builder.add(op, [x], params, attrs)

    x = builder.add("reshape", [builder.input("x", (200,))], {}, {"shape": (1, 2, 10, 10)})
    x = builder.add("relu", [add(x, "conv", {"weight": (2, 2, 3, 3), "bias": (2,)}, PLAIN)])
    x = add(x, "conv", {"weight": (2, 2, 3, 3), "bias": (2,)}, PLAIN)
    for step in steps:
        x = add(x, *step)
    x = builder.add("relu", [x])  # of unit rows of the last step
    x = builder.add("relu", [add(x, "conv", {"weight": (2, 2, 3, 3), "bias": (2,)}, PLAIN)])
    size = builder.nodes[x].size
    x = builder.add("reshape", [x], {}, {"shape": (size,)})
    return builder.build([add(x, "linear", {"weight": (2, size)}, {})])


def boxes(count: int) -> Box:
    centre = torch.randn(count, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Box(centre - 0.01, centre + 0.01)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("count", [1, 2])
def test_windows_say_what_whole_rows_say(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, box = network(STEPS[name]), boxes(count)
    monkeypatch.setattr("verif.bounds.tiles.TilePrograms.sweep", lambda self, at, like: None)
    windowed = Engine(graph).bound(box)
    monkeypatch.setattr(window_pulls, "start", lambda relaxation, rows: None)
    monkeypatch.setattr(window_pulls, "pull", lambda relaxation, rows, owner: None)
    dense = Engine(graph).bound(box)
    for at, held in windowed.intervals.items():
        assert torch.allclose(held.lower, dense.intervals[at].lower, rtol=1e-9, atol=1e-9), at
        assert torch.allclose(held.upper, dense.intervals[at].upper, rtol=1e-9, atol=1e-9), at
    inside(graph, box, windowed.lower)


def inside(graph: Graph, box: Box, lower: Tensor) -> None:
    """Lower bounds are below the outputs at points."""
    points = box.sample(20, torch.Generator())
    assert bool((lower[:, None] <= graph(points.flatten(0, 1))[0].unflatten(0, points.shape[:2])).all())


@pytest.mark.parametrize("name", ["scale", "shift", "conv_transpose", "gather"])
def test_rows_stay_windows(name: str) -> None:
    graph = network(STEPS[name])
    node = next(node for node in graph if node.op == name)
    back = window_behind(graph, node, graph[node.inputs[0]], (3, 3))
    assert back is not None and max(back) <= 3
