"""Sparse gates whose entries are compared: bounds hold and are tighter, and comparisons are split."""

from __future__ import annotations

import math

import pytest
import torch

from graphs import Graph, GraphBuilder
from graphs.passes.gaps import compare_gates
from relaxations import RULES
from relaxations.sets import Box
from verif.bounds import Engine
from verif.values import ValueSearch


def gate(shape: tuple[int, ...], axis: int, k: int, seed: int) -> Graph:
    """A sparse gate of correlated entries: they share most of what depends on three inputs."""
    random, size = torch.Generator().manual_seed(seed), math.prod(shape)
    builder = GraphBuilder()
    weight = torch.randn(1, 3, generator=random).double() + 0.2 * torch.randn(size, 3, generator=random).double()
    bias = 0.1 * torch.randn(size, generator=random).double()
    x = builder.add("linear", [builder.input("x", (3,))], {"weight": weight, "bias": bias})
    x = builder.add("reshape", [x], attrs={"shape": shape})
    return builder.build([builder.add("top_k_softmax", [x], attrs={"k": k, "axis": axis})])


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(("shape", "axis"), [((5,), 0), ((2, 4), 1), ((4, 2), 0)])
def test_gates_with_comparisons_are_bounded_more_tightly(shape: tuple[int, ...], axis: int, k: int) -> None:
    plain = gate(shape, axis, k, seed=k)
    compared, size = compare_gates(plain), math.prod(shape)
    center = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)).double()
    box, rows = Box(center - 0.1, center + 0.1), torch.cat([torch.eye(size), -torch.eye(size)]).double()
    before, after = (Engine(graph).bound(box, rows).lower for graph in (plain, compared))
    points = box.sample(300, torch.Generator().manual_seed(2)).flatten(0, 1)
    value = compared(points)[0]
    assert torch.equal(value, plain(points)[0])
    least = (value.flatten(1) @ rows.T).unflatten(0, (20, 300)).amin(1)
    assert (after <= least + 1e-12).all()
    assert float((least - after).sum()) < 0.8 * float((least - before).sum())


def both_chosen() -> Graph:
    """Minus the product of the two gates of which one is 1 and the other 0."""
    builder = GraphBuilder()
    gates = builder.add("top_k_softmax", [builder.input("x", (2,))], attrs={"k": 1, "axis": 0})
    first, second = (builder.add("pick", [gates], {"index": torch.tensor([i])}) for i in range(2))
    return compare_gates(builder.build([builder.add("neg", [builder.add("mul", [first, second])])]))


@pytest.mark.parametrize("pays", [True, False])
def test_a_split_comparison_says_which_entry_is_chosen(pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it gates of .5 each look possible, whatever else is split."""
    if not pays:
        monkeypatch.setattr(type(RULES["top_k_softmax"]), "compared", ())
    box = Box(torch.full((1, 2), -1.0).double(), torch.ones(1, 2).double())
    row, limit = torch.ones(1, 1, 1).double(), torch.tensor([-0.1]).double()
    search = ValueSearch(Engine(both_chosen()), box, row, limit, math.inf)
    for _ in search.run():
        if search.done > 60:
            break
    assert (not len(search.open) and not search.unresolved) is pays
