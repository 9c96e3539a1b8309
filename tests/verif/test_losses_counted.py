"""What counted rounding takes off is at least what any program could lose, and what belongs to each box."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.kernels.tiles import TileSweep
from relaxations.sets import Box
from tests.verif.networks import weights
from tests.verif.test_roundoff import network
from verif.bounds.engine import OutOfTime
from verif.running import ALL, UNIT, Running, _State

SINGLE = torch.float32


def lost(graph: Graph, points: Tensor) -> dict[str, Tensor]:
    """What programs may lose at points (P, n), to first order and at worst: a unit for each product and each sum."""
    values, found = {graph.inputs[0]: points}, {graph.inputs[0]: torch.zeros_like(points)}
    for node in graph:
        held, errors = [values[name] for name in node.inputs], [found[name] for name in node.inputs]
        if node.op == "linear":
            weight, bias = (graph.params(node).get(name, torch.zeros(())) for name in ("weight", "bias"))
            size = held[0].abs() @ weight.abs().T + bias.abs()
            found[node.name] = errors[0] @ weight.abs().T + weight.shape[1] * UNIT[SINGLE] * size
        elif node.op == "add":
            found[node.name] = errors[0] + errors[1] + UNIT[SINGLE] * (held[0] + held[1]).abs()
        elif held:
            found[node.name] = torch.where(held[0] > 0, errors[0], 0.0)
        if held:
            values[node.name] = graph.apply(node, held)
    return found


def sums(seed: int, inputs: int) -> Graph:
    """Sums of many products, and nothing else."""
    builder = GraphBuilder()
    x = builder.input("x", (inputs,))
    for layer, (rows, columns) in enumerate([(400, inputs), (400, 400)]):
        x = builder.add("linear", [x], {"weight": weights(seed + layer, rows, columns)})
    return builder.build([builder.add("linear", [x], {"weight": weights(seed + 2, 2, 400)})])


@pytest.mark.parametrize("inputs", [3, 40])
@pytest.mark.parametrize("radius", [0.0, 0.5])
def test_more_is_counted_than_programs_lose(inputs: int, radius: float) -> None:
    """Inputs are small beside biases or not, and neurons decided or not."""
    for seed in (*range(8), 9):
        graph, size = network(seed, seed % 3, inputs).to(torch.float64), 10.0 ** -(4 * (seed % 2))
        graph = sums(seed, inputs) if seed == 9 else graph
        centre = size * torch.randn(1, inputs, generator=torch.Generator().manual_seed(seed)).double()
        box = Box((centre - radius * size).float(), (centre + radius * size).float())
        states: list[Any] = []
        with mock.patch.object(_State, "optimised", _noting(states)):
            Running(graph, SINGLE).lower(box, ALL[1])
        points = torch.cat([box.sample(50, torch.Generator())[0], box.center]).double()
        for name, needed in lost(graph, points).items():
            assert bool((states[0].total[name].double() >= needed).all()), (seed, name)


def _noting(states: list[Any]) -> object:
    plain = _State.optimised

    def optimised(state: _State, *args: Any) -> Tensor:
        states.append(state)
        return plain(state, *args)

    return optimised


def test_boxes_lose_what_they_lose_alone() -> None:
    """Points of many sizes: what the rows of one lose says nothing about those of another."""
    for seed in range(6):
        graph, size = network(seed, 1, 20), 10.0 ** torch.arange(-4, 5, 2)[:, None]
        centre = size * torch.randn(5, 20, generator=torch.Generator().manual_seed(seed))
        boxes, running = Box(centre - 0.1 * size, centre + 0.1 * size), Running(graph, SINGLE)
        together = running.lower(boxes, ALL[0])[0]
        pairs = zip(boxes.lower.split(1), boxes.upper.split(1), strict=True)
        alone = torch.cat([running.lower(Box(*pair), ALL[0])[0] for pair in pairs])
        assert bool(((together - alone).abs() <= 1e-5 * alone.abs().amax(1, keepdim=True)).all())


def test_rows_without_an_end_are_no_bounds() -> None:
    """A sweep that is told to optimise, and comes to no end."""
    plain, centre = TileSweep.rows, torch.zeros(1, 20, dtype=torch.float64)

    def late(sweep: TileSweep, *args: Any) -> Any:
        return plain(sweep, *args)._replace(complete=False)

    with mock.patch.object(TileSweep, "rows", late), pytest.raises(OutOfTime):
        Running(network(0, 0, 20)).lower(Box(centre, centre), ALL[1])


@pytest.mark.parametrize("signs", [False, True])
def test_tiles_lose_all_that_any_row_could(signs: bool) -> None:
    """Of each box its own total, from both ends; what is not asked for stays."""
    found = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0])
    total, rows = torch.tensor([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]]), (torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]))
    tiles = SimpleNamespace(both=lambda *_: found, ends=lambda *_: found)
    state: Any = SimpleNamespace(tiles=tiles, at="z", total={"z": total}, boxes=2, deadline=0.0)
    state.expected = {"z": torch.ones(2, 3, dtype=torch.int8)} if signs else {}
    sweep: Any = SimpleNamespace(signs=signs)
    lower, upper = torch.full((2, 3), -9.0), torch.full((2, 3), 9.0)
    _State._tiled(state, sweep, rows, (lower, upper))
    assert torch.equal(lower, torch.tensor([[0.9, -9.0, 1.7], [-9.0, 1.0, -9.0]]))
    assert torch.equal(upper, torch.tensor([[4.1, 9.0, 5.3], [9.0, 8.0, 9.0]]))
