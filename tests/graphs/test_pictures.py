"""Summaries and drawings of graphs."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import torch

from graphs import Graph, GraphBuilder
from graphs.draw import svg
from graphs.summary import OpCount, Port, summary

SPACE = "{http://www.w3.org/2000/svg}"


def residual() -> Graph:
    builder = GraphBuilder()
    x = builder.input("x<1>", (1, 3), "float64")
    h = builder.add("linear", [x], {"weight": torch.ones(8, 3).double(), "bias": torch.ones(8).double()}, name="h")
    r = builder.add("relu", [h], name="r")
    s = builder.add("linear", [r], {"weight": torch.ones(3, 8).double()}, name="s")
    y = builder.add("add", [s, x], name="y", origin="/residual/" + "long" * 20)
    return builder.build([y, builder.add("arg_max", [y], attrs={"axis": 1}, name="label")])


def test_summary() -> None:
    s = summary(residual())
    assert s.inputs == (Port("x<1>", (1, 3), "float64"),)
    assert s.outputs == (Port("y", (1, 3), "float64"), Port("label", (1,), "int64"))
    assert s.ops == (
        OpCount("linear", "affine", 2, 11),
        OpCount("relu", "scalar", 1, 8),
        OpCount("add", "affine", 1, 3),
        OpCount("arg_max", "custom", 1, 1),
    )
    assert (s.nodes, s.parameters, s.values, s.nonlinear, s.largest.name) == (5, 56, 26, 9, "h")


def test_drawing_shows_every_node_and_edge() -> None:
    graph = residual()
    root = ET.fromstring(svg(graph))
    titles = [title.text for title in root.iter(f"{SPACE}title")]
    assert titles == list(graph.nodes)
    edges = [path for path in root.iter(f"{SPACE}path") if path.get("class") == "edge"]
    assert len(edges) == sum(len(node.inputs) for node in graph)
    words = [text.text for text in root.iter(f"{SPACE}text")]
    assert "1 x 8" in words
    assert any(word and word.startswith("/residual/...") for word in words)
    assert [w for w in words if w in ("input", "affine", "scalar", "custom", "bilinear")] == [
        "input",
        "affine",
        "scalar",
        "custom",
    ]


def test_boxes_do_not_overlap() -> None:
    root = ET.fromstring(svg(residual()))
    boxes = [
        tuple(float(rect.get(key, "0")) for key in ("x", "y", "width", "height"))
        for rect in root.iter(f"{SPACE}rect")
        if rect.get("rx") == "6"
    ]
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    assert len(boxes) == 6
    for i, (x, y, w, h) in enumerate(boxes):
        assert min(x, y) >= 0
        assert x + w <= width
        assert y + h <= height
        for a, b, c, d in boxes[i + 1 :]:
            assert x + w <= a or a + c <= x or y + h <= b or b + d <= y
