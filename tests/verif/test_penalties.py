"""Training with bounds of derivatives: a risk model that is proved to be monotone, and a flatter network."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from verif.monotone import Budget, monotone
from verif.operator_norms import OperatorNorm
from verif.penalties import lipschitz_bound, monotonicity_violation
from verif.verdict import Verdict

BMI, PRESSURE = 2, 3  # of scikit-learn's diabetes data: both are held to raise the risk


def parameters(sizes: tuple[int, ...]) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    found = []
    for n, m in itertools.pairwise(sizes):
        found.append((torch.randn(m, n, generator=random, dtype=torch.float64) * (2 / n) ** 0.5).requires_grad_())
        found.append(torch.zeros(m, dtype=torch.float64, requires_grad=True))
    return found


def network(values: list[Tensor]) -> Graph:
    builder = GraphBuilder()
    value = builder.input("x", (values[0].shape[1],), "float64")
    for k in range(0, len(values), 2):
        value = builder.add("linear", [value], {"weight": values[k], "bias": values[k + 1]})
        value = builder.add("relu", [value]) if k < len(values) - 2 else value
    return builder.build([value])


def diabetes() -> tuple[Tensor, Tensor]:
    """Features (442, 10) in [0, 1], and the progression of the disease, standardised."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = (torch.as_tensor(part, dtype=torch.float64) for part in datasets.load_diabetes(return_X_y=True))
    x = (x - x.amin(0)) / (x.amax(0) - x.amin(0))
    return x, (y - y.mean()) / y.std()


def trained(weight: float, steps: int = 150) -> tuple[Graph, float]:
    """A risk model and its mean square error."""
    x, y = diabetes()
    box, signs = (
        Box(torch.zeros(1, 10, dtype=torch.float64), torch.ones(1, 10, dtype=torch.float64)),
        {BMI: 1, PRESSURE: 1},
    )
    values = parameters((10, 16, 16, 1))
    optimiser = torch.optim.Adam(values, 0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        graph = network(values)
        loss = (graph(x)[0][:, 0] - y).square().mean()
        if weight:
            loss = loss + weight * monotonicity_violation(graph, box, signs, 0.01).sum()
        loss.backward()
        optimiser.step()
    graph = network([value.detach() for value in values])
    return graph, float((graph(x)[0][:, 0] - y).square().mean())


@pytest.mark.parametrize(("weight", "verdict"), [(0.0, Verdict.VIOLATED), (1.0, Verdict.HOLDS)])
def test_a_risk_model_is_monotone_where_it_was_trained_to_be(weight: float, verdict: Verdict) -> None:
    graph, error = trained(weight)
    assert error < 0.6  # of a variance of 1: the model has learnt
    box = Box(torch.zeros(1, 10), torch.ones(1, 10))
    results = monotone(graph, box, increasing=[BMI, PRESSURE], budget=Budget(timeout=20))
    if verdict is Verdict.HOLDS:
        assert [result.verdict for result in results] == [verdict, verdict]
    else:
        assert verdict in [result.verdict for result in results]


def test_a_step_down_the_bound_flattens_the_network() -> None:
    values, norm = parameters((4, 8, 2)), OperatorNorm(math.inf, math.inf)
    box = Box(torch.zeros(3, 4, dtype=torch.float64), torch.ones(3, 4, dtype=torch.float64))
    bound = lipschitz_bound(network(values), box, norm)
    bound.sum().backward()
    flatter = [value.detach() - 0.01 * (0 if value.grad is None else value.grad) for value in values]
    assert (lipschitz_bound(network(flatter), box, norm) < bound).all()
