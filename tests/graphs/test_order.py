"""Canonical order of hidden units."""

from __future__ import annotations

from itertools import pairwise

import torch

from graphs import Graph, GraphBuilder
from graphs.check import check
from graphs.passes.order import order_units
from verif import Verdict, verify
from verif.properties import linear
from verif.query import Property, compile_query, key


def network(permute: bool, shift: float = 0.0) -> Graph:
    """A ReLU network of three layers; `permute` shuffles its hidden units, `shift` moves its output."""
    generator = torch.Generator().manual_seed(0)
    sizes = (3, 16, 16, 2)
    weights = [torch.randn(m, n, generator=generator, dtype=torch.float64) for n, m in pairwise(sizes)]
    biases = [torch.randn(m, generator=generator, dtype=torch.float64) for m in sizes[1:]]
    for layer in range(2 if permute else 0):
        order = torch.randperm(16, generator=generator)
        weights[layer], biases[layer] = weights[layer][order], biases[layer][order]
        weights[layer + 1] = weights[layer + 1][:, order]
    builder = GraphBuilder()
    x = builder.input("x", (3,))
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = builder.add("linear", [x], {"weight": weight, "bias": bias + shift * (layer == 2)})
        x = builder.add("relu", [x]) if layer < 2 else x
    return builder.build([x])


def test_the_function_stays_and_the_order_does_not_matter() -> None:
    first, second = order_units(network(False)), order_units(network(True))
    check(first)
    x = torch.randn(50, 3, dtype=torch.float64)
    torch.testing.assert_close(first(x)[0], network(False)(x)[0])
    for node, other in zip(first, second, strict=True):
        for role, value in first.params(node).items():
            assert torch.equal(value, second.params(other)[role]), node.name


def equivalence(permuted: Graph) -> Property:
    """Unsafe: the outputs of f and g differ by 0.1 or more somewhere in a box."""
    builder = GraphBuilder()
    f, g = (builder.input(key(name, permuted.outputs[0]), (2,)) for name in "fg")
    base = linear(permuted, -torch.ones(3), torch.ones(3), torch.cat([torch.eye(2), -torch.eye(2)]), [-0.1] * 4)
    gap = builder.add("sub", [f, g])
    rows = torch.cat([torch.eye(2), -torch.eye(2)]).double()
    atoms = builder.build([builder.add("linear", [gap], {"weight": rows})])
    positions = torch.arange(3)
    gather = {key(name, permuted.inputs[0]): positions for name in "fg"}
    return Property(gather, atoms, base.lower, base.upper, base.clauses, base.spans)


def test_a_permuted_copy_is_the_same_network() -> None:
    graphs = [("f", network(False)), ("g", network(True))]
    query = compile_query(equivalence(graphs[1][1]), graphs)
    assert sum(node.op == "relu" for node in query.graph) <= 2
    result = verify(None, query, timeout=20)
    assert result.verdict is Verdict.HOLDS
    assert result.domains == 1


def test_a_copy_that_differs_is_told_apart() -> None:
    graphs = [("f", network(False)), ("g", network(True, shift=0.2))]
    result = verify(None, compile_query(equivalence(graphs[1][1]), graphs), timeout=20)
    assert result.verdict is Verdict.VIOLATED
