"""Random graphs: the passes never change a value, a name, or the well-formedness."""

from __future__ import annotations

import random

import pytest
import torch

from graphs import Graph, GraphBuilder
from graphs.check import check
from graphs.passes import simplify

OPS = ["scale", "shift"] * 2 + ["linear", "neg", "relu", "reshape", "transpose", "add", "sub", "mul", "div", "sigmoid"]
OPS += ["conv", "pad"]
SHAPES = [(1, 4), (2, 4), (1, 2, 2), (1, 2, 3, 3)]


def numbers(*shape: int) -> torch.Tensor:
    return torch.randint(-2, 3, shape).double() / 2


def constant(rng: random.Random, shape: tuple[int, ...]) -> torch.Tensor:
    """A constant that broadcasts to the shape: of lower rank, or with axes of size 1, or all of it."""
    rank = rng.randint(0, len(shape))
    return numbers(*(n if rng.random() < 0.6 else 1 for n in shape[len(shape) - rank :]))


def grow(builder: GraphBuilder, rng: random.Random, x: str, values: list[str]) -> str:
    """One more node on a value."""
    shape = builder.nodes[x].shape
    same = [v for v in values if builder.nodes[v].shape == shape]
    op = rng.choice(OPS)
    if op in ("scale", "shift"):
        return builder.add(op, [x], {{"scale": "factor", "shift": "offset"}[op]: constant(rng, shape)})
    if op == "linear":
        out = rng.choice([1, 4, shape[-1]])
        bias = {"bias": numbers(out)} if rng.random() < 0.5 else {}
        return builder.add(op, [x], {"weight": numbers(out, shape[-1]), **bias})
    if op == "reshape":
        size = builder.nodes[x].size
        fits = [s for s in [shape, (1, size), (size,), (1, size, 1)] if s]
        return builder.add(op, [x], attrs={"shape": rng.choice(fits)})
    if op == "transpose":
        return builder.add(op, [x], attrs={"perm": tuple(rng.sample(range(len(shape)), len(shape)))})
    if op in ("add", "sub", "mul"):
        return builder.add(op, [x, rng.choice(same)])
    if op == "div":
        return builder.add(op, [x, builder.add("shift", [builder.add("exp", [x])], {"offset": torch.ones(1).double()})])
    if op in ("conv", "pad") and len(shape) == 4 and min(shape[2:]) >= 2:
        if op == "pad":
            return builder.add(op, [x], attrs={"before": (0, 0, 1, 1), "after": (0, 0, 1, rng.randint(0, 1))})
        groups = shape[1] if rng.random() < 0.5 else 1
        attrs = {"stride": (1, 1), "padding": (rng.randint(0, 1),) * 2, "dilation": (1, 1), "groups": groups}
        weight = numbers(2 * shape[1], shape[1] // groups, 2, 2)
        if rng.random() < 0.5:
            weight = numbers(shape[1], 2, 2, 2)
            return builder.add("conv_transpose", [x], {"weight": weight}, {**attrs, "output_padding": (0, 0)})
        return builder.add(op, [x], {"weight": weight}, attrs)
    return builder.add(op if op in ("neg", "relu", "sigmoid") else "relu", [x])


def some_graph(seed: int) -> Graph:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    builder = GraphBuilder()
    values = [builder.input("x", rng.choice(SHAPES))]
    for _ in range(rng.randint(2, 14)):
        recent = rng.choice(values[-2:] if rng.random() < 0.8 else values)
        values.append(grow(builder, rng, recent, values))
    return builder.build(list(dict.fromkeys([values[-1], *rng.sample(values, rng.randint(0, 1))])))


@pytest.mark.parametrize("start", range(0, 400, 50))
def test_values_and_names_stay(start: int) -> None:
    for seed in range(start, start + 50):
        graph = some_graph(seed)
        short = simplify(graph)
        check(short)
        assert (short.inputs, short.outputs) == (graph.inputs, graph.outputs)
        assert len(short) <= len(graph)
        x = torch.randn(3, *graph["x"].shape, dtype=torch.float64)
        for before, after in zip(graph(x), short(x), strict=True):
            assert before.shape == after.shape, seed
            torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9 * max(1.0, float(before.abs().max())))
