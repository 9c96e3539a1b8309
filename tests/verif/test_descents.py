"""Descents for counterexamples: how many points, and for how long, changes no verdict."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

from relaxations.sets import Box
from tests.verif.networks import mlp
from verif import Verdict, verify
from verif.attack import DRAWN, Pace, best_starts
from verif.properties import linear

GRAPH = mlp(0, (4, 8, 8, 2))
LOWER, UPPER = -torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)


@pytest.mark.parametrize("speed", [1e-3, 1e9])
def test_verdicts_do_not_depend_on_how_fast_points_descend(speed: float) -> None:
    points = 2 * torch.rand(1000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    low = float(GRAPH(points)[0][:, 0].min())
    with mock.patch.object(Pace, "measured", lambda *_: Pace(speed)):
        found = verify(GRAPH, linear(GRAPH, LOWER, UPPER, [1.0, 0.0], [low]), timeout=20)
        safe = verify(GRAPH, linear(GRAPH, LOWER, UPPER, [1.0, 0.0], [low - 3.0]), timeout=20)
    assert (found.verdict, safe.verdict) == (Verdict.VIOLATED, Verdict.HOLDS)


@pytest.mark.parametrize("drawn", [1, DRAWN])
def test_no_point_is_evaluated_that_would_start_anyway(drawn: int) -> None:
    asked: list[int] = []

    def gap(points: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
        asked.append(len(points))
        return points.sum(1)

    box, attacker = Box(LOWER[None], UPPER[None]), mock.Mock(gap=gap)
    region, generator = torch.zeros(1, dtype=torch.long), torch.Generator().manual_seed(0)
    found: Any = best_starts(attacker, [(box.to(torch.float32), region)], 10, generator, drawn)
    assert [len(part) for part in found] == [10, 10, 10]
    assert asked == ([] if drawn == 1 else [10 * drawn])
    assert bool((found[0] >= -1).all()) and bool((found[0] <= 1).all())
