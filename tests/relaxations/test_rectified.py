"""Rows through ReLU's lines over boxes in one native pass: against lines and tape, and exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from graphs import GraphBuilder
from relaxations import RULES, Call, Interval
from relaxations.kernels import library, rectified
from relaxations.scalar.bent import Rectified

pytestmark = pytest.mark.skipif(library.native().library is None, reason=library.native().note)
SHAPES = [(3, 1, (600,)), (2, 4, (7,)), (2, 3, (1, 5, 4, 6)), (0, 2, (3,)), (1, 0, (3,))]


def call(shape: tuple[int, ...]) -> Call:
    builder = GraphBuilder()
    graph = builder.build([builder.add("relu", [builder.input("x", shape)], name="y")])
    return Call.of(graph, graph["y"])


def drawn(boxes: int, count: int, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, lower and upper ends."""
    draw = torch.Generator().manual_seed(len(shape) + count)
    rows, lower, width = (
        torch.randn(boxes, *more, *shape, generator=draw, dtype=torch.float64).to(dtype) for more in ((count,), (), ())
    )
    return rows, lower, lower + 2 * width.abs()


@pytest.mark.parametrize("last", [False, True], ids=["rows", "channels last"])
@pytest.mark.parametrize("given", SHAPES, ids=str)
def test_as_the_lines_and_their_tape(monkeypatch, given, last):
    if last and len(given[2]) != 4:
        pytest.skip("no channels")
    rows, lower, upper = drawn(*given, torch.float64)
    if last:
        lower, upper = (x.movedim(2, 4).contiguous().movedim(4, 2) for x in (lower, upper))
    found = []
    for served in (True, False):
        inputs = [x.clone().requires_grad_() for x in (rows, lower, upper)]
        made = RULES["relu"].relax(call(given[2]), [Interval(*inputs[1:])])
        assert isinstance(made, Rectified)
        if not served:
            monkeypatch.setattr(rectified, "available", lambda dtype: False)
        (pulled,), bias = made.pull(inputs[0])
        weight = torch.linspace(-1, 1, pulled.numel(), dtype=torch.float64).reshape(pulled.shape)
        loss = (pulled * weight).sum() + (bias * (1 + torch.arange(bias.numel()).reshape(bias.shape))).sum()
        found.append((pulled, bias, *torch.autograd.grad(loss, inputs)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_lines_lie_outside(dtype):
    draw = torch.Generator().manual_seed(1)
    scale = 10 ** (8 * torch.rand(2, 2000, generator=draw) - 4)
    lower = (torch.randn(2000, generator=draw) * scale[0]).to(dtype)
    upper = lower + (torch.rand(2000, generator=draw) * scale[1]).to(dtype)
    for sign in (-1, 1):
        found = rectified.rectify(torch.full((2000, 1, 1), sign, dtype=dtype), lower[:, None], upper[:, None])
        assert found is not None
        for low, high, k, b in zip(*(x.flatten().tolist() for x in (lower, upper, *found)), strict=True):
            for x in (low, high, 0.0) if low < 0 < high else (low, high):
                assert Fraction(k) * Fraction(x) + Fraction(b) <= sign * max(0, Fraction(x))


@pytest.mark.parametrize("lost", [(-math.inf, 1.0), (-1.0, math.inf), (math.nan, 1.0), (-1.0, math.nan)])
def test_boxes_that_are_not_finite_are_left_to_the_lines(lost):
    rows, lower, upper = torch.randn(1, 2, 40), torch.full((1, 40), -1.0), torch.full((1, 40), 1.0)
    lower[0, 17], upper[0, 17] = lost
    assert rectified.rectify(rows, lower, upper) is None
    assert rectified.rectify(rows[..., :17], lower[:, :17], upper[:, :17]) is not None


def test_lines_are_made_when_asked_for():
    _, lower, upper = drawn(3, 1, (5,), torch.float64)
    made = RULES["relu"].relax(call((5,)), [Interval(lower.requires_grad_(), upper)])
    plain = RULES["relu"].relax(call((5,)), [Interval(lower.detach(), upper)])
    assert isinstance(made, Rectified) and not isinstance(plain, Rectified)
    torch.testing.assert_close(made.upper_slope, plain.upper_slope)
    torch.testing.assert_close(made.take(torch.tensor([2, 0])).upper_bias, plain.upper_bias[[2, 0]])
    with pytest.raises(AttributeError):
        made.middle  # noqa: B018


def test_threads_change_nothing(monkeypatch):
    given = drawn(5, 3, (700,), torch.float32)
    monkeypatch.setattr(rectified, "_GRAIN", 50)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(rectified.rectify(*given))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
