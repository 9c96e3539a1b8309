"""Laws of every op: what bounds claim holds at sampled points, and they do not depend on how they are asked for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from graphs.ops import OPS, Kind
from relaxations import RULES, Interval
from tests.laws.checks import (
    ROUNDING,
    ROWS,
    all_boxes,
    at,
    flat,
    forms,
    forward64,
    generator,
    lines_violation,
    outside,
    random_rows,
    relaxed,
    rounding,
    rule_of,
    size_at,
)
from tests.laws.table import Row

every_row = pytest.mark.parametrize("row", ROWS, ids=str)
precisions = pytest.mark.parametrize("dtype", ROUNDING, ids=["float64", "float32"])


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_complete(name: str) -> None:
    """A rule, a row of the table, and a summary for the documentation."""
    assert name in RULES, f"op '{name}' has no rule: add one under relaxations/"
    assert any(row.op == name for row in ROWS), f"op '{name}' has no row: add one to a tests/laws/rows_*.py"
    assert OPS[name].summary.endswith("."), f"the forward function of '{name}' needs a one-sentence docstring"


@every_row
@precisions
def test_points_lie_within_bounds(row: Row, dtype: torch.dtype) -> None:
    random = generator(row)
    boxes = all_boxes(row, 1000, random, dtype)
    _, interval, relaxation = relaxed(row, boxes, dtype)
    assert not interval.lower.isnan().any() and not interval.upper.isnan().any()
    rows = random_rows(interval.lower.shape, random, dtype)
    for _ in range(6):
        points = row.samples(boxes, random)
        output = forward64(row, points)
        assert (outside(interval, output) <= rounding(interval, boxes)).all()
        assert lines_violation(relaxation, rows, points, output) <= ROUNDING[dtype]


@every_row
@precisions
def test_points_lie_within_pushed_bounds(row: Row, dtype: torch.dtype) -> None:
    random = generator(row)
    boxes = all_boxes(row, 150, random, dtype)
    _, _, relaxation = relaxed(row, boxes, dtype)
    for _ in range(3):
        inputs, zs, points = zip(*forms(boxes, row, random), strict=True)
        pushed, output = relaxation.push(inputs), forward64(row, points)
        assert not any(part.isnan().any() for part in pushed)
        low, high = at(pushed, zs[0])
        size = size_at(pushed, zs[0]) + output.abs() + sum(float(p.abs().max()) for p in points)
        slack = ROUNDING[dtype] * size
        assert (low - slack <= output).all() and (output <= high + slack).all()


@every_row
def test_tighter_boxes_never_loosen_the_interval(row: Row) -> None:
    random = generator(row)
    outer = all_boxes(row, 150, random)
    ends = [row.samples(outer, random), row.samples(outer, random)]
    inner = [Interval(a.minimum(b), a.maximum(b)) for a, b in zip(*ends, strict=True)]
    call, rule = row.call(), rule_of(row)
    wide, tight = rule.interval(call, outer), rule.interval(call, inner)
    slack = rounding(wide, outer)
    assert (wide.lower <= tight.lower + slack).all() and (tight.upper <= wide.upper + slack).all()


@every_row
def test_the_interval_of_a_point_is_its_value(row: Row) -> None:
    random = generator(row)
    points = row.samples(row.boxes(500, 10.0, random, torch.float64), random)
    interval = rule_of(row).interval(row.call(), [Interval(x, x) for x in points])
    slack = rounding(interval, [Interval(x, x) for x in points])
    for end in interval:
        assert ((end - forward64(row, points)).abs() <= slack).all()


@every_row
def test_a_batch_equals_its_boxes_one_by_one(row: Row) -> None:
    random = generator(row)
    boxes = row.boxes(6, 1.0, random, torch.float64)
    _, interval, relaxation = relaxed(row, boxes)
    rows = random_rows(interval.lower.shape, random, torch.float64)
    pulled, bias = relaxation.pull(rows)
    owner = torch.tensor([3, 0, 3, 5])
    taken, taken_bias = relaxation.take(owner).pull(rows[owner])
    torch.testing.assert_close(taken_bias, bias[owner])
    torch.testing.assert_close(taken, tuple(p[owner] for p in pulled))
    for number in range(6):
        one = slice(number, number + 1)
        _, alone, single = relaxed(row, [Interval(box.lower[one], box.upper[one]) for box in boxes])
        torch.testing.assert_close(tuple(alone), (interval.lower[one], interval.upper[one]))
        single_pulled, single_bias = single.pull(rows[one])
        torch.testing.assert_close(single_bias, bias[one])
        torch.testing.assert_close(single_pulled, tuple(p[one] for p in pulled))


@pytest.mark.parametrize("row", [row for row in ROWS if OPS[row.op].kind is Kind.AFFINE], ids=str)
def test_pull_of_an_affine_op_is_its_transpose(row: Row) -> None:
    random = generator(row)
    call = row.call()
    zeros = [torch.zeros(2, *x.shape, dtype=torch.float64) for x in row.inputs]
    output = call.forward(*zeros)
    rows = random_rows(output.shape, random, torch.float64)
    pulled, bias = rule_of(row).relax(call, [Interval(x - 1, x + 1) for x in zeros]).pull(rows)
    torch.testing.assert_close(bias, flat(rows * output.unsqueeze(1)).sum(2))
    for _ in range(8):  # rows . (A x) = (rows A) . x
        points = [torch.randn(x.shape, generator=random, dtype=torch.float64) for x in zeros]
        direct = flat(rows * (call.forward(*points) - output).unsqueeze(1)).sum(2)
        parts = [flat(p * x.unsqueeze(1)).sum(2) for p, x in zip(pulled, points, strict=True)]
        torch.testing.assert_close(sum(parts), direct)
    for s in range(rows.shape[1]):
        leaves = [x.clone().requires_grad_() for x in zeros]
        transpose = torch.autograd.grad(call.forward(*leaves), leaves, rows[:, s], materialize_grads=True)
        torch.testing.assert_close(tuple(p[:, s] for p in pulled), transpose)


@every_row
@precisions
def test_boxes_without_end_and_huge_boxes_give_no_nan(row: Row, dtype: torch.dtype) -> None:
    random = generator(row)
    boxes = []
    for x in row.inputs:
        low, high = x.box(60, 1.0, random, dtype)
        for number, far in enumerate((1e30, math.inf)):
            part = slice(20 * number, 20 * (number + 1))
            choice = torch.randint(3, low[part].shape, generator=random)
            low[part] = torch.where(choice != 1, -far, low[part]).clamp(x.lower, x.upper)
            high[part] = torch.where(choice != 0, far, high[part]).clamp(x.lower, x.upper)
        boxes.append(Interval(low, high))
    _, interval, relaxation = relaxed(row, boxes, dtype)
    assert not any(end.isnan().any() for end in interval) and (interval.lower <= interval.upper).all()
    pulled, bias = relaxation.pull(random_rows(interval.lower.shape, random, dtype))
    assert not any(p.isnan().any() for p in pulled) and not bias.isnan().any()
    assert (bias < math.inf).all()


@pytest.mark.parametrize("row", {row.op: row for row in ROWS}.values(), ids=str)
def test_no_box_of_hypothesis_is_violated(row: Row) -> None:
    ends = st.floats(-1e4, 1e4, allow_subnormal=False) | st.integers(-4, 4).map(float)

    @settings(max_examples=15, deadline=None, database=None, derandomize=True)
    @given(st.lists(ends, min_size=4, max_size=4), st.integers(0, 10_000))
    def law(numbers: list[float], seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        boxes = []
        for x in row.inputs:
            pick = torch.tensor(numbers, dtype=torch.float64)[torch.randint(4, (2, 4, *x.shape), generator=random)]
            low, high = pick.amin(0).clamp(x.lower, x.upper), pick.amax(0).clamp(x.lower, x.upper)
            high = high.minimum(low + row.max_width)
            boxes.append(Interval(low.floor(), high.ceil()) if x.integers else Interval(low, high))
        _, interval, relaxation = relaxed(row, boxes)
        points = row.samples(boxes, random)
        output = forward64(row, points)
        assert (outside(interval, output) <= rounding(interval, boxes)).all()
        rows = random_rows(interval.lower.shape, random, torch.float64)
        assert lines_violation(relaxation, rows, points, output) <= 1e-9

    law()
