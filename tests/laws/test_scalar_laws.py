"""Laws of scalar ops: any slope is sound, default lines leave the least area, decided entries are straight."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from relaxations import Call, Interval
from relaxations.scalar import ScalarLines, ScalarRule
from relaxations.scalar.curve import CurveRule
from relaxations.scalar.lines import STRETCHES
from relaxations.scalar.steps import ClipRule, VertexRule
from tests.laws.checks import ROUNDING, ROWS, all_boxes, generator, rule_of
from tests.laws.table import Row
from verif.rounding import JUMPS

SCALARS = [row for row in ROWS if isinstance(rule_of(row), ScalarRule)]
CONTINUOUS = [r for r in SCALARS if isinstance(rule_of(r), ClipRule) or not isinstance(rule_of(r), VertexRule)]
SLOPED = [r for r in SCALARS if type(rule_of(r)).slopes is not ScalarRule.slopes and r.op not in JUMPS]  # type: ignore[attr-defined]
every_scalar = pytest.mark.parametrize("row", SCALARS, ids=str)


def scalar_rule(row: Row) -> ScalarRule:
    rule = rule_of(row)
    assert isinstance(rule, ScalarRule)
    return rule


def grid(call: Call, box: Interval, count: int) -> tuple[Tensor, Tensor]:
    """Evenly spaced points of each box and their values, (count, B, *N)."""
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    x = box.lower + box.width * t.reshape(-1, *[1] * box.lower.dim())
    x = torch.cat([x, torch.zeros_like(x[:1])]).clamp(*box)
    return x, call.forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def value(lines: ScalarLines, x: Tensor) -> tuple[Tensor, Tensor]:
    """Both lines at x."""
    low, high = lines.lower_slope * x, lines.upper_slope * x
    low = low if lines.lower_bias is None else low + lines.lower_bias
    return low, high if lines.upper_bias is None else high + lines.upper_bias


def between(lines: ScalarLines, x: Tensor, y: Tensor, dtype: torch.dtype) -> bool:
    """Whether y lies between the lines at x, up to the rounding of the lines' own terms; all in float64."""
    parts = (lines.lower_slope, lines.lower_bias, lines.upper_slope, lines.upper_bias)
    lines = ScalarLines(*(None if part is None else part.double() for part in parts))
    x = x.double()
    for k, bias, gap in zip(
        (lines.lower_slope, lines.upper_slope),
        (lines.lower_bias, lines.upper_bias),
        (value(lines, x)[0] - y, y - value(lines, x)[1]),
        strict=True,
    ):
        size = (k * x).abs() + y.abs() + (0 if bias is None else bias.abs())
        if not (gap <= ROUNDING[dtype] * size).all():
            return False
    return True


@every_scalar
@pytest.mark.parametrize("dtype", ROUNDING, ids=["float64", "float32"])
def test_lines_of_any_slope_are_sound(row: Row, dtype: torch.dtype) -> None:
    random, rule = generator(row), scalar_rule(row)
    (box,) = all_boxes(row, 300, random, dtype)
    call, call64 = row.call(dtype), row.call()
    lines = [rule.lines(call, box)]
    for spread in (0.3, 3.0, 100.0):
        slopes = [spread * torch.randn(box.lower.shape, generator=random, dtype=torch.float64).to(dtype) for _ in "lu"]
        lines.append(rule.lines_at(call, box, *slopes))
    for _ in range(10):
        (x,) = row.samples([box], random)
        y = call64.forward(x.double())
        assert all(between(found, x, y, dtype) for found in lines)


@every_scalar
@pytest.mark.parametrize("dtype", ROUNDING, ids=["float64", "float32"])
def test_lines_between_the_choices_are_sound(row: Row, dtype: torch.dtype) -> None:
    random, rule = generator(row), scalar_rule(row)
    (box,) = all_boxes(row, 300, random, dtype)
    call, call64 = row.call(dtype), row.call()
    turns = rule.choices(call, box, rule.lines(call, box))
    assert (turns is not None) == isinstance(rule, CurveRule)
    if turns is None:
        return
    (x,) = row.samples([box], random)
    y = call64.forward(x.double())
    for way in (turns.left, turns.right):
        assert len(way) == STRETCHES
        for before, after in pairwise([turns.own, *way]):
            share = torch.rand(box.lower.shape, generator=random, dtype=torch.float64).to(dtype)
            assert between(mean(before, after, share), x, y, dtype)


def mean(first: ScalarLines, second: ScalarLines, share: Tensor) -> ScalarLines:
    """The lines between two, where both are known; else the first."""
    parts = []
    for k in ("lower", "upper"):
        ends = [(getattr(lines, f"{k}_slope"), getattr(lines, f"{k}_bias")) for lines in (first, second)]
        known = ends[0][1].isfinite() & ends[1][1].isfinite()
        parts += [torch.where(known, a + share * (b - a), a) for a, b in zip(*ends, strict=True)]
    return ScalarLines(*parts)


@pytest.mark.parametrize("row", CONTINUOUS, ids=str)
def test_default_lines_leave_the_least_area(row: Row) -> None:
    """At the midpoint, where a line's height is its area, no chord of the graph is much further out."""
    random, rule, half = generator(row), scalar_rule(row), 100
    boxes = [row.boxes(60, width, random, torch.float64)[0] for width in (0.3, 3.0, 20.0)]
    box = Interval(*(torch.cat(ends) for ends in zip(*boxes, strict=True)))
    call = row.call()
    x, y = grid(call, box, 2 * half + 1)
    low, high = value(rule.lines(call, box), x[half])
    share = torch.arange(half, 0, -1) / (torch.arange(half, 0, -1) + torch.arange(1, half + 1).unsqueeze(1))
    weight = share.t().reshape(half, half, *[1] * box.lower.dim()).double()  # of the right end, by (left, right)
    height, best = y[half].clone(), [y[half], y[half]]
    chords = y[:half].unsqueeze(1) * (1 - weight) + y[half + 1 : 2 * half + 1].unsqueeze(0) * weight
    best = [height.minimum(chords.amin((0, 1))), height.maximum(chords.amax((0, 1)))]
    area = best[1] - best[0]
    known = (box.width > 0.01) & (y.abs().amax(0) < 1e3)
    slack = 0.01 * area + 1e-9
    assert known.any()
    assert (best[0] - low <= slack)[known].all()
    assert (high - best[1] <= slack)[known].all()


@every_scalar
def test_decided_entries_are_straight(row: Row) -> None:
    random, rule, call = generator(row), scalar_rule(row), row.call()
    (box,) = all_boxes(row, 200, random)
    points = box.lower[:50]
    box = Interval(torch.cat([box.lower, points]), torch.cat([box.upper, points]))
    (undecided,) = rule.undecided(call, [box])
    assert undecided is not None and undecided.shape == box.lower.shape and undecided.dtype == torch.bool
    assert undecided.any() or row.op == "power"
    x, y = grid(call, box, 5)
    low, high = value(rule.lines(call, box), x)
    slack = 1e-5 * (1 + y.abs())
    known = ~undecided & high.isfinite().all(0)
    assert known.any()
    assert ((high - low <= slack) | ~known).all()


@every_scalar
def test_intercepts_follow_their_slopes(row: Row) -> None:
    """The derivative of the intercept is minus the point of contact: moving the slope turns the line around it."""
    random, rule, call = generator(row), scalar_rule(row), row.call()
    (box,) = row.boxes(50, 2.0, random, torch.float64)
    step = 1e-6
    lower = torch.randn(box.lower.shape, generator=random, dtype=torch.float64, requires_grad=True)
    upper = torch.randn(box.lower.shape, generator=random, dtype=torch.float64, requires_grad=True)
    lines = rule.lines_at(call, box, lower, upper)
    assert lines.lower_bias is not None and lines.upper_bias is not None
    gradients = torch.autograd.grad(lines.lower_bias.sum() + lines.upper_bias.sum(), (lower, upper))
    with torch.no_grad():
        near = [rule.lines_at(call, box, lower + s, upper + s) for s in (-step, step)]
    for gradient, name in zip(gradients, ("lower_bias", "upper_bias"), strict=True):
        assert ((-gradient >= box.lower) & (-gradient <= box.upper)).all()
        difference = (getattr(near[1], name) - getattr(near[0], name)) / (2 * step)
        assert ((difference - gradient).abs() < 1e-3 * (1 + gradient.abs())).double().mean() > 0.95


@pytest.mark.parametrize("row", SLOPED, ids=str)
@pytest.mark.parametrize("width", [1e-3, 1.0, 100.0])
def test_slopes_of_chords_are_among_the_slopes(row: Row, width: float) -> None:
    """What proved errors of rounding rest on: no two points of a box are joined by anything steeper."""
    rule, call = scalar_rule(row), row.call()
    (box,) = row.boxes(100, min(width, row.max_width), generator(row), torch.float64)
    found = rule.slopes(call, box)
    assert found is not None
    x, y = grid(call, box, 40)
    apart, change = x.diff(dim=0), y.diff(dim=0)
    slope = change / apart
    noise = 1e-9 * slope.abs() + 1e-14 * (1 + y[1:].abs()) / apart.abs()
    known = (apart != 0) & slope.isfinite()
    assert known.any()
    assert ((slope >= found.lower - noise) | ~known).all()
    assert ((slope <= found.upper + noise) | ~known).all()


@every_scalar
def test_pull_is_differentiable(row: Row) -> None:
    random, rule, call = generator(row), scalar_rule(row), row.call()
    (box,) = row.boxes(4, 1.0, random, torch.float64)
    slopes = [torch.randn(box.lower.shape, generator=random, dtype=torch.float64, requires_grad=True) for _ in "lu"]
    rows = torch.randn(4, 3, *box.lower.shape[1:], generator=random, dtype=torch.float64, requires_grad=True)
    lines = rule.lines_at(call, box, *slopes)
    (pulled,), bias = lines.pull(rows)
    with torch.no_grad():
        (fast,), fast_bias = lines.pull(rows)
    torch.testing.assert_close((pulled, bias), (fast, fast_bias))
    gradients = torch.autograd.grad(pulled.sum() + bias.sum(), (*slopes, rows))
    assert all(g.isfinite().all() and (g != 0).any() for g in gradients)


@pytest.mark.parametrize("op", ["exp", "log", "sqrt", "reciprocal", "tan", "asin"])
def test_boxes_outside_of_the_domain_are_unknown(op: str) -> None:
    """Infinite constant lines, and no NaN in what is made of them; entries that a row ignores do not spoil it."""
    row = next(row for row in SCALARS if row.op == op)
    call, rule = row.call(), scalar_rule(row)
    low, high = {"exp": (0.0, 1e4), "tan": (1.0, 2.0)}.get(op, (-3.0, 2.0))
    box = Interval(torch.tensor([[low, 0.5]]).double(), torch.tensor([[high, 0.75]]).double())
    interval = rule.interval(call, [box])
    assert interval.upper[0, 0] == math.inf
    assert interval.lower[0, 0] == pytest.approx(1.0 if op == "exp" else -math.inf)
    lines = rule.lines(call, box)
    rows = torch.tensor([[[1.0, 1.0], [-1.0, 1.0], [0.0, 1.0]]]).double()
    (pulled,), bias = lines.pull(rows)
    assert pulled.isfinite().all() and not bias.isnan().any()
    assert bias[0, 1] == -math.inf and bias[0, 2].isfinite()
    assert (bias[0, 0] == -math.inf) == (op != "exp")
    assert (pulled[0, :2, 0] == 0).all()


def test_relu_lines_are_those_of_crown() -> None:
    """Chord above; below 1 where the box reaches further right than left, else 0; stable entries exact."""
    row = next(row for row in SCALARS if row.op == "relu")
    box = Interval(torch.tensor([[-1.0, -3.0, 1.0, -2.0]]).double(), torch.tensor([[3.0, 1.0, 2.0, -1.0]]).double())
    lines = scalar_rule(row).lines(row.call(), box)
    assert lines.lower_bias is None and lines.upper_bias is not None
    assert lines.lower_slope.tolist() == [[1.0, 0.0, 1.0, 0.0]]
    torch.testing.assert_close(lines.upper_slope, torch.tensor([[0.75, 0.25, 1.0, 0.0]]).double())
    torch.testing.assert_close(lines.upper_bias, torch.tensor([[0.75, 0.75, 0.0, 0.0]]).double())
