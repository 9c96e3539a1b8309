"""Planes of softmax and StableMax beside published ones at the midpoint, optimised tangent points, gradients."""

import dataclasses
import math

import pytest
import torch
from scipy.optimize import minimize

from benchmarks import shares, softmax
from relaxations import RULES, Interval
from relaxations.sets import Box
from tests.laws.table import Input, Row
from verif import bounds

WIDTHS = (0.1, 1.0, 5.0, 20.0, 100.0)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [2, 5, 30])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("op", "rules"), [("softmax", shares.SOFTMAX), ("stablemax", shares.STABLEMAX)])
def test_no_published_bound_is_narrower_at_the_midpoint(op, rules, width, size):
    x = shares.boxes(100, size, width, random(size))
    ours = shares.ours(op, x)
    for name, rule in rules.items():
        other = rule(x)
        assert (ours.upper <= other.upper + 1e-12 + 1e-9 * other.upper.abs()).all(), name
        assert (ours.width <= other.width + 1e-12 + 1e-9 * other.width).all(), name


def test_published_bounds_hold_at_the_midpoint():
    """The comparison is one with sound bounds: each lies on its side of the function."""
    for op, rules in (("softmax", shares.SOFTMAX), ("stablemax", shares.STABLEMAX)):
        for width in WIDTHS:
            x = shares.boxes(50, 10, width, random())
            value = shares.node(op, 10).forward(shares.midpoint(x))
            for name, rule in rules.items():
                bound = rule(x)
                assert (bound.lower <= value + 1e-12).all() and (value <= bound.upper + 1e-12).all(), (op, name)


def claim(op, x, rows, at):
    """Lower bound of rows (B, K) over boxes by planes that touch at a point, and the pulled rows."""
    (pulled,), bias = RULES[op].relax_at(shares.node(op, x.lower.shape[1]), [x], at).pull(rows.unsqueeze(1))
    return (torch.minimum(pulled * x.lower.unsqueeze(1), pulled * x.upper.unsqueeze(1)).sum(2) + bias)[:, 0], pulled


@pytest.mark.parametrize("op", ["softmax", "stablemax", "log_softmax", "log_stablemax"])
def test_other_tangent_points_give_better_bounds_of_a_row(op):
    """Gradients flow to the points: some steps of Adam recover part of what the midpoint loses to sampled minima."""
    x, rows = shares.boxes(40, 6, 4.0, random(1)), torch.randn(40, 6, generator=random(2), dtype=torch.float64)
    start, _ = claim(op, x, rows, shares.midpoint(x))
    place = torch.zeros_like(x.lower, requires_grad=True)
    adam, best = torch.optim.Adam([place], lr=0.2), start
    for _ in range(40):
        adam.zero_grad()
        found, _ = claim(op, x, rows, x.lower + x.width * place.sigmoid())
        best = torch.maximum(best, found.detach())
        (-found.sum()).backward()
        assert place.grad is not None and place.grad.isfinite().all()
        adam.step()
    least = torch.full_like(start, math.inf)
    for number in range(2000):
        t = torch.rand(x.lower.shape, generator=random(number), dtype=torch.float64)
        value = shares.node(op, 6).forward(x.lower + (t.round() if number % 2 else t) * x.width)
        least = torch.minimum(least, (rows * value).sum(1))
    assert (best <= least + 1e-9).all()
    assert float(((best - start) / (least - start)).mean()) > 0.15


def test_one_point_for_all_entries_is_as_good_as_a_convex_program():
    """With SIG on both sides the best shared tangent has the minimum of the convex function that it touches."""
    x, row = shares.boxes(1, 2, 3.0, random(4)), torch.tensor([[1.0, -0.5]], dtype=torch.float64)

    def value(point):
        at = torch.tensor(point)[None]
        planes = RULES["softmax"].relax_at(shares.node("softmax", 2), [x], at)
        low, high = (side.at(at.unsqueeze(1))[0, 0] for side in (planes.lower, planes.upper))
        return float((row[0].clamp(min=0) * low + row[0].clamp(max=0) * high).sum())

    ends = list(zip(x.lower[0].tolist(), x.upper[0].tolist(), strict=True))
    program = minimize(value, shares.midpoint(x)[0].numpy(), bounds=ends, method="Nelder-Mead", options={"xatol": 1e-9})
    touching, _ = claim("softmax", x, row, torch.tensor(program.x)[None])
    assert float(touching) == pytest.approx(program.fun, abs=1e-5)


@pytest.mark.parametrize("op", ["softmax", "stablemax", "log_softmax", "log_stablemax", "logsumexp"])
def test_bounds_are_differentiable_in_the_box(op):
    for width in (0.0, 1e-6, 1.0, 100.0):
        low = (3 * torch.randn(20, 5, generator=random(3), dtype=torch.float64)).requires_grad_()
        high = (low + width).detach().requires_grad_()
        attrs = {"axes": (0,)} if op == "logsumexp" else {"axis": 0}
        call = Row(op, (Input((5,)),), attrs=attrs).call()
        relaxation, hull = RULES[op].relax(call, [Interval(low, high)]), RULES[op].interval(call, [Interval(low, high)])
        rows = torch.randn(20, 2, *hull.lower.shape[1:], generator=random(), dtype=torch.float64)
        (pulled,), bias = relaxation.pull(rows)
        (pulled.sum() + bias.sum() + hull.width.sum()).backward()
        assert low.grad is not None and low.grad.isfinite().all()
        assert high.grad is not None and high.grad.isfinite().all()


@pytest.mark.parametrize("size", [2, 7, 200])
@pytest.mark.parametrize("op", ["softmax", "stablemax"])
def test_few_rows_use_that_shares_have_the_sum_1(op, size):
    x = shares.boxes(50, size, 3.0, random(3))
    relaxation, middle = RULES[op].relax(shares.node(op, size), [x]), shares.midpoint(x)
    rows = torch.randn(50, 3, size, generator=random(4), dtype=torch.float64)
    rows[:, 0] = 2.5
    (pulled,), bias = relaxation.pull(rows)
    assert pulled[:, 0].abs().max() < 1e-12 and (bias[:, 0] - 2.5).abs().max() < 1e-12
    at = (pulled * middle.unsqueeze(1)).sum(-1) + bias
    (plain,), offset = dataclasses.replace(relaxation, level=None).pull(rows)
    before = (plain * middle.unsqueeze(1)).sum(-1) + offset
    assert (at >= before - 1e-12).all() and bool((at[:, 1:] > before[:, 1:] + 1e-3).any())
    for shift in (-0.1, 0.1):  # the best number to take off
        (moved,), more = dataclasses.replace(relaxation, level=None).pull(rows + shift)
        assert (at >= (moved * middle.unsqueeze(1)).sum(-1) + more - shift - 1e-12).all()


def test_temperature_and_noise_are_a_scale_and_a_shift():
    """softmax((x + g) / T) by CROWN: the planes of softmax on the moved box, their slopes divided by T."""
    from graphs import GraphBuilder

    noise, temperature = torch.randn(5, generator=random(), dtype=torch.float64), 0.3
    builder = GraphBuilder()
    moved = builder.add("shift", [builder.input("x", (5,))], {"offset": noise})
    scaled = builder.add("scale", [moved], {"factor": torch.tensor(1 / temperature, dtype=torch.float64)})
    graph = builder.build([builder.add("softmax", [scaled], attrs={"axis": 0})])
    x = shares.boxes(20, 5, 1.0, random())
    there = Interval((x.lower + noise) / temperature, (x.upper + noise) / temperature)
    rows = torch.eye(5, dtype=torch.float64).expand(20, 5, 5)
    (slopes,), bias = RULES["softmax"].relax(shares.node("softmax", 5), [there]).pull(rows)
    expected = torch.minimum(slopes * there.lower.unsqueeze(1), slopes * there.upper.unsqueeze(1)).sum(2) + bias
    torch.testing.assert_close(bounds.crown(graph, Box(x.lower, x.upper), rows), expected)


def test_the_benchmark_prints_what_it_says():
    lines = softmax.tightness("softmax", shares.SOFTMAX, 9, 0)
    assert len(lines) == 2 + 2 * len(softmax.WIDTHS) and lines[0].count("|") == lines[2].count("|")
    assert all(line.endswith("| 100.0 % |") for line in lines[2:])
    x = shares.boxes(20, softmax.LOGITS, 20.0, random())
    single = Interval(x.lower.float(), x.upper.float())
    wide = Interval(single.lower.double(), single.upper.double())
    slopes, bias = softmax.our_lines(single)
    assert softmax.sampled(slopes, bias, wide, random()).boxes == 0
    assert softmax.sampled(slopes, bias - 1, wide, random()).boxes == 20
    assert all(seconds > 0 for seconds in softmax.times(8, 16, 10))
