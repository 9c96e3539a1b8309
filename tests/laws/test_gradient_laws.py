"""Gradients of bounds, of every op of the table: to the ends of its inputs' intervals and to its constants."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from relaxations import Interval
from tests.laws.checks import ROWS, generator, random_rows, rule_of
from tests.laws.table import Input, Row


def smooth(row: Row) -> bool:
    """Whether the op is a function of real numbers, with a slope almost everywhere."""
    return not any(x.integers for x in row.inputs)


def box(x: Input, random: torch.Generator) -> Interval:
    """A box that is nowhere thin, without kinks and off the ends of the domain: there is no derivative."""
    lower, upper = replace(x, kinks=(), lower=x.lower + 0.1, upper=x.upper - 0.1).box(1, 0.5, random, torch.float64)
    least = 0.2 + 0.1 * torch.rand(lower.shape, generator=random, dtype=torch.float64)  # nor as wide as its neighbour
    upper = (upper + least).clamp(max=x.upper - 0.1)
    return Interval(lower.minimum(upper - least), upper)


def real(constant: Tensor) -> bool:
    """Whether a constant is more than a mask or an index."""
    return constant.is_floating_point() and not bool(((constant == 0) | (constant == 1)).all())


# Points of contact found step by step or held fixed: bounds leave room for what the steps leave open, and gradients
# leave it out.
ROUGH = {"power", "sin", "cos", "gelu_tanh", "hard_swish", "mish", "silu_slope", "sigmoid", "sigmoid_slope", "asin"}
ROUGH |= {"softmax", "stablemax", "layer_norm"}
JUMPS = {"div", "shares"}  # which planes are taken is a choice: where it changes, the bound itself jumps


@pytest.mark.parametrize("row", [row for row in ROWS if smooth(row)], ids=str)
@pytest.mark.parametrize("relaxed", [False, True], ids=["interval", "least"])
def test_gradients_are_those_of_finite_differences(row: Row, relaxed: bool) -> None:
    if relaxed and row.op in JUMPS:
        pytest.skip("which planes are taken is a choice")
    random, call = generator(row), row.call(torch.float64)
    boxes = [box(x, random) for x in row.inputs]
    live = [role for role, p in call.params.items() if real(p)]
    given = [end.clone().requires_grad_() for box in boxes for end in box]
    given += [call.params[role].clone().requires_grad_() for role in live]
    rows = random_rows((1, *call.node.shape), random, torch.float64) if relaxed else None

    def bound(*tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = [Interval(*tensors[2 * i : 2 * i + 2]) for i in range(len(boxes))]
        params = {**call.params, **dict(zip(live, tensors[2 * len(boxes) :], strict=True))}
        here = replace(call, params=params)
        if rows is None:
            return tuple(rule_of(row).interval(here, inputs))
        parts, least = rule_of(row).relax(here, inputs).pull(rows)
        for part, (lower, upper) in zip(parts, inputs, strict=True):
            corner = torch.where(part >= 0, lower.unsqueeze(1), upper.unsqueeze(1))
            least = least + (part * corner).reshape(*least.shape, -1).sum(2)
        return (least,)

    near = 0.3 if row.op in ROUGH else 1e-3
    if any(x.requires_grad for x in bound(*given)):
        assert torch.autograd.gradcheck(
            bound, given, fast_mode=True, atol=near / 10, rtol=near, check_undefined_grad=False
        )
