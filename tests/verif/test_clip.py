"""Clipping cuts nothing off that a row of exact sums allows, however long the sums are."""

import pytest
import torch

from verif.clip import Rows, combined, shrink

SHARES = (0.011, 0.05, 0.1, 0.3, 1 / 3, 0.7, 0.9)  # of which float32's long sums drift up or down


@pytest.mark.parametrize("size", [784, 3072, 150_528])
@pytest.mark.parametrize("share", SHARES)
def test_long_sums_refute_nothing_by_their_drift(size: int, share: float) -> None:
    """A box of one point that satisfies two rows exactly, or by half a unit of float32."""
    slopes, point = torch.full((1, 2, size), share), torch.ones(1, size)
    exact = slopes.double().sum(-1)
    limit = torch.nextafter(exact.float(), torch.tensor(torch.inf))
    rows = Rows(slopes, torch.zeros(1, 2), limit)
    assert not combined(point, point, rows).any()
    lower, upper, empty = shrink(point, point, rows)
    assert not empty.any()
    assert (lower == point).all()
    assert (upper == point).all()


def test_what_cannot_hold_is_refuted() -> None:
    """x + y <= -1 in [0, 1]^2, by itself; x + y <= .5 cuts both axes to .5; x - y <= -.6 and y - x <= -.6 together."""
    lower, upper = torch.zeros(1, 2), torch.ones(1, 2)
    one = torch.tensor([[[1.0, 1.0]]])
    zero = torch.zeros(1, 1)
    assert shrink(lower, upper, Rows(one, zero, zero - 1))[2].all()
    low, high, empty = shrink(lower, upper, Rows(one, zero, zero + 0.5))
    assert not empty.any()
    torch.testing.assert_close(torch.cat([low, high]), torch.tensor([[0.0, 0.0], [0.5, 0.5]]), atol=1e-3, rtol=0)
    both = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    limit = torch.full((1, 2), -0.6)
    assert combined(lower, upper, Rows(both, torch.zeros(1, 2), limit)).all()
    assert not combined(lower, upper, Rows(both, torch.zeros(1, 2), -limit)).any()
