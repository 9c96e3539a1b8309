"""Properties written in Python: expressions of networks and their derivatives, conditions, ranges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from graphs.errors import UnsupportedError
from verif import certified_range, function, grad, op, prove, variables, vector
from verif.errors import PropertyError
from verif.expressions import Expression
from verif.verdict import Verdict


def network(activation: str = "tanh", inputs: int = 2, outputs: int = 1, dtype: str = "float32") -> Graph:
    random = torch.Generator().manual_seed(0)
    builder = GraphBuilder()
    value = builder.input("in", (1, inputs), dtype)
    for n, m in ((inputs, 8), (8, outputs)):
        weights = {"weight": torch.randn(m, n, generator=random) / n**0.5, "bias": torch.randn(m, generator=random)}
        value = builder.add("linear", [value], weights)
        value = builder.add(activation, [value]) if n == inputs else value
    return builder.build([value])


def at(expression: Expression, *points: Tensor) -> Tensor:
    """Values (P, *N) at points of the variables, each (P, *shape)."""
    return expression.space.graph(expression.name)(*points)[0]


def test_derivatives_are_those_of_autograd() -> None:
    f, graph = function(network()), network().to(torch.float64)
    t, x = variables(t=(0, 1), x=(-1, 1))
    u = f(t, x)
    residual = grad(u, t) + u * grad(u, x) - 0.1 * grad(grad(u, x), x) / (2 + torch.sin(x))
    points = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a, b = (part.requires_grad_() for part in points.split(1, 1))
    v = graph(torch.cat([a, b], 1)[:, None])[0][:, 0]
    v_t, v_x = torch.autograd.grad(v.sum(), (a, b), create_graph=True)
    (v_xx,) = torch.autograd.grad(v_x.sum(), b)
    torch.testing.assert_close(at(residual, a, b), v_t + v * v_x - 0.1 * v_xx / (2 + b.sin()))


def test_jacobians_of_vectors_and_of_values_in_between() -> None:
    f = function(network(outputs=3))
    (x,) = variables(x=([-1, -1], [1, 1]))
    y = f(2 * x)
    assert y.shape == (3,) and grad(y, x).shape == (3, 2)
    z = 2 * x
    point = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    torch.testing.assert_close(at(grad(f(z), z), point), at(grad(y, x), point) / 2)


OPERATORS = [
    (lambda x: 2 - x * 3 + x / 4 - 1 / (x + 3), lambda x: 2 - x * 3 + x / 4 - 1 / (x + 3)),
    (lambda x: x**2 + x**3 - (x + 3) ** 0.5 + x**1, lambda x: x**2 + x**3 - (x + 3) ** 0.5 + x),
    (lambda x: np.array([[1.0, 2], [3, 4], [5, 6]]) @ x, lambda x: x @ torch.tensor([[1.0, 3, 5], [2, 4, 6]]).double()),
    (lambda x: torch.ones(2) @ x, lambda x: x.sum(1, keepdim=True)),
    (lambda x: x @ torch.ones(2, 1), lambda x: x.sum(1, keepdim=True)),
    (lambda x: x @ x + x @ vector(*x[[1, 0]]), lambda x: (x @ x.mT).diagonal()[:, None] + (x * x.flip(1)).sum(1, True)),
    (lambda x: torch.eye(2) - x.reshape((2, 1)) * x, lambda x: torch.eye(2) - x[:, :, None] * x[:, None]),
    (lambda x: (torch.eye(2) * x) @ x, lambda x: x * x),
    (lambda x: x.reshape((2, 1)) @ x.reshape((1, 2)), lambda x: x[:, :, None] * x[:, None]),
    (lambda x: abs(-x).maximum(x.exp()), lambda x: x.abs().maximum(x.exp())),
    (lambda x: op("softmax", torch.tanh(x), axis=0)[1], lambda x: x.tanh().softmax(1)[:, 1:]),
    (lambda x: torch.tensor([1.0, 2.0]) - torch.tensor(2.0) * x, lambda x: torch.tensor([1.0, 2.0]) - 2 * x),
]


@pytest.mark.parametrize(("ours", "same"), OPERATORS, ids=range(len(OPERATORS)))
def test_operators(ours: object, same: object) -> None:
    (x,) = variables(x=(-np.ones(2), np.ones(2)))
    points = 2 * torch.rand(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    torch.testing.assert_close(at(ours(x), points), same(points).double())  # type: ignore[operator]


def test_conditions() -> None:
    x, y = variables(x=(0, 1), y=(0, 2))
    assert prove(x * y <= 2.001).verdict is Verdict.HOLDS
    assert prove((x + y >= -1e-6) & (x - y < 1.5)).verdict is Verdict.HOLDS
    assert prove((x <= 0.5) | (x >= 0.25)).verdict is Verdict.HOLDS
    assert prove((x > 0.5).implies(x * y <= 2.001 * x) & ~(x > 1.001)).verdict is Verdict.HOLDS
    assert prove(abs(x - y) <= 2.001).verdict is Verdict.HOLDS
    result = prove((x > 0.5).implies(y < 1.9))
    assert result.verdict is Verdict.VIOLATED and result.counterexample is not None
    seen = result.counterexample.inputs
    assert seen["x"].item() > 0.5 and seen["y"].item() >= 1.9
    assert prove(vector(x, y) >= -1e-9).verdict is Verdict.HOLDS
    assert prove(vector(x, y) <= 1).verdict is Verdict.VIOLATED


def test_rounding_alone_breaks_no_condition() -> None:
    """sin^2 + cos^2 is 1, and in floating point now and then a little more."""
    (x,) = variables(x=(0, 3))
    result = prove(torch.sin(x) ** 2 + torch.cos(x) ** 2 <= 1, timeout=2)
    assert result.verdict is not Verdict.VIOLATED and result.counterexample is None
    assert prove(torch.sin(x) ** 2 + torch.cos(x) ** 2 <= 1 - 1e-9, timeout=2).verdict is Verdict.VIOLATED
    assert prove(0.1 * x + 0.2 * x <= 0.3 * x, timeout=2).verdict is not Verdict.VIOLATED


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_a_bound_on_a_slope(activation: str) -> None:
    f = function(network(activation))
    (x,) = variables(x=([-1, -1], [1, 1]))
    slope = grad(f(x), x)[0]
    found = certified_range(slope, timeout=20)
    width = found.most - found.least
    assert found.lower <= found.least <= found.most <= found.upper
    assert found.upper - found.most <= 0.02 * width and found.least - found.lower <= 0.02 * width
    random = 2 * torch.rand(2000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 1
    values = at(slope, random)
    assert float(values.min()) >= found.lower and float(values.max()) <= found.upper
    assert float(at(slope, found.at_most[None])) == pytest.approx(found.most)
    assert prove(abs(slope) <= 1.01 * found.size, timeout=20).verdict is Verdict.HOLDS
    assert prove(slope <= found.most - 0.1 * width, timeout=20).verdict is Verdict.VIOLATED


def test_both_sides_of_a_kink_count() -> None:
    (x,) = variables(x=(-1, 1))
    slope = grad(abs(x), x)
    found = certified_range(slope, timeout=5)
    assert found.lower <= -1 and found.upper >= 1
    assert prove(slope >= -0.5, timeout=5).verdict is Verdict.VIOLATED


def test_a_range_when_time_is_up_is_still_one() -> None:
    (x,) = variables(x=(-np.ones(2), np.ones(2)))
    value = function(network())(x)
    found = certified_range(value, timeout=1e-9)
    assert found.lower <= found.least <= found.most <= found.upper


def test_bad_input() -> None:
    x, y = variables(x=(0, 1), y=(0, 1))
    (other,) = variables(z=(0, 1))
    f = function(network())
    for make, message in (
        (lambda: variables(x=(1, 0)), "P112.*'x' needs two finite ends"),
        (lambda: variables(x=(0, math.inf)), "P112.*'x' needs two finite ends"),
        (lambda: variables(x=(0, [1, 2])), "P112.*of one shape"),
        (lambda: function(network(dtype="int64")), "P113.*floating-point type, not int64"),
        (lambda: f(x), r"P104.*was given \[1\] numbers, it takes \[2\]"),
        (lambda: x + other, "P117.*different variables"),
        (lambda: (x <= 1) & (other <= 1), "P117.*different variables"),
        (lambda: bool(0 <= x <= 1), "P117.*neither true nor false"),
        (lambda: grad(f(x, y), x * y), "P116.*not made from"),
        (lambda: op("tann", x), "P118.*no op 'tann'"),
        (lambda: op("softmax", x, axes=0), "P118.*op 'softmax' cannot be made"),
        (lambda: x**y, "P118.*exponent"),
        (lambda: x * math.nan, "P112.*NaN"),
        (lambda: certified_range(vector(x, y)), "P112.*of one number"),
        (lambda: prove((x - 0.5).log() <= 1), "P115.*'log' is not defined on all of the box"),
        (lambda: certified_range((x - 0.5).sqrt()), "P115.*'sqrt' is not defined"),
    ):
        with pytest.raises(PropertyError, match=message):
            make()
    with pytest.raises(UnsupportedError, match=r"G301.*'floor' has no derivative"):
        grad(x.floor(), x)
    with pytest.raises(UnsupportedError, match="G301"):
        grad(vector(x, y).arg_max(axis=0, keepdims=True), x)
    with pytest.raises(AttributeError, match="no 'shift_by'"):
        x.shift_by(1)
