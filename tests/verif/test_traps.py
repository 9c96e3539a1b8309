"""Traps: spikes that descents walk past, ties, boundaries that are only touched, boxes without width, idle inputs.

Every trap is decided by the exact search; `verify` must say the same, or that its time was too short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from tests.verif.tools_exact import decide
from verif import Verdict, verify
from verif.properties import linear
from verif.query import Property

HOLDS, VIOLATED = Verdict.HOLDS, Verdict.VIOLATED


@dataclass(frozen=True)
class Trap:
    """A network, an unsafe set, and what is true; `searched` where `verify` has to find it out within seconds."""

    name: str
    graph: Graph
    property: Property
    verdict: Verdict
    searched: bool = True

    def __str__(self) -> str:
        return self.name


def dense(builder: GraphBuilder, x: str, weight: Sequence[Sequence[float]], bias: Sequence[float] = ()) -> str:
    params = {"weight": torch.tensor(weight, dtype=torch.float64)}
    if bias:
        params["bias"] = torch.tensor(bias, dtype=torch.float64)
    return builder.add("linear", [x], params)


def distance(builder: GraphBuilder, x: str, center: Sequence[float]) -> tuple[str, int]:
    """ReLUs whose sum is the distance of x to a point in the 1-norm; their number."""
    n = len(center)
    eye = torch.eye(n).tolist()
    sides = dense(builder, x, eye + (-torch.eye(n)).tolist(), [-c for c in center] + list(center))
    return builder.add("relu", [sides]), 2 * n


def tent(center: Sequence[float]) -> Graph:
    """1 - |x - center|, which reaches 1 at one point."""
    builder = GraphBuilder()
    sides, count = distance(builder, builder.input("x", (len(center),)), center)
    return builder.build([dense(builder, sides, [[-1.0] * count], [1.0])])


def spike(n: int, width: float = 2.0**-7) -> Graph:
    """1/2, but for a spike down to -1/2 that is flat everywhere else: no gradient leads to it."""
    builder = GraphBuilder()
    center = [((37 * i) % 101) / 128 for i in range(n)]
    sides, count = distance(builder, builder.input("x", (n,)), center)
    top = builder.add("relu", [dense(builder, sides, [[-1 / width] * count], [1.0])])
    return builder.build([dense(builder, top, [[-1.0]], [0.5])])


def pooled_spike(n: int) -> Graph:
    """The same with the largest distance of any input, by a maximum."""
    builder = GraphBuilder()
    center = [0.125 + i / 32 for i in range(n)]
    apart = builder.add("abs", [dense(builder, builder.input("x", (n,)), torch.eye(n).tolist(), [-c for c in center])])
    most = builder.add("reduce_max", [apart], attrs={"axes": (0,), "keepdims": True})
    top = builder.add("relu", [dense(builder, most, [[-64.0]], [1.0])])
    return builder.build([dense(builder, top, [[-1.0]], [0.5])])


def hidden_spike(n: int, at: int) -> Graph:
    """A spike along one input; nothing reads the others."""
    builder = GraphBuilder()
    weight = torch.zeros(2, n)
    weight[0, at], weight[1, at] = 1.0, -1.0
    sides = builder.add("relu", [dense(builder, builder.input("x", (n,)), weight.tolist(), [-0.71875, 0.71875])])
    top = builder.add("relu", [dense(builder, sides, [[-512.0, -512.0]], [1.0])])
    return builder.build([dense(builder, top, [[-1.0]], [0.5])])


def twins(shuffled: bool) -> Graph:
    """Two outputs that are equal everywhere: by the same weights, or by the same units in another order and scale."""
    random = torch.Generator().manual_seed(0)
    inner, outer = ((16 * torch.randn(*s, generator=random)).round() / 16 for s in ((6, 4), (1, 6)))
    zero = torch.zeros_like(outer)
    builder = GraphBuilder()
    x = builder.input("x", (4,))
    if not shuffled:
        hidden = builder.add("relu", [dense(builder, x, inner.tolist())])
        return builder.build([dense(builder, hidden, [*outer.tolist(), *outer.tolist()])])
    hidden = builder.add("relu", [dense(builder, x, [*inner.tolist(), *(2 * inner.flip(0)).tolist()])])
    both = [torch.cat([outer, zero], 1)[0].tolist(), torch.cat([zero, outer.flip(1) / 2], 1)[0].tolist()]
    return builder.build([dense(builder, hidden, both)])


def saturated() -> Graph:
    """A clip that is at its upper end on a whole part of the box."""
    builder = GraphBuilder()
    x = dense(builder, builder.input("x", (3,)), [[0.25, 0.25, 0.5]])
    return builder.build([builder.add("clip", [x], attrs={"lower": 0.0, "upper": 0.75})])


def corner(n: int) -> Graph:
    """A sum that reaches its largest value, a multiple of 1/16, in one corner."""
    random = torch.Generator().manual_seed(n)
    weight = (2.0 * torch.randint(0, 2, (n,), generator=random) - 1) / 16
    builder = GraphBuilder()
    sides = builder.add("relu", [dense(builder, builder.input("x", (n,)), [weight.tolist(), (-weight).tolist()])])
    return builder.build([dense(builder, sides, [[1.0, -1.0]], [-float(weight.clamp(min=0).sum())])])


def difference() -> Graph:
    """relu(x) - relu(y)."""
    builder = GraphBuilder()
    x = builder.add("relu", [builder.input("x", (2,))])
    return builder.build([dense(builder, x, [[1.0, -1.0]])])


def at_most(graph: Graph, limit: float, lower: object = 0.0, upper: object = 1.0) -> Property:
    """Unsafe: y <= limit."""
    return linear(graph, *_ends(graph, lower, upper), [[1.0]], [limit])


def at_least(graph: Graph, limit: float, lower: object = 0.0, upper: object = 1.0) -> Property:
    """Unsafe: y >= limit."""
    return linear(graph, *_ends(graph, lower, upper), [[-1.0]], [-limit])


def _ends(graph: Graph, lower: object, upper: object) -> tuple[Tensor, Tensor]:
    lower, upper = (torch.as_tensor(end, dtype=torch.float64) for end in (lower, upper))
    n = graph["x"].size
    return tuple(end.expand(n) if end.dim() == 0 else end for end in (lower, upper))


def traps() -> list[Trap]:
    found = []
    for n in (3, 6, 30):
        graph = spike(n)
        found += [
            Trap(f"spike of {n} inputs", graph, at_most(graph, 0.0), VIOLATED, n < 30),
            Trap(f"the very tip of a spike of {n} inputs", graph, at_most(graph, -0.5), VIOLATED, n < 30),
            Trap(f"below the tip of a spike of {n} inputs", graph, at_most(graph, -0.5001), HOLDS),
        ]
    graph = pooled_spike(12)
    found += [
        Trap("spike of a maximum", graph, at_most(graph, 0.0), VIOLATED),
        Trap("the very tip of a spike of a maximum", graph, at_most(graph, -0.5), VIOLATED, False),
        Trap("below the tip of a spike of a maximum", graph, at_most(graph, -0.5001), HOLDS),
    ]
    graph = hidden_spike(40, 17)
    found += [
        Trap("spike along one of many inputs", graph, at_most(graph, -0.5), VIOLATED),
        Trap("below a spike along one of many inputs", graph, at_most(graph, -0.5001), HOLDS),
    ]
    for center in ([0.3], [0.3, 0.7], [0.25, 0.375], [0.1, 0.2, 0.3, 0.4, 0.6]):
        graph = tent(center)
        found += [
            Trap(f"touch at {center}", graph, at_least(graph, 1.0), VIOLATED),
            Trap(f"above {center}", graph, at_least(graph, 1.0001), HOLDS),
        ]
    for n in (12, 40):
        graph = corner(n)
        found += [
            Trap(f"touch at a corner of {n} inputs", graph, at_least(graph, 0.0), VIOLATED),
            Trap(f"above a corner of {n} inputs", graph, at_least(graph, 1e-5), HOLDS),
        ]
    graph = saturated()
    found += [
        Trap("touch along a plateau", graph, at_least(graph, 0.75), VIOLATED),
        Trap("above a plateau", graph, at_least(graph, 0.7500001), HOLDS),
    ]
    return found + _ties() + _boxes()


def _ties() -> list[Trap]:
    found = []
    for shuffled in (False, True):
        graph, name = twins(shuffled), "shuffled twins" if shuffled else "twins"
        for limit, verdict in ((0.0, VIOLATED), (-0.01, HOLDS)):
            unsafe = linear(graph, -torch.ones(4), torch.ones(4), [[1.0, -1.0]], [limit])
            found.append(Trap(f"{name}, {limit}", graph, unsafe, verdict, not shuffled or verdict is VIOLATED))
    graph = difference()
    equal = linear(graph, -torch.ones(2), torch.ones(2), [[1.0], [-1.0]], [0.25, -0.25], together=True)
    never = linear(graph, -torch.ones(2), torch.ones(2), [[1.0], [-1.0]], [1.25, -1.25], together=True)
    return [
        *found,
        Trap("an equation", graph, equal, VIOLATED),
        Trap("an equation without solution", graph, never, HOLDS),
    ]


def _boxes() -> list[Trap]:
    graph = tent([0.25, 0.375])
    at, line, beside = ([0.25, 0.375],) * 2, ([0.0, 0.375], [1.0, 0.375]), ([0.0, 0.5], [1.0, 0.5])
    found = [
        Trap("touch at a point", graph, at_least(graph, 1.0, *at), VIOLATED),
        Trap("above a point", graph, at_least(graph, 1.0001, *at), HOLDS),
        Trap("touch on a line", graph, at_least(graph, 1.0, *line), VIOLATED),
        Trap("above a line", graph, at_least(graph, 1.0001, *line), HOLDS),
        Trap("touch of a line beside the peak", graph, at_least(graph, 0.875, *beside), VIOLATED),
        Trap("above a line beside the peak", graph, at_least(graph, 0.8751, *beside), HOLDS),
    ]
    lower = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.25, 0.0]], dtype=torch.float64)  # the second box is empty
    upper = torch.tensor([[0.2, 0.2], [0.4, 0.4], [0.3, 0.3]], dtype=torch.float64)
    found.append(Trap("an empty region", graph, at_least(graph, 0.95, lower, upper), HOLDS))
    upper[2, 1] = 0.4
    return [*found, Trap("a region behind an empty one", graph, at_least(graph, 1.0, lower, upper), VIOLATED)]


TRAPS = traps()


@pytest.mark.parametrize("trap", TRAPS, ids=str)
def test_the_exact_search_decides(trap: Trap) -> None:
    found = decide(trap.graph, trap.property)
    assert found.verdict is trap.verdict


@pytest.mark.parametrize("trap", TRAPS, ids=str)
def test_verify_is_not_trapped(trap: Trap) -> None:
    result = verify(trap.graph, trap.property, timeout=20 if trap.searched else 0.5)
    assert result.verdict is trap.verdict or (not trap.searched and result.verdict is Verdict.TIMEOUT)


@pytest.mark.parametrize("limit", [0.75, math.nextafter(0.75, 0.0)])
def test_a_strict_touch_is_never_a_violation(limit: float) -> None:
    graph = saturated()
    unsafe = linear(graph, torch.zeros(3), torch.ones(3), [[-1.0]], [-limit], strict=True)
    expected = (Verdict.UNKNOWN, HOLDS) if limit == 0.75 else (VIOLATED,)
    assert decide(graph, unsafe).verdict in expected


def test_an_empty_disjunct_of_a_file_is_left_out(tmp_path: Path) -> None:
    graph, path = tent([0.25, 0.375]), tmp_path / "unsafe.vnnlib"
    parts = ["(and (>= X_0 0.5) (<= X_0 0.4) (>= X_1 0.0) (<= X_1 1.0) (>= Y_0 0.0))"]
    parts.append("(and (>= X_0 0.0) (<= X_0 1.0) (>= X_1 0.0) (<= X_1 0.375) (>= Y_0 {limit}))")
    names = "\n".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0"))
    for limit, verdict in (("1.0", VIOLATED), ("1.001", HOLDS)):
        path.write_text(f"{names}\n(assert (or {' '.join(parts)}))".format(limit=limit))
        assert verify(graph, path, timeout=20).verdict is verdict
