"""The check of graphs finds every way to be malformed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from graphs import Graph, GraphBuilder, GraphError, Node
from graphs.check import check


def graph() -> Graph:
    builder = GraphBuilder()
    x = builder.input("x", (1, 3))
    h = builder.add("linear", [x], {"weight": torch.ones(2, 3).double()}, name="h")
    return builder.build([builder.add("relu", [h], name="y")])


def test_a_good_graph_passes() -> None:
    check(graph())


def change(key: str, /, **fields: object) -> Graph:
    g = graph()
    return replace(g, nodes={**g.nodes, key: replace(g[key], **fields)})


BAD = {
    "it is stored under another name, 'y'": lambda: change("y", name="z"),
    "there is no op 'cosmic' in the op table": lambda: change("y", op="cosmic"),
    "it has no inputs": lambda: change("y", inputs=()),
    "it reads 'y', which is not computed before it": lambda: change("h", inputs=("y",)),
    "its weight 'w' does not exist": lambda: change("h", params={"weight": "w"}),
    "it has no origin": lambda: change("y", origin=""),
    "its shape is [2, 1] but it computes [1, 2]": lambda: change("y", shape=(2, 1)),
    "output 'z' does not exist": lambda: replace(graph(), outputs=("z",)),
    "there is no output": lambda: replace(graph(), outputs=()),
    "the inputs are ['x', 'h'] but the input nodes are ['x']": lambda: replace(graph(), inputs=("x", "h")),
    "it holds NaN or infinite numbers": lambda: replace(
        graph(), constants={"h.weight": torch.full((2, 3), torch.nan).double()}
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_graph_is_found(message: str) -> None:
    with pytest.raises(GraphError) as caught:
        check(BAD[message]())
    assert (caught.value.code, caught.value.message) == ("G107", message)


def test_an_op_that_fails_is_named() -> None:
    bad = change("h", inputs=("wide",))
    wide = Node("wide", "reshape", ("x",), attrs={"shape": (3, 1)}, shape=(3, 1), origin="wide")
    nodes = {"x": bad["x"], "wide": wide, "h": bad["h"], "y": bad["y"]}
    with pytest.raises(GraphError, match="it cannot be computed") as caught:
        check(replace(bad, nodes=nodes))
    assert caught.value.where == "node 'h' (linear)"


def test_shapes_can_be_left_out() -> None:
    check(change("y", shape=(2, 1)), shapes=False)
