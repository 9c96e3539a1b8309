"""Attacks on soundness: cancelling terms, jumps at the rim of a box, networks without gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations import RULES, Call, Interval
from relaxations.sets import Ball
from verif import Verdict, verify
from verif.bounds import crown
from verif.properties import linear


def cancelling(seed: int, scale: float, bias: float, layers: int) -> Graph:
    """A ReLU network in float32 numbers whose large terms cancel in the output: v . h - v . h' + c."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).double()

    builder = GraphBuilder()
    x, size = builder.input("x", (2,)), 2
    for layer in range(layers):
        params = {"weight": draw(8, size)} | ({} if layer else {"bias": (bias * (1 + draw(8))).float().double()})
        x, size = builder.add("relu", [builder.add("linear", [x], params)]), 8
    half = (scale * draw(1, 4)).float().double()
    x = builder.add("linear", [x], {"weight": torch.cat([half, -half], 1)})
    (centre,) = builder.build([x])(torch.full((1, 2), 0.5, dtype=torch.float64))
    return builder.build([builder.add("shift", [x], {"offset": -centre[0].float().double()})])


@pytest.mark.parametrize(("scale", "bias", "layers"), [(1e4, 1e3, 1), (1e2, 1e2, 2), (1.0, 1e3, 3), (1.0, 10.0, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_rounding_inside_the_network_proves_nothing(seed: int, scale: float, bias: float, layers: int) -> None:
    graph = cancelling(seed, scale, bias, layers)
    lower, upper = (torch.full((2,), 0.5 + end, dtype=torch.float64) for end in (-(2.0**-10), 2.0**-10))
    points = torch.cartesian_prod(*torch.stack([lower, upper], 1))
    values = graph(points)[0]
    error = float((values - graph.to(torch.float32)(points.float())[0]).abs().max())
    for share in (1e-3, 1e-1):
        unsafe = linear(graph, lower, upper, [[1.0]], [float(values.min()) + share * error])
        assert verify(graph, unsafe, timeout=1).verdict is not Verdict.HOLDS


JUMPS = {
    "step": ("step", {"closed": True}),
    "gate": ("top_k_softmax", {"k": 1, "axis": 0}),
    "codebook": ("codebook", {}),
}


@pytest.mark.parametrize("strategy", ["auto", "values"])
@pytest.mark.parametrize("kind", JUMPS)
@pytest.mark.parametrize("seed", range(8))
def test_a_jump_that_only_a_corner_reaches_is_found_or_left_open(seed: int, kind: str, strategy: str) -> None:
    """Output 0 is 1 where w (x - u) >= 0, else 0: a step, or the first of two equal entries that are compared."""
    generator = torch.Generator().manual_seed(seed)
    weight, upper = torch.randint(1, 2**20, (2, 6), generator=generator).double() / 2**18  # exact in float64
    builder = GraphBuilder()
    rows = torch.stack([weight, torch.zeros(6, dtype=torch.float64)])
    bias = torch.stack([-(weight @ upper), torch.zeros((), dtype=torch.float64)])
    x = builder.add("linear", [builder.input("x", (6,))], {"weight": rows, "bias": bias})
    op, attrs = JUMPS[kind]
    table = {"table": torch.eye(2, dtype=torch.float64)} if kind == "codebook" else {}
    graph = builder.build([builder.add(op, [x], table, attrs)])
    unsafe = linear(graph, upper - 1, upper, [[-1.0, 0.0]], [-0.5])
    assert verify(graph, unsafe, timeout=1, strategy=strategy).verdict is not Verdict.HOLDS


@pytest.mark.parametrize("threshold", [-0.5, 0.5])
def test_networks_without_gradients_are_decided(threshold: float) -> None:
    builder = GraphBuilder()
    x = builder.add("step", [builder.input("x", (2,))], attrs={"closed": False})
    graph = builder.build([builder.add("linear", [x], {"weight": torch.ones(1, 2, dtype=torch.float64)})])
    result = verify(graph, linear(graph, [-1.0, -1.0], [1.0, 1.0], [[1.0]], [threshold]), timeout=10)
    assert result.verdict is (Verdict.HOLDS if threshold < 0 else Verdict.VIOLATED)


def test_conjunctions_over_jumps_are_never_violated_by_rounding() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (2,))
    x = builder.add("linear", [builder.add("floor", [x])], {"weight": torch.ones(1, 2, dtype=torch.float64)})
    graph = builder.build([x])
    both = linear(graph, [-1.0, -1.0], [1.5, 1.5], [[1.0], [-1.0]], [0.25, -0.125], together=True)
    result = verify(graph, both, timeout=0.5)  # a sum of integers is not in [0.125, 0.25]
    assert result.verdict in (Verdict.HOLDS, Verdict.TIMEOUT, Verdict.UNKNOWN) and result.domains > 1


def test_overflow_in_float32_proves_nothing() -> None:
    builder = GraphBuilder()
    x = builder.add("exp", [builder.input("x", (1,))])
    graph = builder.build([builder.add("linear", [x], {"weight": torch.ones(1, 1, dtype=torch.float64)})])
    unsafe = linear(graph, [100.0], [101.0], [[1.0]], [1e60])  # true everywhere, and infinite in float32
    assert verify(graph, unsafe, timeout=1).verdict is not Verdict.HOLDS


@pytest.mark.parametrize("op", ["neg", "sub", "scale"])
def test_intervals_of_signed_ops_are_not_rounded_inward(op: str) -> None:
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(2, 2, 4000, 3, generator=generator).sort(0).values
    x, y = Interval(ends[0, 0], ends[1, 0]), Interval(ends[0, 1], ends[1, 1])
    builder = GraphBuilder()
    names = [builder.input(name, (3,)) for name in ("x", "y")][: 2 if op == "sub" else 1]
    params = {"factor": torch.tensor([0.3, -1.7, 0.0], dtype=torch.float64)} if op == "scale" else {}
    graph = builder.build([builder.add(op, names, params)]).to(torch.float32)
    call = Call.of(graph, graph[graph.outputs[0]])
    bound = RULES[op].interval(call, [x, y][: len(names)])
    for first in x:
        for second in y:
            value = call.forward(*[first, second][: len(names)])
            assert (bound.lower <= value).all()
            assert (value <= bound.upper).all()


@pytest.mark.parametrize("act", ["relu", "tanh"])
def test_a_single_row_on_a_map_is_bounded_in_every_box(act: str) -> None:
    """One row that stands for all boxes once went through the lines of the first box alone."""
    builder = GraphBuilder()
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(*shape, generator=generator).double() for shape in ((2, 1, 2, 2), (1, 2, 2, 2))]
    x = builder.add("reshape", [builder.input("x", (16,))], attrs={"shape": (1, 1, 4, 4)})
    for number, weight in enumerate(weights):
        attrs = {"stride": (1 + number, 1 + number), "padding": (0, 0), "dilation": (1, 1)}
        x = builder.add("conv", [x], {"weight": weight}, attrs)
        x = x if number else builder.add(act, [x])
    graph = builder.build([builder.add("reshape", [x], attrs={"shape": (1,)})])
    center = torch.randn(4, 16, generator=generator).double()
    ball = Ball(center, torch.full((4,), 0.5).double(), 2.0)
    one_by_one = [crown(graph, Ball(center[i : i + 1], ball.radius[i : i + 1], 2.0)) for i in range(4)]
    torch.testing.assert_close(crown(graph, ball), torch.cat(one_by_one))


def test_an_allowance_is_not_measured_by_luck() -> None:
    """y = s q (p z) - s p (q z) = 0 at one point z: float32 and float64 agree on 0 there, bounds in float32 do not."""
    p, q, s = 1.1204273700714111, 1.978541374206543, 1879686799949824.0
    builder = GraphBuilder()

    def layer(x: str, *rows: list[float]) -> str:
        return builder.add("linear", [x], {"weight": torch.tensor(rows, dtype=torch.float64)})

    z = builder.add("logsumexp", [builder.input("x", (2,))], {}, {"axes": (0,), "keepdims": True})
    x = builder.add("relu", [layer(z, [p], [q])])
    x = builder.add("relu", [layer(x, [q, 0.0], [0.0, p])])
    graph = builder.build([layer(x, [s, -s])])
    point = torch.tensor([p + 0.5 * q] * 2).float()
    assert verify(graph, linear(graph, point, point, [[1.0]], [0.01]), timeout=5).verdict is not Verdict.HOLDS
