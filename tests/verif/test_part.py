"""Passes over parts of boxes: points of the part lie within its bounds, and a part without points is empty."""

from __future__ import annotations

import torch

from relaxations import Interval
from tests.verif.test_lipschitz import around, mlp
from verif.bounds import Engine


def test_points_of_a_part_lie_within_its_bounds() -> None:
    graph, count = mlp((3, 8, 8, 2), 4), 20
    names = [node.inputs[0] for node in graph if node.op == "relu"]
    box = around(3, 0.7)
    centre = graph.evaluate({"x": box.sample(count)[0]}, names)
    random = torch.Generator().manual_seed(0)
    within = {}
    for name in names:  # a random quarter of the values keeps the sign that it has at a point of the part
        chosen = torch.rand(centre[name].shape, generator=random) < 0.25
        low = torch.where(chosen & (centre[name] > 0), 0.0, -torch.inf).double()
        high = torch.where(chosen & (centre[name] < 0), 0.0, torch.inf).double()
        within[name] = Interval(low, high)
    found = Engine(graph).bound(box.take(torch.zeros(count, dtype=torch.long)), within=within)
    whole = Engine(graph).bound(box)
    assert found.part is not None and not found.part.empty.any()
    assert (found.lower > whole.lower + 1e-6).any()
    points = box.sample(20_000)[0]
    values = graph.evaluate({"x": points}, [*names, graph.outputs[0]])
    inside = torch.ones(count, len(points), dtype=torch.bool)
    for name in names:
        low, high = (end[:, None] for end in within[name])
        inside &= ((values[name] >= low) & (values[name] <= high)).all(-1)
    assert (inside.sum(1) > 0).sum() > 5
    for part in range(count):
        assert (values[graph.outputs[0]][inside[part]] >= found.lower[part] - 1e-9).all()


def test_a_part_without_points_is_empty() -> None:
    graph = mlp((2, 3, 1), 0)
    name = next(node.inputs[0] for node in graph if node.op == "relu")
    most = Engine(graph).bound(around(2, 0.3)).intervals[name].upper
    beyond = Interval(most + 1e-3, torch.full_like(most, torch.inf))
    found = Engine(graph).bound(around(2, 0.3), within={name: beyond})
    assert found.part is not None and found.part.empty.all()
