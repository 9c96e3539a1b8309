"""Local Lipschitz constants: between samples and older bounds, exact on networks that can be enumerated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from graphs import Graph, GraphBuilder, UnsupportedError
from relaxations.sets import Ball, Box
from verif import lipschitz_sdp
from verif.bounds import Engine
from verif.errors import PropertyError
from verif.jacobians import LocalNorm, flat_rows
from verif.lipschitz import Settings, lipschitz
from verif.lipschitz_baselines import fast_lip, product_of_norms, recur_jac
from verif.lipschitz_sdp import lip_sdp
from verif.networks import Networks
from verif.operator_norms import OperatorNorm, spectral

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
    assert_exact(graph, box, norm)


@pytest.mark.parametrize("seed", range(6))
def test_the_exact_constant_of_other_tiny_networks(seed: int) -> None:
    sizes = ((3, 6, 2), (2, 4, 4, 3), (1, 6, 3, 1), (3, 4, 3, 2), (2, 3, 3, 3, 1), (4, 5, 2))[seed]
    assert_exact(mlp(sizes, seed), around(sizes[0], 0.8, seed), OperatorNorm(math.inf, math.inf))


def assert_exact(graph: Graph, box: Box, norm: OperatorNorm) -> None:
    exact = enumerated(graph, box, norm)
    found = lipschitz(graph, box, norm.p, norm.q, settings=Settings(timeout=60))
    assert exact * (1 - 1e-4) <= found.lower <= exact * (1 + 1e-9)
    assert exact * (1 - 1e-9) <= found.upper <= exact * (1 + 1e-4)


def test_the_bounds_close_in_and_the_pair_shows_the_lower_one() -> None:
    graph, box, events = mlp((6, 12, 12, 4), 3), around(6, 0.3), []
    found = lipschitz(graph, box, settings=Settings(timeout=None, boxes=500, tolerance=0.0, on_event=events.append))
    assert [e.upper for e in events] == sorted((e.upper for e in events), reverse=True)
    assert [e.lower for e in events] == sorted(e.lower for e in events)
    assert found.lower <= found.upper < found.first and events[-1].upper == found.upper
    assert box.contains(found.pair[None]).all()
    first, second = (graph(x[None])[0] for x in found.pair)
    quotient = (first - second).abs().max() / (found.pair[0] - found.pair[1]).abs().max()
    assert float(quotient) == pytest.approx(found.lower, rel=1e-6)


@pytest.mark.parametrize("norm", [1, 2])
def test_a_ball_is_smaller_than_its_box(norm: float) -> None:
    graph, box = mlp((5, 10, 10, 3), 2), around(5, 0.4)
    ball = Ball(box.center, torch.tensor([0.4], dtype=torch.float64), norm)
    settings = Settings(timeout=None, boxes=300)
    inner, outer = (lipschitz(graph, region, norm, 2, settings=settings) for region in (ball, box))
    assert inner.lower <= outer.upper and inner.first <= outer.first * (1 + 1e-9)
    assert ball.contains(inner.pair[None]).all()


@pytest.mark.parametrize("slope", [0.1, -0.3])
def test_slopes_that_float32_cannot_hold_leave_no_box_empty(slope: float) -> None:
    """A slope rounded to float32 lay outside of its own exact interval, and the region counted as empty."""
    builder = GraphBuilder()
    x = builder.input("x", (2,), "float64")
    weight = torch.tensor([[1.0, 0.5], [0.5, -1.0], [0.2, 1.0]], dtype=torch.float64)
    bias = torch.tensor([-9.0, 0.1, 9.0], dtype=torch.float64)  # one that is off, one at its kink, one that is on
    value = builder.add(
        "leaky_relu", [builder.add("linear", [x], {"weight": weight, "bias": bias})], {}, {"slope": slope}
    )
    graph = builder.build([builder.add("linear", [value], {"weight": torch.ones(1, 3, dtype=torch.float64)})])
    box = Box(-torch.ones(1, 2), torch.ones(1, 2))
    found = lipschitz(graph, box, settings=Settings(timeout=None))
    columns = torch.tensor([[slope, s, 1.0] for s in (slope, 1.0)], dtype=torch.float64) @ weight
    exact = float(columns.abs().sum(1).max())
    assert exact * (1 - 1e-4) <= found.lower <= exact * (1 + 1e-9)
    assert exact * (1 - 1e-9) <= found.upper <= found.first * (1 + 1e-9)


def test_rows_of_margins() -> None:
    graph, box = mlp((4, 8, 3), 5), around(4, 0.2)
    rows = torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
    settings = Settings(timeout=20)
    both = lipschitz(graph, box, rows=rows, settings=settings)
    each = [lipschitz(graph, box, rows=row[None], settings=settings) for row in rows]
    assert both.upper == pytest.approx(max(one.upper for one in each), rel=1e-3)


def test_convolutions_and_pooling() -> None:
    random = torch.Generator().manual_seed(0)
    builder = GraphBuilder()
    x = builder.input("image", (1, 1, 6, 6))
    space = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    value = builder.add("conv", [x], {"weight": torch.randn(2, 1, 3, 3, generator=random)}, space)
    value = builder.add(
        "max_pool",
        [builder.add("relu", [value])],
        attrs={**space, "kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)},
    )
    value = builder.add("reshape", [value], attrs={"shape": (1, 18)})
    graph = builder.build([builder.add("linear", [value], {"weight": torch.randn(2, 18, generator=random)})])
    found = lipschitz(graph, around(36, 0.05), settings=Settings(timeout=None, boxes=40))
    assert 0 < found.lower <= found.upper <= found.first < 2 * found.lower


def test_the_spectral_bound_is_sound_and_exact_for_one_matrix() -> None:
    random = torch.Generator().manual_seed(0)
    centre = torch.randn(20, 4, 6, generator=random, dtype=torch.float64)
    exact = torch.linalg.matrix_norm(centre, 2)
    torch.testing.assert_close(spectral(centre, centre), exact)
    radius = torch.rand(20, 4, 6, generator=random, dtype=torch.float64)
    bound = spectral(centre - radius, centre + radius)
    for _ in range(50):
        inside = centre + radius * torch.randn(20, 4, 6, generator=random, dtype=torch.float64).sign()
        assert (torch.linalg.matrix_norm(inside, 2) <= bound).all()


def test_bad_input() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (2,))
    root = builder.build([builder.add("sqrt", [x], origin="/head/Sqrt")])
    jump = builder.build([builder.add("arg_max", [x], attrs={"axis": 0, "keepdims": True}, origin="/head/ArgMax")])
    box = Box(torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, 2.0]]))
    with pytest.raises(PropertyError, match=r"P115.*'sqrt' is not defined on all of the box"):
        lipschitz(root, box)
    with pytest.raises(UnsupportedError, match="G301"):
        lipschitz(jump, box)
    with pytest.raises(PropertyError, match=r"P112.*norms must be 1, 2 or inf"):
        lipschitz(root, box, input_norm=3)
    with pytest.raises(PropertyError, match="P104"):
        lipschitz(root, around(3, 0.1))
    with pytest.raises(PropertyError, match=r"P112.*rows must be a matrix with 2 columns"):
        lipschitz(root, box, rows=torch.eye(3))
    with pytest.raises(PropertyError, match="P114"):
        fast_lip(root, box, NORMS[0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("solver", ["CLARABEL", "SCS"])
def test_lip_sdp_is_above_samples_and_below_the_product(solver: str, seed: int) -> None:
    graph, norm = mlp((4, 8, 8, 3), seed), OperatorNorm(2.0, 2.0)
    box = around(4, (0.02, 0.2, 1.0)[seed], seed)
    here, anywhere = lip_sdp(graph, box, solver=solver), lip_sdp(graph, solver=solver)
    sampled = float(norm.at(local(graph, norm).matrices(box.sample(500)[0]))[0].max())
    assert sampled <= here <= anywhere * 1.001 <= 1.001 * product_of_norms(graph, norm)
    assert anywhere < 0.95 * product_of_norms(graph, norm)


def test_lip_sdp_is_exact_where_nothing_switches() -> None:
    graph = mlp((3, 4), 0)
    (weight,) = (c for c in graph.constants.values() if c.dim() == 2)
    assert lip_sdp(graph) == pytest.approx(float(torch.linalg.matrix_norm(weight, 2)), rel=1e-6)


def test_baselines_read_models_with_an_axis_of_samples() -> None:
    builder = GraphBuilder()
    value = builder.input("x", (1, 2, 2), "float64")
    value = builder.add("reshape", [value], attrs={"shape": (1, 4)})
    plain = mlp((4, 6, 3), 0)
    for node in list(plain)[1:]:
        value = builder.add(node.op, [value], plain.params(node))
    graph, box = builder.build([value]), around(4, 0.1)
    for norm in NORMS:
        assert recur_jac(graph, box, norm) == pytest.approx(recur_jac(plain, box, norm))
        assert fast_lip(graph, box, norm) == pytest.approx(fast_lip(plain, box, norm))
        assert product_of_norms(graph, norm) == pytest.approx(product_of_norms(plain, norm))
    assert lip_sdp(graph, box) == pytest.approx(lip_sdp(plain, box), rel=1e-4)
    for op, refused in (("relu", "reshape"), ("tanh", "linear")):
        builder = GraphBuilder()
        value = builder.add(op, [builder.input("x", (2,), "float64")])
        attrs = {"shape": (1, 2)} if refused == "reshape" else {}
        value = builder.add(refused, [value], {} if attrs else {"weight": torch.eye(2).double()}, attrs)
        with pytest.raises(PropertyError, match="P114"):
            product_of_norms(builder.build([value]), NORMS[0])


def test_a_solver_that_is_wrong_does_not_make_a_wrong_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """rho too small by half, and multipliers of nothing: what the eigenvalue lacks is added."""
    graph, box, norm = mlp((3, 6, 2), 4), around(3, 0.3), OperatorNorm(2.0, 2.0)
    sampled = float(norm.at(local(graph, norm).matrices(box.sample(500)[0]))[0].max())
    right = lipschitz_sdp._multipliers
    for change in (lambda rho, t: (rho / 2, t), lambda rho, t: (rho, 0 * t), lambda rho, t: (0.0, 3 * t)):
        monkeypatch.setattr(lipschitz_sdp, "_multipliers", lambda *a, change=change: change(*right(*a)))
        assert lip_sdp(graph, box) >= sampled
