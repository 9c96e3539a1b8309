"""Roots of monotone functions: close, bracketed, an end where there is none; only what is asked for is computed."""

import math

import pytest
import torch

from relaxations.scalar.solve import root, where_needed

FUNCTIONS = {
    "line": (lambda x, c: x - c, lambda c: c),
    "cube": (lambda x, c: x**3 - c**3, lambda c: c),
    "exponential": (lambda x, c: x.exp() - c.exp(), lambda c: c),
    "s-shaped": (lambda x, c: (4 * x).tanh() - (4 * c).tanh(), lambda c: c),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_root_is_close_and_bracketed(name):
    h, solution = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(0)
    c = 2 * torch.rand(2000, generator=generator, dtype=torch.float64) - 1
    a = c - 1.5 * torch.rand(2000, generator=generator, dtype=torch.float64) - 0.01
    b = c + 1.5 * torch.rand(2000, generator=generator, dtype=torch.float64) + 0.01
    found = root(lambda x: h(x, c), a, b, 12)
    assert (found.low >= a).all() and (found.high <= b).all()
    assert (h(found.low, c) <= 0).all() and (h(found.high, c) >= 0).all()
    assert ((found.x >= found.low) & (found.x <= found.high)).all()
    error = (found.x - solution(c)).abs()
    assert error.median() < 1e-8 and error.quantile(0.95) < 0.01


def test_where_there_is_no_root_the_nearest_end_is_taken():
    a, b = torch.zeros(2), torch.ones(2)
    found = root(lambda x: x + torch.tensor([5.0, -5.0]), a, b)
    assert all(part.tolist() == [0.0, 1.0] for part in found)


def test_a_function_that_is_not_finite_gives_points_of_the_interval():
    a, b = -torch.ones(3), torch.ones(3)
    for h in (torch.full_like, lambda x, v: torch.where(x > 0, math.inf, -math.inf) + 0 * v):
        found = root(lambda x, h=h: h(x, math.nan) if h is torch.full_like else h(x, x), a, b)
        assert ((found.x >= a) & (found.x <= b)).all()


def test_only_what_is_needed_is_computed():
    needed = torch.tensor([[True, False], [False, True]])
    seen = []

    def solve(x):
        seen.append(x)
        return x * 10, x * 100

    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    tens, hundreds = where_needed(needed, solve, (x, torch.tensor(-1.0)), x)
    assert seen[0].tolist() == [1.0, 4.0]
    assert tens.tolist() == [[10.0, 2.0], [3.0, 40.0]]
    assert hundreds.tolist() == [[100.0, -1.0], [-1.0, 400.0]]
    assert where_needed(needed & False, solve, (x,), x)[0] is x and len(seen) == 1
