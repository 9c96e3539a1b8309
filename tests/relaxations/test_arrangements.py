"""Vertices of hyperplanes in boxes: sums of ReLUs are nowhere lower, and as low at one of them."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from relaxations.arrangements import Arrangement, candidates


def _drawn(seed: int, coordinates: int, hyperplanes: int, count: int = 5) -> Arrangement:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, coordinates), (count, coordinates), (count, hyperplanes, coordinates), (count, hyperplanes)
    lower, width, weight, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shape)
    middle = torch.einsum("nmk,nk->nm", weight, lower + width.abs() / 2)
    return Arrangement(lower, lower + width.abs(), weight, 0.3 * bias - middle)


def _least(made: Arrangement, box: int, outer: Tensor, slopes: Tensor) -> float:
    """The least value of outer . relu(z) - slopes . y over one box, by a linear program for each pattern of signs."""
    best = float("inf")
    bounds = list(zip(made.lower[box].tolist(), made.upper[box].tolist(), strict=True))
    for signs in itertools.product((0.0, 1.0), repeat=len(outer)):
        active = torch.tensor(signs).double()
        cost = (outer * active) @ made.weight[box] - slopes
        turned = (1 - 2 * active)[:, None]
        rows, at = turned * made.weight[box], -turned[:, 0] * made.bias[box]
        found = linprog(cost.numpy(), rows.numpy(), at.numpy(), bounds=bounds)
        if found.status == 0:
            best = min(best, found.fun + float((outer * active) @ made.bias[box]))
    return best


@pytest.mark.parametrize(("coordinates", "hyperplanes"), [(1, 3), (2, 5), (3, 4), (4, 3), (5, 1)])
def test_sums_of_relus_are_least_at_a_vertex(coordinates: int, hyperplanes: int) -> None:
    made = _drawn(coordinates, coordinates, hyperplanes)
    found = made.vertices()
    assert not bool(found.ill.any())
    assert bool((found.off < 1e-10).all())
    assert len(found.owner) <= 5 * candidates(coordinates, hyperplanes)
    generator = torch.Generator().manual_seed(9)
    for box in range(5):
        outer, slopes = (torch.randn(n, generator=generator).double() for n in (hyperplanes, coordinates))
        points = found.point[found.owner == box]
        values = (points @ made.weight[box].T + made.bias[box]).relu() @ outer - points @ slopes
        assert float(values.min()) == pytest.approx(_least(made, box, outer, slopes), abs=1e-6)


def test_hyperplanes_that_may_meet_anywhere_are_told() -> None:
    made = _drawn(0, 3, 3, count=1)
    for factor in (1.0, -2.0, 1.0 + 1e-13):  # the same one, or nearly so
        weight, bias = made.weight.clone(), made.bias.clone()
        weight[0, 2], bias[0, 2] = factor * weight[0, 0], factor * bias[0, 0]
        weight[0, 2, 1] += 1e-16
        found = Arrangement(made.lower, made.upper, weight, bias).vertices()
        assert found.ill[0, 0] > 0
        assert found.ill[0, 2] > 0


def test_zero_weights_do_no_harm() -> None:
    lower, upper = torch.zeros(1, 2).double(), torch.ones(1, 2).double()
    weight = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).double()
    found = Arrangement(lower, upper, weight, torch.tensor([[-0.5, -2.0]]).double()).vertices()
    assert not bool(found.ill.any())
    assert {tuple(p) for p in found.point.tolist()} == {(a, b) for a in (0.0, 0.5, 1.0) for b in (0.0, 1.0)}
