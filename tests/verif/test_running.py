"""Bounds less the rounding that was counted on the way: below exact values, where bounds as they come out are not."""

from __future__ import annotations

import math
from fractions import Fraction
from unittest import mock

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from tests.verif.programs import exact
from tests.verif.test_roundoff import CURVES, crossed, curved, network
from verif import Verdict, verify
from verif.bounds import Engine
from verif.bounds.entries import Seen
from verif.properties import linear
from verif.running import ALL, FORMS, KINKS, SURE, Effort, Running, unknown_ops

PASSES = [FORMS, KINKS[0], ALL[2], SURE]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0, 3, 6])
@pytest.mark.parametrize("inputs", [3, 20])
def test_below_exact_values(dtype: torch.dtype, spread: int, inputs: int) -> None:
    """On boxes of one number, or nearly, a bound is the value up to rounding: it is on both sides of it."""
    without = 0
    for seed in range(5):
        graph = network(seed, spread, inputs).to(torch.float64)
        centre = torch.randn(1, inputs, generator=torch.Generator().manual_seed(seed)).to(dtype)
        radius = 0.0 if seed % 2 else torch.finfo(dtype).eps
        value = exact(graph, [Fraction(x) for x in centre[0].tolist()])
        running = Running(graph, dtype)
        for effort in PASSES:
            lower = running.lower(Box(centre - radius, centre + radius), effort)[0][0].double()
            assert not crossed(lower, torch.zeros(2), value)
            assert bool(lower.isfinite().all())
        plain = Engine(graph.to(dtype)).bound(Box(centre, centre), torch.eye(2, dtype=dtype)).lower[0].double()
        without += crossed(plain, torch.zeros(2), value)
    assert without > 0 or spread == 0  # or the test tests nothing


def attention(seed: int, inputs: int, scale: float) -> Graph:
    """Softmax of some sums, times other sums of the same inputs: weights of `scale`."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder()

    def layer(x: str, outputs: int, size: int, by: float) -> str:
        weight = (torch.randn(outputs, size, generator=generator) * by / size**0.5).float().double()
        return builder.add("linear", [x], {"weight": weight})

    x, size = builder.input("x", (inputs,)), inputs
    for _ in range(2):
        scores = builder.add("reshape", [layer(x, 12, size, scale)], {}, {"shape": (3, 4)})
        shares = builder.add("softmax", [scores], {}, {"axis": 1})
        values = builder.add("reshape", [layer(x, 8, size, 1.0)], {}, {"shape": (4, 2)})
        x, size = builder.add("reshape", [builder.add("matmul", [shares, values])], {}, {"shape": (6,)}), 6
    last = torch.randn(1, 6, generator=generator).float().double()
    return builder.build([builder.add("linear", [x], {"weight": torch.cat([last, -last])})])


def pictures(seed: int) -> Graph:
    """A transposed convolution and nearest up-sampling make a picture of three numbers, convolutions two outputs."""
    generator, builder = torch.Generator().manual_seed(seed), GraphBuilder()

    def drawn(*shape: int) -> dict[str, Tensor]:
        return {"weight": (torch.randn(shape, generator=generator) / math.prod(shape[1:]) ** 0.5).float().double()}

    x = builder.add("linear", [builder.input("x", (3,))], drawn(16, 3))
    x = builder.add("relu", [builder.add("reshape", [x], {}, {"shape": (1, 4, 2, 2)})])
    attrs = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1)}
    x = builder.add("conv_transpose", [x], drawn(4, 3, 4, 4), attrs | {"output_padding": (1, 0)})
    for axis, size in ((2, 5), (3, 4)):
        index = torch.arange(size).repeat_interleave(2)
        x = builder.add("gather", [x], {"index": index}, {"axis": axis})
    x = builder.add("conv", [builder.add("relu", [x])], drawn(2, 3, 3, 3), attrs)
    x = builder.add("linear", [builder.add("reshape", [builder.add("relu", [x])], {}, {"shape": (40,)})], drawn(2, 40))
    return builder.build([x])


def below(graph: Graph, seed: int, radius: float) -> tuple[int, Tensor, Tensor]:
    """How many of the engine's own bounds are above values near a point; those that count rounding, and the values."""
    inputs = graph[graph.inputs[0]].size
    centre = torch.randn(1, inputs, generator=torch.Generator().manual_seed(seed)).float()
    box = Box(centre - radius, centre + radius)
    points = torch.cat([box.sample(8, torch.Generator())[0], centre]).double()
    values = graph.to(torch.float64)(points)[0].amin(0)
    running = Running(graph, torch.float32)
    lowers = torch.cat([running.lower(box, effort)[0] for effort in PASSES]).double()
    plain = Engine(graph.to(torch.float32)).bound(box, torch.eye(len(values))).lower[0].double()
    return int((plain > values + 1e-12 * values.abs()).sum()), lowers, values


@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.parametrize("seed", range(4))
def test_signs_that_are_expected_only_save_rows(seed: int, rounds: int) -> None:
    """Whatever they are bounds are sound, and where they are right they are as high."""
    graph = pictures(seed).to(torch.float64)
    box, generator = Box(-torch.ones(2, 3), torch.ones(2, 3)).to(torch.float64), torch.Generator().manual_seed(seed)
    box = Box(box.lower, box.lower + torch.rand(2, 3, generator=generator))
    values = torch.stack([graph(p)[0] for p in box.sample(200, generator).transpose(0, 1)]).amin(0)
    signs = Seen.of(graph, Engine(graph).bound(box)).signs
    wrong = {name: torch.randint(-1, 2, held.shape, generator=generator) for name, held in signs.items()}
    running, effort = Running(graph), Effort(True, 16, 1.0, rounds)
    lower, right, astray = (running.lower(box, effort, expected=of)[0] for of in ({}, signs, wrong))
    assert bool((torch.stack([lower, right, astray]) <= values + 1e-9).all())
    assert torch.allclose(right, lower, atol=0.0 if rounds else 1e-9, rtol=0.05 if rounds else 0.0)
    assert not running.tiled or not torch.equal(astray, lower)  # or the test tests nothing


@pytest.mark.parametrize("op", [*CURVES, "softmax"])
def test_below_values_of_other_ops(op: str) -> None:
    """In float32, against values in float64."""
    useful = without = 0
    for seed in range(8):
        inputs = (3, 20)[seed // 4]
        graph = attention(seed, inputs, 10.0 ** (seed % 5)) if op == "softmax" else curved(op, seed, inputs)
        above, lowers, values = below(graph, seed, (0.0, torch.finfo(torch.float32).eps, 1e-3)[seed % 3])
        assert bool((lowers <= values + 1e-12 * values.abs()).all())
        useful += bool((lowers.amax(0) > values - 0.02 * (1 + values.abs())).all())
        without += above
    assert useful > 1 or op in ("floor", "sign", "softmax")  # those of softmax are for float64
    assert without > 0 or op not in ("mul", "div", "matmul", "maximum", "reduce_max")  # or the test tests nothing


def test_several_boxes_at_once() -> None:
    """Every box's bounds are below its own values, and hardly lower than what float64 finds."""
    graphs = (network(1, 3, 3), network(2, 3, 20), attention(3, 3, 3.0), attention(4, 20, 3.0), pictures(5))
    for graph in graphs:
        size, graph = graph[graph.inputs[0]].size, graph.to(torch.float64)
        centre = torch.randn(5, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        radius = torch.tensor([0.0, 1e-3, 0.1, 0.3, 1.0], dtype=torch.float64)[:, None]
        boxes, plain = Box(centre - radius, centre + radius), Engine(graph).bound(Box(centre - radius, centre + radius))
        values = torch.stack([graph(points)[0] for points in boxes.sample(50, torch.Generator())])
        for effort in PASSES:
            lower, slopes = Running(graph).lower(boxes, effort)
            assert bool((lower[:, None] <= values + 1e-12 * (1 + values.abs())).all())
            assert slopes.shape == (5, 2, size)
        assert bool((lower >= plain.lower - 1e-6 * (1 + plain.lower.abs())).all())


def test_dead_neurons_lose_nothing() -> None:
    """y = relu(1e30 x - 1e30 - 1) - relu(x - 1/2) on [0, 1 / 2]: of the first one no row goes on."""
    builder = GraphBuilder()
    weight = {"weight": torch.tensor([[1e30], [1.0]]).double(), "bias": torch.tensor([-1e30 - 1.0, -0.5]).double()}
    x = builder.add("relu", [builder.add("linear", [builder.input("x", (1,))], weight)])
    graph = builder.build([builder.add("linear", [x], {"weight": torch.tensor([[1.0, -1.0]]).double()})])
    ends = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
    for effort in PASSES:
        lower = float(Running(graph).lower(Box(ends[:1], ends[1:]), effort)[0])
        assert -1e-12 < lower <= 0.0


@pytest.mark.parametrize("inputs", [1, 30])
def test_values_that_are_one_number(inputs: int) -> None:
    """y = |x_0| relu(x_0), all of shape ()."""
    builder = GraphBuilder()
    x = builder.add("slice", [builder.input("x", (inputs,))], attrs={"axis": 0, "start": 0, "stop": 1})
    x = builder.add("reshape", [x], attrs={"shape": ()})
    y = builder.add("mul", [builder.add("abs", [x]), builder.add("relu", [x])])
    graph = builder.build([builder.add("reshape", [y], attrs={"shape": (1,)})])
    ends = torch.full((2, inputs), 3.0, dtype=torch.float64)
    for effort in PASSES:
        lower = Running(graph).lower(Box(ends - 1, ends), effort)[0]
        assert bool((lower > 3.0).all() and (lower < 4.0).all())


@pytest.mark.parametrize("op", ["sqrt", "exp", "reciprocal"])
def test_of_what_has_no_end_nothing_is_known(op: str) -> None:
    """Rows that take nothing of it lose 0 times infinity."""
    builder = GraphBuilder()
    x = builder.add("linear", [builder.input("x", (30,))], {"weight": torch.full((2, 30), 100.0).double()})
    weight = {"weight": torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double()}
    graph = builder.build([builder.add("linear", [builder.add(op, [x])], weight)])
    ends = torch.full((1, 30), 3.0, dtype=torch.float64)
    for effort in PASSES:
        assert bool((Running(graph).lower(Box(-ends, ends), effort)[0] == -math.inf).all())


def test_ops_without_a_bound() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (4,))
    mask = {"mask": torch.tensor([1.0, 0.0, 1.0, 1.0])}
    parts = [
        builder.add("softmax", [x], mask, {"axis": 0}),
        builder.add("logsumexp", [x], {}, {"axes": (0,), "keepdims": True}),
    ]
    graph = builder.build([builder.add("concat", parts, {}, {"axis": 0})])
    assert unknown_ops(graph) == ("logsumexp", "softmax with a mask")


def test_a_search_beyond_a_measured_allowance_is_made_again() -> None:
    """Rounding that is too large a priori, and boxes that one look is not enough for."""
    graph = attention(0, 2, 30.0)
    lower = graph.to(torch.float64)(torch.rand(4000, 2, dtype=torch.float64))[0][:, 0].min()
    claim = linear(graph, [0.0, 0.0], [1.0, 1.0], [[1.0, 0.0]], [float(lower) - 0.05])
    with mock.patch("verif.confirmation.LEAST", 20.0):  # seconds, on a busy machine
        result = verify(graph, claim, timeout=20)
    assert result.verdict is Verdict.HOLDS
    assert result.rounding == "proved"
