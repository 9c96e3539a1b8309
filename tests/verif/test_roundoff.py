"""A-priori errors of bounds, against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from tests.verif.programs import exact
from verif import Verdict, verify
from verif.bounds import Engine, Rounds
from verif.properties import linear
from verif.query import compile_query
from verif.rounding import JUMPS
from verif.roundoff import errors


def network(seed: int, spread: int, inputs: int = 3, layers: int = 3) -> Graph:
    """A ReLU network with a residual connection whose weights' magnitudes differ by 10^spread both ways."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder()
    x, size = builder.input("x", (inputs,)), inputs
    for layer in range(layers):
        scale = 10.0 ** torch.randint(-spread, spread + 1, (5, size), generator=generator)
        weight = (torch.randn(5, size, generator=generator) * scale).float().double()
        y = builder.add("linear", [x], {"weight": weight, "bias": torch.randn(5, generator=generator).double()})
        y = builder.add("relu", [y])
        x, size = (builder.add("add", [x, y]) if layer else y), 5
    last = torch.randn(1, 5, generator=generator).float().double()
    return builder.build([builder.add("linear", [x], {"weight": torch.cat([last, -last])})])


def crossed(bound: Tensor, slack: Tensor, values: list[Fraction]) -> int:
    """How many lower bounds, what rounding may have added taken off, are above the values."""
    pairs = zip(bound.tolist(), slack.tolist(), values, strict=True)
    return sum(Fraction(b) - Fraction(s) > value for b, s, value in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0, 3, 6])
@pytest.mark.parametrize("inputs", [3, 20])
def test_bounds_are_sound_beyond_their_errors(dtype: torch.dtype, spread: int, inputs: int) -> None:
    """On boxes of one number, or nearly, a bound is the value up to rounding: it is on both sides of it."""
    without = 0
    for seed in range(25):
        graph = network(seed, spread, inputs).to(torch.float64)
        generator = torch.Generator().manual_seed(seed)
        centre = torch.randn(1, inputs, generator=generator).to(dtype)
        radius = 0.0 if seed % 2 else torch.finfo(dtype).eps
        box = Box(centre - radius, centre + radius)
        held = errors(graph, box, dtype)
        assert held.proved
        single = graph.to(dtype)
        slack = held.nodes[graph.outputs[0]]
        value = exact(graph, [Fraction(x) for x in centre[0].tolist()])
        engine = Engine(single, errors=held.nodes)
        for rounds in (Rounds(), Rounds(2, 5)):
            found = engine.bound(box, torch.eye(2, dtype=dtype), rounds=rounds)
            assert not crossed(found.lower[0].double(), slack, value)
        # The network's own evaluation, in its own order, is within the errors too.
        own = single(centre)[0][0].double()
        assert not crossed(own, slack, value)
        assert not crossed(-own, slack, [-v for v in value])
        plain = Engine(single).bound(box, torch.eye(2, dtype=dtype)).lower[0].double()
        without += crossed(plain, torch.zeros(2), value)
    assert without > 0 or spread == 0  # or the test tests nothing


CURVES = ["sigmoid", "tanh", "softplus", "gelu", "silu", "exp", "square", "sin", "cos", "elu", "clip", "mul", "div"]
CURVES += ["power", "maximum", "reduce_max", "matmul", "sqrt", "log", "floor", "sign"]


def curved(op: str, seed: int, inputs: int) -> Graph:
    """Two layers of an op of one or two values, or of windows of six of them."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder()

    def layer(x: str, outputs: int, size: int, shift: float = 0.0) -> str:
        weight = (torch.randn(outputs, size, generator=generator) * 10.0 ** (seed % 4) / size).float().double()
        return builder.add("linear", [x], {"weight": weight, "bias": torch.full((outputs,), shift).double()})

    x, size = builder.input("x", (inputs,)), inputs
    for _ in range(2):
        y = layer(x, 6, size)
        if op in ("mul", "maximum"):
            x, size = builder.add(op, [y, layer(x, 6, size)]), 6
        elif op in ("div", "sqrt", "log"):
            positive = builder.add("shift", [builder.add("abs", [y])], {"offset": torch.ones(6).double()})
            x, size = builder.add(op, [layer(x, 6, size), positive] if op == "div" else [positive]), 6
        elif op == "matmul":
            pair = [builder.add("reshape", [v], {}, {"shape": (2, 3)}) for v in (y, layer(x, 6, size))]
            pair[1] = builder.add("transpose", [pair[1]], {}, {"perm": (1, 0)})
            x, size = builder.add("reshape", [builder.add("matmul", pair)], {}, {"shape": (4,)}), 4
        elif op == "reduce_max":
            windows = builder.add("reshape", [y], {}, {"shape": (3, 2)})
            x, size = builder.add(op, [windows], {}, {"axes": (1,), "keepdims": False}), 3
        else:
            attrs = {"clip": {"lower": -0.5, "upper": 0.5}, "elu": {"alpha": 1.0}, "power": {"exponent": 3.0}}.get(
                op, {}
            )
            if op == "exp":
                y = builder.add("neg", [builder.add("abs", [y])])
            x, size = builder.add(op, [y], {}, attrs), 6
    last = torch.randn(1, size, generator=generator).float().double()
    return builder.build([builder.add("linear", [x], {"weight": torch.cat([last, -last])})])


@pytest.mark.parametrize("op", CURVES)
def test_bounds_of_other_ops_are_sound_beyond_their_errors(op: str) -> None:
    """In float32, against values in float64."""
    useful = 0
    for seed in range(8):
        inputs = (3, 20)[seed // 4]
        graph = curved(op, seed, inputs).to(torch.float64)
        centre = torch.randn(1, inputs, generator=torch.Generator().manual_seed(seed)).float()
        radius = (0.0, torch.finfo(torch.float32).eps, 1e-3)[seed % 3]
        box = Box(centre - radius, centre + radius)
        held = errors(graph, box, torch.float32)
        assert held.proved
        slack = held.nodes[graph.outputs[0]]
        engine, points = Engine(graph.to(torch.float32), errors=held.nodes), box.sample(8, torch.Generator())[0]
        values = torch.cat([graph(points.double())[0], graph(centre.double())[0]]).amin(0)
        useful += bool((slack < 0.02 * values.abs().clamp(min=1)).all())
        for rounds in (Rounds(), Rounds(2, 5)):
            found = engine.bound(box, torch.eye(2), rounds=rounds).lower[0].double()
            assert bool((found - slack <= values + 1e-12 * values.abs()).all())
        own = graph.to(torch.float32)(centre)[0][0].double()
        assert op in JUMPS or bool(((own - graph(centre.double())[0][0]).abs() <= slack).all())
    assert useful > 1 or op in JUMPS  # or the test tests nothing


def test_errors_are_not_claimed_for_other_ops() -> None:
    builder = GraphBuilder()
    graph = builder.build([builder.add("softmax", [builder.input("x", (2,))], {}, {"axis": 0})])
    held = errors(graph, Box(torch.zeros(1, 2), torch.ones(1, 2)), torch.float64)
    assert not held.proved
    assert held.unknown == ("softmax",)


@pytest.mark.parametrize("op", ["relu", "tanh", "softmax", "log_softmax"])
def test_a_result_says_what_holds_rests_on(op: str) -> None:
    builder = GraphBuilder()
    x = builder.add("linear", [builder.input("x", (2,))], {"weight": torch.ones(2, 2, dtype=torch.float64)})
    y = builder.add(op, [x], {}, {"axis": 0} if "softmax" in op else {})
    graph = builder.build([builder.add("linear", [y], {"weight": torch.ones(1, 2, dtype=torch.float64)})])
    result = verify(graph, linear(graph, [-1.0, -1.0], [1.0, 1.0], [[1.0]], [-9.0]), timeout=10)
    assert result.verdict is Verdict.HOLDS
    assert result.rounding == ("measured: no proved error of log_softmax" if op == "log_softmax" else "proved")


@pytest.mark.parametrize("inputs", [3, 20])
def test_coefficients_that_underflow(inputs: int) -> None:
    """Products of weights that float32 holds with few digits, on inputs so large that the digits count."""
    without = 0
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(5, inputs, generator=generator) * 10.0 ** -(39 + seed % 5)
        builder = GraphBuilder()
        x = builder.add("linear", [builder.input("x", (inputs,))], {"weight": weight.float().double()})
        last = {"weight": torch.randn(2, 5, generator=generator).float().double()}
        graph = builder.build([builder.add("linear", [builder.add("relu", [x])], last)])
        centre = torch.rand(1, inputs, generator=generator) * 1e38
        held = errors(graph, Box(centre, centre), torch.float32)
        found = Engine(graph.to(torch.float32), errors=held.nodes).bound(Box(centre, centre), torch.eye(2)).lower[0]
        value = exact(graph, [Fraction(x) for x in centre[0].tolist()])
        assert not crossed(found.double(), held.nodes[graph.outputs[0]], value)
        plain = Engine(graph.to(torch.float32)).bound(Box(centre, centre), torch.eye(2)).lower[0].double()
        without += crossed(plain, torch.full((2,), 1e-6 * float(max(map(abs, value)))), value)
    assert without > 0


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("arithmetic", "gap", "holds"), [("real", 1e-9, True), ("real", -0.1, False), ("float32", 1e-9, False)]
)
def test_outputs_of_a_relu_need_no_allowance_but_for_programs(
    arithmetic: str, gap: float, holds: bool, sign: float
) -> None:
    """Those in float32 may be off by more."""
    builder, weight = GraphBuilder(), torch.tensor([[0.3, -0.7, 1.1]]).double()
    params = {"weight": weight, "bias": torch.tensor([9.0]).double()}
    x = builder.add("linear", [builder.input("x", (3,))], params)
    graph = builder.build([builder.add("relu", [x])])
    least = sign * 9 - 0.1 * float(weight.abs().sum())
    asked = linear(graph, [-0.1] * 3, [0.1] * 3, [[sign]], [least - gap])
    found = verify(None, compile_query(asked, graph, arithmetic=arithmetic), timeout=10 if holds else 0.3)
    assert (found.verdict is Verdict.HOLDS) is holds
