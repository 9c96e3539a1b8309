"""Local Lipschitz constants: between sampled Jacobians and older bounds, and exact on networks that can be enumerated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from verif.bounds import Engine
from verif.jacobians import LocalNorm, flat_rows
from verif.lipschitz import Settings, lipschitz
from verif.lipschitz_baselines import fast_lip, product_of_norms, recur_jac
from verif.networks import Networks
from verif.operator_norms import OperatorNorm

NORMS = [OperatorNorm(p, q) for p in (1, 2, math.inf) for q in (1, 2, math.inf)]
Sizes = tuple[int, ...]


def mlp(sizes: Sizes, seed: int, activation: str = "relu") -> Graph:
    random = torch.Generator().manual_seed(seed)
    builder = GraphBuilder()
    value = builder.input("x", (sizes[0],), "float64")
    for number, (n, m) in enumerate(itertools.pairwise(sizes)):
        weight = torch.randn(m, n, generator=random, dtype=torch.float64) * (2 / n) ** 0.5
        bias = 0.1 * torch.randn(m, generator=random, dtype=torch.float64)
        value = builder.add("linear", [value], {"weight": weight, "bias": bias})
        if number < len(sizes) - 2:
            value = builder.add(activation, [value])
    return builder.build([value])


def around(n: int, radius: float, seed: int = 0) -> Box:
    centre = torch.rand(1, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Box(centre - radius, centre + radius)


def local(graph: Graph, norm: OperatorNorm) -> LocalNorm:
    return LocalNorm(flat_rows(Networks.of(graph).load("")), norm)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_each_bound_is_tighter_than_the_older_one_and_above_samples(norm: OperatorNorm, seed: int) -> None:
    graph = mlp((5, 8, 8, 3), seed)
    box = around(5, (0.02, 0.1, 0.3, 1.0)[seed], seed)
    one = local(graph, norm)
    bounds = [
        float(norm.at(one.matrices(box.sample(500)[0]))[0].max()),
        float(one.upper(box)[0]),
        recur_jac(graph, box, norm),
        fast_lip(graph, box, norm),
        product_of_norms(graph, norm),
    ]
    assert all(low <= high * (1 + 1e-9) for low, high in itertools.pairwise(bounds[:4]))
    if norm.p == norm.q and norm.p != 2:  # interval arithmetic takes absolute values, which only these norms keep
        assert bounds[3] <= bounds[4] * (1 + 1e-9)
    assert bounds[0] <= bounds[4] * (1 + 1e-9)


@pytest.mark.parametrize(
    "activation", ["relu", "tanh", "gelu", "silu", "sigmoid", "leaky_relu", "softplus", "hard_swish"]
)
def test_sampled_jacobians_lie_inside_of_their_bounds(activation: str) -> None:
    builder = GraphBuilder()
    x = builder.input("x", (4,), "float64")
    random = torch.Generator().manual_seed(3)
    w, v = (torch.randn(6, n, generator=random, dtype=torch.float64) for n in (4, 6))
    attrs = {"slope": 0.2} if activation == "leaky_relu" else {}
    inner = builder.add(activation, [builder.add("linear", [x], {"weight": w})], attrs=attrs)
    outer = builder.add(activation, [builder.add("linear", [inner], {"weight": v})], attrs=attrs)
    graph = builder.build([builder.add("softmax", [outer], attrs={"axis": 0})])
    one = local(graph, OperatorNorm(math.inf, math.inf))
    for radius in (0.01, 0.2, 2.0):
        box = around(4, radius)
        found = Engine(one.jacobian).bound(box)
        matrices = one.matrices(box.sample(2000)[0]).flatten(1)
        assert (matrices >= found.lower - 1e-9).all()
        upper = -Engine(one.jacobian).bound(box, -torch.eye(matrices.shape[1], dtype=torch.float64)).lower
        assert (matrices <= upper + 1e-9).all()


def enumerated(graph: Graph, box: Box, norm: OperatorNorm) -> float:
    """The largest norm over all activation cells that have an inside, found by linear programs (one hidden layer more
    than one is walked layer by layer).
    """
    from scipy.optimize import linprog

    f = flat_rows(Networks.of(graph).load(""))
    layers = [
        tuple(f.constants[node.params[r]].numpy() for r in ("weight", "bias")) for node in f if node.op == "linear"
    ]
    n = box.lower.shape[1]

    def inside(rows: list[np.ndarray], limits: list[float]) -> bool:
        """A ball of some radius fits: rows . x + |row| r <= limits, r as large as possible."""
        a = np.array([[*row, np.linalg.norm(row)] for row in rows])
        bounds = [*zip(box.lower[0].tolist(), box.upper[0].tolist(), strict=True), (0, 1)]
        found = linprog([*[0.0] * n, -1.0], A_ub=a, b_ub=np.array(limits), bounds=bounds)
        return bool(found.status == 0 and found.x[-1] > 1e-7)

    def walk(k: int, matrix: np.ndarray, offset: np.ndarray, rows: list[np.ndarray], limits: list[float]) -> float:
        weight, bias = layers[k]
        matrix, offset = weight @ matrix, weight @ offset + bias
        if k == len(layers) - 1:
            return float(norm.at(torch.from_numpy(matrix)[None])[0])
        cells = [((), rows, limits)]
        for row, c in zip(matrix, offset, strict=True):
            grown = []
            for signs, held, ends in cells:
                for sign in (1, -1):
                    more, end = [*held, -sign * row], [*ends, sign * c]
                    if inside(more, end):
                        grown.append(((*signs, float(sign > 0)), more, end))
            cells = grown
        return max(walk(k + 1, np.array(s)[:, None] * matrix, np.array(s) * offset, r, e) for s, r, e in cells)

    return walk(0, np.eye(n), np.zeros(n), [], [])


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_the_exact_constant_of_tiny_networks(norm: OperatorNorm) -> None:
    graph, box = mlp((2, 5, 4, 2), 1), around(2, 0.5)
    exact = enumerated(graph, box, norm)
    found = lipschitz(graph, box, norm.p, norm.q, settings=Settings(timeout=20))
    assert found.lower <= exact * (1 + 1e-9)
    assert found.lower == pytest.approx(exact, rel=1e-4)
    assert found.upper == pytest.approx(exact, rel=1e-4)
