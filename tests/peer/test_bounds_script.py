"""benchmarks/bounds.py without a peer: its networks are what it says, its rows of the table are sound figures."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.bounds import METHODS, deficit, line, ours
from benchmarks.networks import Problem, random_problems

PROBLEMS = {problem.name: problem for problem in random_problems()}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_graph_and_module_agree(problem: Problem) -> None:
    x = torch.lerp(problem.lower, problem.upper, torch.rand_like(problem.lower))
    with torch.no_grad():
        (y,) = problem.graph(x.flatten(1))
        expected = problem.module(x)
    assert deficit(y, expected) < 1e-4 and deficit(expected, y) < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_bounds_are_below_samples(method: str) -> None:
    problem = PROBLEMS["random_mlp784_256x6"]
    with torch.no_grad():
        lower = ours(problem, method)()
        for _ in range(20):
            x = torch.lerp(problem.lower, problem.upper, torch.rand_like(problem.lower).round())
            margins = torch.einsum("bsm,bm->bs", problem.rows, problem.module(x))
            assert (lower <= margins + 1e-4).all()


def test_a_row_of_the_table() -> None:
    problem = PROBLEMS["random_mlp784_256x6"]
    name, method, milliseconds, mean = line(problem, "interval", 1, peer=False).split()
    assert (name, method) == (problem.name, "interval")
    assert float(milliseconds) > 0 and math.isfinite(float(mean))


def test_deficit() -> None:
    reference = torch.tensor([1.0, -4.0])
    assert deficit(reference - 0.4, reference) == pytest.approx(0.1)
    assert deficit(reference + 0.4, reference) == pytest.approx(-0.1)
