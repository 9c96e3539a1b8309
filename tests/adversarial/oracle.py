"""Verdicts about random small networks against those that are known: by mixed-integer programming, and by evaluating
every number of a tiny set of floats, exactly and as programs do. `python -m tests.adversarial.oracle QUERIES [SEED]`
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from tests.verif.programs import exact, program
from verif import Verdict, verify
from verif.exact import minimum
from verif.properties import linear
from verif.query import compile_query

BENT = ["relu", "relu", "abs", "leaky_relu"]
ORDERS = 3  # in which each point's sums are taken


@dataclass(frozen=True)
class Case:
    """A question with the verdict that is wrong."""

    kind: str
    graph: Graph
    box: Box
    limit: float
    arithmetic: str
    wrong: Verdict

    def answer(self) -> Verdict:
        """What the search says of `row . y <= limit` being unsafe."""
        property = linear(self.graph, self.box.lower[0], self.box.upper[0], [[1.0]], [self.limit])
        return verify(None, compile_query(property, self.graph, arithmetic=self.arithmetic), timeout=2).verdict


def random_network(generator: np.random.Generator) -> Graph:
    """One output; up to three bent layers of up to six numbers, skips, weights of float32 that may differ widely."""
    builder, spread = GraphBuilder(), int(generator.integers(0, 3))
    size = int(generator.integers(1, 4))
    x, layers = builder.input("x", (size,)), int(generator.integers(1, 4))
    for _ in range(layers):
        width = int(generator.integers(2, 7))
        y = builder.add("linear", [x], drawn(generator, width, size, spread))
        bent = str(generator.choice(BENT))
        y = builder.add(bent, [y], attrs={"slope": 0.125} if bent == "leaky_relu" else {})
        x, size = (builder.add("add", [x, y]) if width == size and generator.random() < 0.7 else y), width
    return builder.build([builder.add("linear", [x], drawn(generator, 1, size, spread))])


def drawn(generator: np.random.Generator, outputs: int, inputs: int, spread: int) -> dict[str, Tensor]:
    """Weights and biases."""
    scale = 10.0 ** generator.integers(-spread, spread + 1, (outputs, inputs))
    weight = generator.normal(size=(outputs, inputs)) * scale
    return {
        "weight": torch.from_numpy(weight).float().double(),
        "bias": torch.from_numpy(generator.normal(size=outputs)).float().double(),
    }


def by_programming(graph: Graph, generator: np.random.Generator) -> Iterator[Case]:
    """Limits above and below the minimum over a box."""
    count = graph[graph.inputs[0]].size
    centre, radius = (torch.from_numpy(generator.normal(size=(2, count))).float().double()[:, None]).unbind(0)
    box = Box(centre - radius.abs(), centre + radius.abs())
    found = minimum(graph, box, torch.ones(1), 20.0)
    if found is None:
        return
    least = found[0]
    for sign in (-1, 1, -1):
        off = 10.0 ** generator.uniform(-4, -0.5) * max(1.0, abs(least))
        wrong = Verdict.VIOLATED if sign < 0 else Verdict.HOLDS
        yield Case("programming", graph, box, least + sign * off, "real", wrong)


def by_evaluation(graph: Graph, generator: np.random.Generator) -> Iterator[Case]:
    """A few floats along each input; limits around what real arithmetic and programs make of all of them."""
    count = graph[graph.inputs[0]].size
    first = generator.normal(size=count).astype(np.float32)
    axes = [[value] for value in first]
    for axis in axes:
        for _ in range({1: 15, 2: 5, 3: 2}[count]):
            axis.append(np.nextafter(axis[-1], np.float32(np.inf)))
    points = [np.array(point, np.float32) for point in itertools.product(*axes)]
    ends = torch.tensor([[axis[0] for axis in axes], [axis[-1] for axis in axes]], dtype=torch.float64)
    box = Box(ends[:1], ends[1:])
    real = [exact(graph, [Fraction(float(x)) for x in point])[0] for point in points]
    seen = [float(program(graph, point, generator)[0]) for point in points for _ in range(ORDERS)]
    spread = max(abs(min(seen) - float(min(real))), 1e-7 * abs(min(seen)))
    for off in (1.0, -1.0, 4.0):
        limit = min(seen) + off * generator.random() * spread
        # VIOLATED is said of what one program returns, which may be below all orders tried: only HOLDS is checked
        if Fraction(limit) >= min(real):
            yield Case("exactly", graph, box, limit, "real", Verdict.HOLDS)
        if limit >= min(seen):
            yield Case("as programs", graph, box, limit, "float32", Verdict.HOLDS)


def run(queries: int, seed: int = 0) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Counts of verdicts by kind, and every disagreement."""
    counts, wrong = Counter[tuple[str, str]](), []
    for number in itertools.count(seed):
        generator = np.random.default_rng(number)
        graph = random_network(generator)
        for case in itertools.chain(by_programming(graph, generator), by_evaluation(graph, generator)):
            if counts.total() == queries:
                return counts, wrong
            verdict = case.answer()
            counts[case.kind, verdict.label] += 1
            if verdict is case.wrong:
                wrong.append(f"network {number}, {case.kind}: {verdict.label}, limit {case.limit!r}")
    raise AssertionError


if __name__ == "__main__":
    torch.set_num_threads(1)
    most, start = (int(value) for value in (*sys.argv[1:], "0")[:2])
    done, disagreements = run(most, start)
    for (kind, label), count in sorted(done.items()):
        print(f"{kind:12} {label:9} {count}")
    print(f"{done.total()} queries, {len(disagreements)} disagreements")
    print(*disagreements, sep="\n")
    sys.exit(bool(disagreements))
