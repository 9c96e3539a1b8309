"""Gradients as products of matrices and slopes: what trees over vertices prove is what enumeration finds."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations import Interval
from relaxations.sets import Box
from tests.verif.test_lipschitz import around, local, mlp
from verif.jacobians import LocalNorm, flat_rows
from verif.lipschitz import Settings, lipschitz
from verif.lipschitz_vertices import VertexSearch
from verif.networks import Networks
from verif.operator_norms import OperatorNorm
from verif.slope_chains import Chain, Trees

NORM = OperatorNorm(math.inf, math.inf)


def row(graph: Graph) -> LocalNorm:
    weight = torch.zeros(1, graph[graph.outputs[0]].size, dtype=torch.float64)
    weight[0, 0] = 1.0
    return LocalNorm(flat_rows(Networks.of(graph).load(""), weight), NORM)


def conv() -> Graph:
    random = torch.Generator().manual_seed(5)
    builder = GraphBuilder()
    x = builder.input("x", (1, 1, 4, 4), "float64")
    weight = torch.randn(2, 1, 2, 2, generator=random, dtype=torch.float64)
    attrs = {"stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}
    inner = builder.add("gelu", [builder.add("conv", [x], {"weight": weight}, attrs)])
    flat = builder.add("reshape", [inner], attrs={"shape": (1, 8)})
    last = torch.randn(3, 8, generator=random, dtype=torch.float64)
    return builder.build([builder.add("linear", [builder.add("sigmoid", [flat])], {"weight": last})])


def known(one: LocalNorm, box: Box) -> tuple[Chain, list[Interval]]:
    chain = VertexSearch.chain_of(one)
    assert chain is not None
    return chain, chain.ranges(one.upper(box)[1].intervals)


def largest(chain: Chain, ranges: list[Interval]) -> float:
    """Of all vertices."""
    best = 0.0
    for corner in itertools.product((False, True), repeat=sum(one.lower.shape[1] for one in ranges)):
        high = torch.tensor(corner)[None].split([one.lower.shape[1] for one in ranges], 1)
        best = max(best, float(chain.norm(ranges, high)))
    return best


@pytest.mark.parametrize(
    "graph", [mlp((4, 5, 3), 1, "tanh"), mlp((3, 4, 5, 4, 2), 2, "silu"), conv()], ids=["tanh", "silu", "conv"]
)
def test_the_product_is_the_gradient(graph: Graph) -> None:
    one = row(graph)
    x = torch.rand(6, one.f[one.f.inputs[0]].size, dtype=torch.float64)
    chain, points = known(one, Box(x, x))
    assert torch.allclose(
        chain.norm(points, [torch.ones_like(p.lower, dtype=torch.bool) for p in points]), size(one, x)
    )


def size(one: LocalNorm, x: Tensor) -> Tensor:
    return one.matrices(x).abs().sum((1, 2))


@pytest.mark.parametrize(("sizes", "activation"), [((3, 4, 4, 2), "tanh"), ((2, 3, 3, 3, 1), "silu")])
def test_trees_prove_the_largest_vertex_and_nothing_below(sizes: tuple[int, ...], activation: str) -> None:
    for seed in range(4):
        one, box = row(mlp(sizes, seed, activation)), around(sizes[0], 0.5, seed)
        chain, ranges = known(one, box)
        exact = largest(chain, ranges)
        assert float(size(one, box.sample(500)[0]).max()) <= exact
        assert float(chain.ascended(ranges, 64, torch.Generator().manual_seed(0)).norm) == pytest.approx(exact)
        trees = Trees(chain, ranges)
        assert bool(trees.below(exact * 1.003, 10**6, math.inf))
        assert not bool(trees.below(exact * 0.999999, 10**6, math.inf))


def test_a_tree_stops_where_it_is_too_large_or_late() -> None:
    one = row(mlp((4, 12, 12, 2), 3, "tanh"))
    chain, ranges = known(one, around(4, 1.0))
    limit = 1.01 * float(chain.ascended(ranges, 64, torch.Generator().manual_seed(0)).norm)
    trees = Trees(chain, ranges)
    assert bool(trees.below(limit, 10**6, math.inf))
    assert not bool(trees.below(limit, 10, math.inf))
    assert not bool(trees.below(limit, 10**6, 0.0))


def test_other_networks_and_norms_have_no_chain() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (3,), "float64")
    residual = builder.build([builder.add("add", [builder.add("tanh", [builder.add("tanh", [x])]), x])])
    assert VertexSearch.chain_of(row(residual)) is None
    smooth = mlp((3, 4, 4, 2), 0, "tanh")
    assert VertexSearch.chain_of(row(mlp((3, 4, 4, 2), 0))) is None
    assert VertexSearch.chain_of(local(smooth, NORM)) is None
    assert VertexSearch.chain_of(local(mlp((3, 4, 4, 1), 0, "tanh"), OperatorNorm(2, 2))) is None


def test_the_search_is_between_samples_and_the_first_bound() -> None:
    graph, box = mlp((6, 10, 10, 3), 4, "tanh"), around(6, 0.4, 4)
    found = lipschitz(graph, box, settings=Settings(timeout=60, boxes=200))
    sampled = local(graph, NORM).matrices(box.sample(5000)[0]).abs().sum(2).max()
    assert float(sampled) <= found.upper < 0.7 * found.first
    assert found.lower <= found.upper
