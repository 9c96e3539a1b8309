"""Bounds and verdicts of networks whose numbers are of wildly different magnitude, against evaluation in 90 digits.

Weights from 1e-15 to 1e15, rows that nearly cancel, shares whose sum is taken to be 1, logits far apart, powers of
powers, inputs near 1e-300, boxes from one number to thousands wide. `python -m tests.adversarial.magnitudes SEEDS`
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mpmath  # type: ignore[import-untyped]
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from verif import Verdict, verify
from verif.bounds import Engine
from verif.properties import linear
from verif.query import compile_query
from verif.running import ALL, FORMS, KINKS, SURE, Running

OPS = ["softmax", "softmax", "relu", "mul", "maximum", "square", "abs", "leaky_relu"]
SIZE = 6
Number = Any  # of mpmath


@dataclass(frozen=True)
class Drawn:
    """A network of two outputs, one minus the other, a box, points of it and the outputs there."""

    graph: Graph
    box: Box
    points: list[list[float]]
    values: list[list[Number]]


class _Builder:
    def __init__(self, seed: int) -> None:
        self.choose, self.graph = random.Random(seed), GraphBuilder()
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.generator, dtype=torch.float64)

    def sums(self, x: str, size: int, spread: float) -> str:
        """Of numbers that differ by 10^spread both ways; the second may nearly cancel the first."""
        weight = self.normal(SIZE, size) * 10.0 ** (
            spread * (2 * torch.rand(SIZE, size, generator=self.generator, dtype=torch.float64) - 1)
        )
        if self.choose.random() < 0.3:
            weight[1] = -weight[0] * (1 + self.choose.choice([0.0, 1e-15, 1e-9, 1e-3]))
        bias = self.normal(SIZE) * 10.0 ** self.choose.uniform(-spread, spread)
        return self.graph.add("linear", [x], {"weight": weight, "bias": bias})

    def layer(self, x: str, size: int) -> str:
        op, spread = self.choose.choice(OPS), self.choose.choice([0, 0, 1, 3, 6, 15])
        if op == "softmax":
            lanes = self.choose.choice([2, 3, 6])
            y = self.graph.add("reshape", [self.sums(x, size, spread)], {}, {"shape": (SIZE // lanes, lanes)})
            return self.graph.add("reshape", [self.graph.add(op, [y], {}, {"axis": 1})], {}, {"shape": (SIZE,)})
        if op in ("mul", "maximum"):
            return self.graph.add(op, [self.sums(x, size, min(spread, 6)) for _ in range(2)])
        attrs = {"slope": self.choose.choice([0.1, 1e-9, 3.0])} if op == "leaky_relu" else {}
        return self.graph.add(op, [self.sums(x, size, min(spread, 6) if op == "square" else spread)], {}, attrs)

    def network(self, inputs: int) -> Graph:
        x, size = self.graph.input("x", (inputs,)), inputs
        for _ in range(self.choose.choice([1, 2, 3])):
            x, size = self.layer(x, size), SIZE
        last = self.normal(1, SIZE) * 10.0 ** self.choose.choice([0, 0, 8, 15])
        if self.choose.random() < 0.5:
            last[:] = last[0, 0].clone()
        bias = -last[0, :1] * (self.choose.choice([0, 1, 2, 3]) if self.choose.random() < 0.5 else 0)
        both = {"weight": torch.cat([last, -last]), "bias": torch.cat([bias, -bias])}
        return self.graph.build([self.graph.add("linear", [x], both)])


def draw(seed: int) -> Drawn:
    """One of them."""
    builder = _Builder(seed)
    inputs = builder.choose.choice([1, 2, 5, 20])
    graph = builder.network(inputs).to(torch.float64)
    centre = builder.normal(1, inputs) * 10.0 ** builder.choose.choice([-300, -8, 0, 0, 2, 5])
    radius = builder.choose.choice([0.0, 1e-16, 1e-12, 1e-6, 1e-2, 1.0, 1e4])
    radius *= 1.0 if builder.choose.random() < 0.7 else float(centre.abs().max())
    box = Box(centre - radius, centre + radius)
    points = [centre[0].tolist(), box.lower[0].tolist(), box.sample(1, builder.generator)[0, 0].tolist()]
    return Drawn(graph, box, points, [evaluate(graph, point) for point in points])


def evaluate(graph: Graph, point: list[float]) -> list[Number]:
    """The outputs at a point."""
    values: dict[str, list[Number]] = {}
    with mpmath.workdps(90):
        for node in graph:
            held = [values[name] for name in node.inputs]
            if node.op == "linear":
                params = {name: param.tolist() for name, param in graph.params(node).items()}
                pairs = zip(params["weight"], params["bias"], strict=True)
                values[node.name] = [mpmath.fdot(row, held[0]) + bias for row, bias in pairs]
            else:
                values[node.name] = _apply(node.op, held, node) if held else [mpmath.mpf(x) for x in point]
    return values[graph.outputs[0]]


def _apply(op: str, held: list[list[Number]], node: Any) -> list[Number]:
    if op == "softmax":
        size = node.shape[-1]
        lanes = [held[0][i : i + size] for i in range(0, len(held[0]), size)]
        terms = [[mpmath.exp(x - max(lane)) for x in lane] for lane in lanes]
        return [term / sum(lane) for lane in terms for term in lane]
    if op in ("mul", "maximum"):
        return [a * b if op == "mul" else max(a, b) for a, b in zip(*held, strict=True)]
    slope = mpmath.mpf({"abs": -1.0, "relu": 0.0}.get(op, node.attrs.get("slope", 0.0)))
    single = {"reshape": lambda x: x, "square": lambda x: x * x}
    return [single.get(op, lambda x: max(x, 0) + slope * min(x, 0))(x) for x in held[0]]


def above(lower: Tensor, values: list[list[Number]]) -> int:
    """How many lower bounds (2,) are above values, or no numbers."""
    bounds = lower.tolist()
    return sum(
        math.isnan(b) or (b > -math.inf and mpmath.mpf(b) > v)
        for row in values
        for b, v in zip(bounds, row, strict=True)
    )


def wrong_bounds(drawn: Drawn) -> tuple[int, int]:
    """How many bounds that count rounding are wrong, and how many of the engine's own."""
    running = Running(drawn.graph)
    found = [running.lower(drawn.box, effort)[0][0] for effort in (FORMS, KINKS[1], ALL[2], SURE)]
    own = Engine(drawn.graph).bound(drawn.box).lower[0]
    return sum(above(lower, drawn.values) for lower in found), above(own, drawn.values)


def wrong_verdicts(drawn: Drawn, arithmetic: str) -> int:
    """How often HOLDS is said although an output is at the threshold, or beyond."""
    wrong = 0
    for output in range(2):
        least = min(row[output] for row in drawn.values)
        limit = math.nextafter(float(least), math.inf)
        if math.isfinite(limit):
            row = [[1.0, 0.0], [0.0, 1.0]][output]
            claim = linear(drawn.graph, drawn.box.lower[0], drawn.box.upper[0], [row], [limit])
            query = compile_query(claim, drawn.graph, arithmetic=arithmetic)
            wrong += verify(None, query, timeout=0.3).verdict is Verdict.HOLDS
    return wrong


def run(seeds: Iterator[int]) -> tuple[int, int, int]:
    """Wrong bounds, those of the engine alone, and wrong verdicts."""
    bounds = own = verdicts = 0
    for seed in seeds:
        drawn = draw(seed)
        wrong, plain = wrong_bounds(drawn)
        bounds, own = bounds + wrong, own + plain
        verdicts += sum(wrong_verdicts(drawn, arithmetic) for arithmetic in ("real", "float32"))
        if wrong or verdicts:
            print("seed", seed, wrong, verdicts, flush=True)
    return bounds, own, verdicts


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("wrong bounds, of the engine alone, wrong verdicts:", run(iter(range(int(sys.argv[1])))))
