"""Boxes met with a half-space: bounds hold at its points, and come near the best ones."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linprog

from relaxations.cut_boxes import CutBox


def _cut(seed: int, share: float) -> CutBox:
    """A box of which about a share of the line's range is left."""
    generator = torch.Generator().manual_seed(seed)
    lower, slopes = (torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(2))
    upper = lower + torch.rand(12, generator=generator, dtype=torch.float64)
    upper[3] = lower[3]
    least = torch.where(slopes > 0, slopes * lower, slopes * upper).sum()
    reach = (slopes.abs() * (upper - lower)).sum()
    return CutBox(lower[None], upper[None], slopes, -least - share * reach)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_bounds_are_below_the_best_and_near(seed: int, share: float) -> None:
    box = _cut(seed, share)
    generator = torch.Generator().manual_seed(100 + seed)
    rows = torch.randn(9, 12, generator=generator, dtype=torch.float64)
    bias = torch.randn(9, generator=generator, dtype=torch.float64)
    found, plain = box.least(rows, bias), box.minimize(rows[None])[0] + bias
    bounds = list(zip(box.lower[0].tolist(), box.upper[0].tolist(), strict=True))
    for row, shift, low in zip(rows, bias, found, strict=True):
        best = linprog(row.numpy(), box.slopes[None].numpy(), [-float(box.bias)], bounds=bounds).fun + float(shift)
        assert float(low) <= best + 1e-9
        assert float(low) >= best - 0.05 * float((row.abs() * box.width[0]).sum())
    if share < 0.5:
        assert bool((found > plain + 1e-3).any())


def test_lines_that_say_nothing_do_no_harm() -> None:
    rows, bias = torch.ones(2, 3).double(), torch.zeros(2).double()
    lower, upper = -torch.ones(1, 3).double(), torch.ones(1, 3).double()
    for slopes, at in ((torch.zeros(3), -1.0), (torch.ones(3), -torch.inf), (torch.ones(3), torch.nan)):
        found = CutBox(lower, upper, slopes.double(), torch.tensor(at).double()).least(rows, bias)
        assert not bool((found > -3).any())
