"""Forward mode, cached constants and tests for what is infinite: the short cuts agree with the long way."""

import itertools
import math

import pytest
import torch

from graphs import GraphBuilder
from relaxations import RULES, Affine, Call, Interval
from relaxations.finite import all_finite, known
from relaxations.forward import least_and_most
from relaxations.scalar import ScalarLines


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def node(op, shape, params=None, attrs=None):
    builder = GraphBuilder()
    out = builder.add(op, [builder.input("x", shape)], params or {}, attrs or {})
    graph = builder.build([out])
    return Call.of(graph, graph[out])


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_least_and_most_are_those_of_the_corners(shape):
    form = Affine(
        random(4, 3, *shape), random(4, *shape, seed=1), random(4, 3, *shape, seed=2), random(4, *shape, seed=3)
    )
    center, radius = random(4, 3, seed=4), random(4, 3, seed=5).abs()
    low, high = least_and_most(form, center, radius)
    lows, highs = [], []
    for signs in itertools.product((-1.0, 1.0), repeat=3):
        x = (center + torch.tensor(signs, dtype=torch.float64) * radius).reshape(4, 3, *[1] * len(shape))
        lows.append((form.lower_slope * x).sum(1) + form.lower_bias)
        highs.append((form.upper_slope * x).sum(1) + form.upper_bias)
    torch.testing.assert_close(low, torch.stack(lows).amin(0))
    torch.testing.assert_close(high, torch.stack(highs).amax(0))


def test_one_tensor_on_both_sides_stays_one():
    call = node("linear", (1, 3), {"weight": random(4, 3), "bias": random(4, seed=1)})
    slope, bias = random(2, 5, 1, 3, seed=2), random(2, 1, 3, seed=3)
    relaxation = RULES["linear"].relax(call, [Interval(bias - 1, bias + 1)])
    one = relaxation.push([Affine(slope, bias, slope, bias)])
    two = relaxation.push([Affine(slope, bias, slope.clone(), bias.clone())])
    assert one.lower_slope is one.upper_slope and one.lower_bias is one.upper_bias
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b)


def test_lines_of_either_sign_take_the_bound_that_they_ask_for():
    x = Affine(random(2, 3, 4), random(2, 4, seed=1), random(2, 3, 4, seed=2), random(2, 4, seed=3))
    lines = ScalarLines(random(2, 4, seed=4), random(2, 4, seed=5), random(2, 4, seed=6), None)
    pushed = lines.push([x])
    for b, i in itertools.product(range(2), range(4)):
        k = lines.lower_slope[b, i]
        first = (x.lower_slope, x.lower_bias) if k > 0 else (x.upper_slope, x.upper_bias)
        torch.testing.assert_close(pushed.lower_slope[b, :, i], k * first[0][b, :, i])
        torch.testing.assert_close(pushed.lower_bias[b, i], k * first[1][b, i] + lines.lower_bias[b, i])
        k = lines.upper_slope[b, i]
        first = (x.upper_slope, x.upper_bias) if k > 0 else (x.lower_slope, x.lower_bias)
        torch.testing.assert_close(pushed.upper_slope[b, :, i], k * first[0][b, :, i])
        torch.testing.assert_close(pushed.upper_bias[b, i], k * first[1][b, i])


def test_a_flat_line_ignores_an_unknown_bound():
    zero, bounds = torch.zeros(1, 2, 2), torch.tensor([[math.inf, 1.0]])
    lines = ScalarLines(torch.tensor([[0.0, 1.0]]), None, torch.tensor([[0.0, 0.5]]), torch.tensor([[7.0, 1.0]]))
    pushed = lines.push([Affine(zero, -bounds, zero, bounds)])
    assert pushed.lower_bias.tolist() == [[0.0, -1.0]]
    assert pushed.upper_bias.tolist() == [[7.0, 1.5]]


def test_magnitudes_follow_changes_in_place():
    weight = random(2, 3)
    call = node("linear", (1, 3), {"weight": weight})
    held = call.params["weight"]
    first = call.magnitude("weight")
    assert call.magnitude("weight") is first
    held.mul_(-2)
    assert torch.equal(call.magnitude("weight"), 2 * first)


def test_magnitudes_of_parameters_have_gradients_and_see_data():
    weight = random(2, 3).requires_grad_()
    call = node("linear", (1, 3), {"weight": weight})
    held = call.params["weight"]
    (gradient,) = torch.autograd.grad(call.magnitude("weight").sum(), held)
    assert torch.equal(gradient, held.sign())
    held.data.mul_(3)
    with torch.no_grad():
        assert torch.equal(call.magnitude("weight"), held.abs())


def test_interval_of_an_affine_op_has_gradients():
    weight = random(4, 3).requires_grad_()
    call = node("linear", (1, 3), {"weight": weight, "bias": random(4, seed=1)})
    lower = random(2, 1, 3, seed=2).requires_grad_()
    interval = RULES["linear"].interval(call, [Interval(lower, lower.detach() + 1)])
    gradients = torch.autograd.grad(interval.lower.sum() + 2 * interval.upper.sum(), (lower, call.params["weight"]))
    assert all(g.isfinite().all() and (g != 0).all() for g in gradients)


def test_known_makes_nan_infinite_and_keeps_the_rest():
    x = torch.tensor([math.nan, -math.inf, math.inf, 3.0])
    low, high = known(x, x)
    assert low.tolist() == [-math.inf, -math.inf, math.inf, 3.0]
    assert high.tolist() == [math.inf, -math.inf, math.inf, 3.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_all_finite_sees_every_entry(bad):
    x = torch.ones(100)
    assert all_finite(x, None)
    x[70] = bad
    assert not all_finite(torch.ones(3), x)
    assert not all_finite(torch.tensor([math.inf, -math.inf]))
