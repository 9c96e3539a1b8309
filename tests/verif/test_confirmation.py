"""What float32 refutes and float64 does not confirm stays open: it is split further, or ends UNKNOWN, never HOLDS."""

from __future__ import annotations

import importlib
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from verif import Result, Verdict, verify
from verif.properties import linear
from verif.query import compile_query
from verif.rounding import Allowance
from verif.running import Running

MODULE: Any = importlib.import_module("verif.verify")  # `verif.verify` is the function


def twins(inputs: int) -> Graph:
    """y = relu(x_0) - relu(x_0) = 0, which one look at [-1, 1] bounds by -1/2."""
    builder = GraphBuilder()
    first = torch.zeros(2, inputs, dtype=torch.float64)
    first[:, 0] = 1.0
    x = builder.add("relu", [builder.add("linear", [builder.input("x", (inputs,))], {"weight": first})])
    return builder.build([builder.add("linear", [x], {"weight": torch.tensor([[1.0, -1.0]], dtype=torch.float64)})])


def asked(inputs: int, timeout: float = 20.0) -> Result:
    """Is y > -0.6? By 0.1 of what one look finds, and by 0.6."""
    graph = twins(inputs)
    return verify(graph, linear(graph, [-1.0] * inputs, [1.0] * inputs, [[1.0]], [-0.6]), timeout=timeout)


def allowing(double: float) -> Any:
    """Searches in which float32 is off by nothing, and float64 by that much; only the latter is believed."""

    def allowance(*_: Any) -> Allowance:
        return Allowance(torch.zeros(1, dtype=torch.float64), torch.full((1,), double, dtype=torch.float64), "")

    return mock.patch.object(MODULE, "allowance", allowance)


@pytest.mark.parametrize("inputs", [1, 30])
def test_one_look_is_enough_for_float32(inputs: int) -> None:
    found = asked(inputs)
    assert (found.verdict, found.domains, found.rounding) == (Verdict.HOLDS, 1, "proved")


@pytest.mark.parametrize("inputs", [1, 30])
def test_a_leaf_that_is_not_confirmed_is_split(inputs: int) -> None:
    """By boxes, and by signs."""
    with allowing(0.3):
        found = asked(inputs)
    assert (found.verdict, found.rounding) == (Verdict.HOLDS, "proved")
    assert found.domains > 1


def test_every_leaf_is_confirmed_for_itself() -> None:
    """The halves of [-1, 3]: one look at [-1, 1] is not enough, whatever another one shows of [1, 3]."""
    graph = twins(30)
    with allowing(0.3):
        found = verify(graph, linear(graph, [-1.0] * 30, [3.0] * 30, [[1.0]], [-0.6]), timeout=20.0, strategy="boxes")
    assert (found.verdict, found.rounding) == (Verdict.HOLDS, "proved")
    assert found.domains == 5


@pytest.mark.parametrize("inputs", [1, 30])
def test_what_nothing_confirms_does_not_hold(inputs: int) -> None:
    with allowing(0.7):
        found = asked(inputs, timeout=1.0)
    assert found.verdict in (Verdict.UNKNOWN, Verdict.TIMEOUT)


@pytest.mark.parametrize("strategy", ["boxes", "auto"])
def test_what_float32_says_alone_does_not_hold_of_programs(strategy: str) -> None:
    """Of boxes behind the first batch, which took more rounds than they get: errors of programs come on top."""
    graph = twins(30)
    asked = linear(graph, [-1.0] + [0.0] * 29, [3.0] + [0.1] * 29, [[1.0]], [-0.6])
    with allowing(0.7):
        found = verify(None, compile_query(asked, graph, arithmetic="float32"), timeout=1.0, strategy=strategy)
    assert found.verdict in (Verdict.UNKNOWN, Verdict.TIMEOUT)


def running(lost: float, calls: list[int]) -> Any:
    """Bounds that are lower by what counted rounding takes."""
    plain = Running.lower

    def lower(self: Running, boxes: Box, *given: Any) -> tuple[Tensor, Tensor]:
        calls.append(len(boxes))
        found, slopes = plain(self, boxes, *given)
        return found - lost, slopes

    return mock.patch.object(Running, "lower", lower)


TOO_NEAR = "some outputs are so near to a violation that bounds in float64 do not tell them apart"


@pytest.mark.parametrize(
    ("lost", "seconds", "verdict", "says"),
    [
        (0.3, 5.0, Verdict.HOLDS, "proved"),
        (0.7, 5.0, Verdict.UNKNOWN, TOO_NEAR),
        (0.3, 0.0, Verdict.HOLDS, "measured: too large"),
    ],
)
def test_a_measured_leaf_is_split_until_it_is_confirmed(
    lost: float, seconds: float, verdict: Verdict, says: str
) -> None:
    """As long as there is time, and no point shows that there is no end to it."""
    calls: list[int] = []
    zero = torch.zeros(1, dtype=torch.float64)
    with (
        running(lost, calls),
        mock.patch.object(MODULE, "allowance", lambda *_: Allowance.measured(zero, "too large")),
        mock.patch.multiple("verif.confirmation", LEAST=seconds, MOST=seconds),
    ):
        found = asked(1)
    assert (found.verdict, found.rounding + found.reason) == (verdict, says)
    assert (2 in calls) == (says == "proved")  # halves


@pytest.mark.parametrize("confirmed", [True, False])
def test_programs_hold_by_what_is_confirmed_only(confirmed: bool) -> None:
    """Under float32 a measured rounding is no proof."""
    graph, zero = twins(1), torch.zeros(1, dtype=torch.float64)
    query = compile_query(linear(graph, [-1.0], [1.0], [[1.0]], [-0.6]), graph, arithmetic="float32")
    with (
        running(0.0 if confirmed else 0.7, []),
        mock.patch.object(MODULE, "allowance", lambda *_: Allowance.measured(zero, "too large")),
        mock.patch("verif.confirmation.LEAST", 1.0),
    ):
        found = verify(None, query, timeout=10)
    assert found.verdict is (Verdict.HOLDS if confirmed else Verdict.UNKNOWN)
