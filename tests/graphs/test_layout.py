"""Networks with channels last: the same function without the transposes that the weights can do."""

from __future__ import annotations

import pytest
import torch

from graphs import Graph, GraphBuilder
from graphs.check import check
from graphs.passes.layout import absorb_transposes
from relaxations.kernels.program import compile_sweep

Pair = tuple[int, int]


def channels_last(stride: Pair = (2, 1), padding: Pair = (0, 2), dilation: Pair = (1, 1), groups: int = 1) -> Graph:
    """(H, W, C) pixels, two convolutions between transposes, a linear behind the second transpose."""
    torch.manual_seed(0)
    builder = GraphBuilder()
    x = builder.add("reshape", [builder.input("x", (7 * 6 * 4,))], attrs={"shape": (1, 7, 6, 4)})
    x = builder.add("transpose", [x], attrs={"perm": (0, 3, 1, 2)})
    attrs = {"stride": stride, "padding": padding, "dilation": dilation}
    params = {"weight": torch.randn(4, 4 // groups, 3, 2).double(), "bias": torch.randn(4).double()}
    x = builder.add("relu", [builder.add("conv", [x], params, {**attrs, "groups": groups})])
    x = builder.add("transpose", [x], attrs={"perm": (0, 2, 3, 1)})
    x = builder.add("reshape", [x], attrs={"shape": (1, builder.nodes[x].size)})
    params = {"weight": torch.randn(3, builder.nodes[x].size).double(), "bias": torch.randn(3).double()}
    return builder.build([builder.add("linear", [x], params)])


def same(graph: Graph, other: Graph) -> None:
    check(other)
    x = torch.randn(9, graph["x"].size, dtype=torch.float64)
    torch.testing.assert_close(graph(x)[0], other(x)[0])
    assert graph.outputs == other.outputs


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_transposes_go_into_the_weights(stride: Pair, padding: Pair, dilation: Pair) -> None:
    graph = channels_last(stride, padding, dilation)
    rewritten = absorb_transposes(graph)
    same(graph, rewritten)
    assert "transpose" not in {node.op for node in rewritten}
    assert compile_sweep(graph, graph.outputs[0]) is None
    assert compile_sweep(rewritten, rewritten.outputs[0]) is not None


@pytest.mark.parametrize("more", [{"dilation": (1, 2)}, {"groups": 2}])
def test_what_no_kernel_can_do_stays(more: dict[str, int]) -> None:
    graph = channels_last(**more)
    rewritten = absorb_transposes(graph)
    same(graph, rewritten)
    assert sum(node.op == "transpose" for node in rewritten) == 1


def test_other_transposes_stay() -> None:
    builder = GraphBuilder()
    x = builder.add("reshape", [builder.input("x", (24,))], attrs={"shape": (1, 2, 3, 4)})
    x = builder.add("transpose", [x], attrs={"perm": (0, 3, 2, 1)})
    kernel = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    x = builder.add("conv", [x], {"weight": torch.ones(2, 4, 1, 1).double()}, kernel)
    x = builder.add("transpose", [x], attrs={"perm": (0, 2, 3, 1)})
    graph = builder.build([builder.add("linear", [x], {"weight": torch.ones(5, 2).double()})])
    same(graph, absorb_transposes(graph))
    assert [node.op for node in absorb_transposes(graph)] == [node.op for node in graph]
