"""What a second search confirms holds: no violation in any half of any region gets by, nor what is too near."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from graphs import Graph, GraphBuilder
from verif import Verdict, verify
from verif.bounds.entries import Seen
from verif.bounds.memory import UNLIMITED
from verif.confirmation import Hopeless, confirmed
from verif.properties import linear
from verif.query import compile_query
from verif.rounding import Allowance


def first(inputs: int) -> Graph:
    """y = relu(x_0)."""
    builder, weight = GraphBuilder(), torch.zeros(1, inputs, dtype=torch.float64)
    weight[0, 0] = 1.0
    x = builder.add("linear", [builder.input("x", (inputs,))], {"weight": weight})
    return builder.build([builder.add("relu", [x])])


@dataclass(frozen=True)
class Row:
    """Is sign * relu(x_0) > 1/2, or what else is the limit of a region, where x_0 is between its ends?"""

    name: str
    ends: list[tuple[float, float]]
    holds: bool
    limits: list[float] = field(default_factory=list)
    inputs: int = 1
    done: int = 1
    beside: float | None = None
    sign: float = 1.0

    def __str__(self) -> str:
        return self.name


ROWS = [
    Row("far", [(1, 2)], True),
    Row("two regions", [(1, 2), (0.6, 3)], True),
    Row("the second is violated", [(1, 2), (-1, 4)], False),
    Row("in its lower half", [(-1, 3)], False),
    Row("in its lower half, of many inputs", [(-1, 3)], False, inputs=30),
    Row("in its upper half", [(-1, 3)], False, [-2.0], sign=-1.0),
    Row("by a little", [(0.495, 2)], False),
    Row("limits of their own", [(1, 2), (-1, 3)], False, [-1, 0.5]),
    Row("limits of their own, and both hold", [(1, 2), (-1, 3)], True, [0.5, -1]),
    Row("a point in a search of parts", [(0.25, 0.25)], False, done=100),
    Row("nearer than programs go astray", [(0.75, 2)], False, beside=0.3),
    Row("farther than programs go astray", [(0.75, 2)], True, beside=0.2),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_only_what_holds_is_confirmed(row: Row) -> None:
    count = len(row.ends)
    lower, upper = (torch.zeros(count, row.inputs, dtype=torch.float64) for _ in range(2))
    lower[:, 0], upper[:, 0] = torch.tensor(row.ends, dtype=torch.float64).T
    graph = first(row.inputs)
    asked = linear(graph, lower, upper, [[row.sign]] * count, row.limits or [0.5] * count)
    if row.limits:
        asked.spans[:, 0] = torch.stack([torch.arange(count), torch.arange(count) + 1], 1)
    beside = None if row.beside is None else torch.full((count,), row.beside, dtype=torch.float64)
    nothing = torch.zeros(count, dtype=torch.float64)
    search: Any = SimpleNamespace(
        query=compile_query(asked, graph),
        deadline=time.monotonic() + 20,
        ration=UNLIMITED,
        allowance=Allowance(nothing, nothing, "measured", beside=beside),
        done=row.done,
        level=0,
        seen=Seen(),
    )
    try:
        found = confirmed(search, time.monotonic())
    except Hopeless:
        found = False
    assert found is row.holds


def test_what_programs_decided_is_measured_unless_it_is_confirmed() -> None:
    graph = first(1)
    asked = linear(graph, [-1.0], [1.0], [[1.0]], [-1e-3])
    for there in (True, False):
        with mock.patch("verif.confirmation.confirmed", lambda *_, there=there: there):
            found = verify(graph, asked, strategy="exact", timeout=20)
        says = "proved" if there else "measured: linear programs decided"
        assert (found.verdict, found.rounding) == (Verdict.HOLDS, says)
