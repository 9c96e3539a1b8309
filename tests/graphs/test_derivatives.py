"""Differentiation of graphs against automatic differentiation, op by op and on random networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder, UnsupportedError
from graphs.check import check
from graphs.derivatives import jacobian, jvp, vjp
from graphs.ops import OPS
from tests.laws.checks import ROWS, generator
from tests.laws.table import Row

_JUMPING = {
    "sign",
    "floor",
    "ceil",
    "round",
    "trunc",
    "step",
    "is_zero",
    "arg_max",
    "gather_at",
    "scatter_at",
    "clarke",
    "spread",
    "top_k",
    "top_k_softmax",
    "shares",
    "codebook",
}
SMOOTH = ("tanh", "sigmoid", "gelu", "silu", "softplus", "erf", "atan", "sin", "mish", "gelu_tanh")
KINKED = ("relu", "leaky_relu", "abs", "clip", "hard_swish", "elu", "softsign", "prelu")
ATTRS = {"leaky_relu": {"slope": 0.1}, "clip": {"lower": -0.5, "upper": 0.7}, "elu": {"alpha": 0.7}}
DIFFERENTIABLE = [r for r in ROWS if r.op not in _JUMPING]


def graph_of(row: Row) -> Graph:
    builder = GraphBuilder()
    names = [builder.input(f"x{i}", x.shape) for i, x in enumerate(row.inputs)]
    return builder.build([builder.add(row.op, names, row.params, row.attrs)])


def autograd(graph: Graph, points: list[Tensor], place: int) -> Tensor:
    """(B, M, *N): the Jacobian of the flat output by one input."""

    def f(x: Tensor) -> Tensor:
        (y,) = graph(*points[:place], x, *points[place + 1 :])
        return y.reshape(len(y), -1).sum(0)

    return torch.autograd.functional.jacobian(f, points[place]).movedim(1, 0)  # type: ignore[no-untyped-call]


def close(value: Tensor, expected: Tensor) -> None:
    assert value.shape == expected.shape
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max().clamp(min=1)))


def points_of(row: Row, count: int = 12) -> list[Tensor]:
    random = generator(row)
    return row.samples(row.boxes(count, 1.0, random, torch.float64), random)


@pytest.mark.parametrize("row", DIFFERENTIABLE, ids=str)
def test_the_jacobian_of_every_op_is_that_of_autograd(row: Row) -> None:
    graph, points = graph_of(row), points_of(row)
    smooth = [torch.rand_like(x) * 1e-3 for x in points]  # away from kinks
    points = [
        (x + 0 if spec.integers else x + e).clamp(spec.lower, spec.upper)
        for x, e, spec in zip(points, smooth, row.inputs, strict=True)
    ]
    for place, spec in enumerate(row.inputs):
        if spec.integers:
            continue
        found = jacobian(graph, wrt=graph.inputs[place])
        check(found)
        (value,) = found(*points)
        expected = autograd(graph, points, place)
        known = expected.isfinite().reshape(len(expected), -1).all(1)  # the ends of a domain are left out
        assert known.any()
        close(value[known], expected[known])


def network(seed: int, activations: tuple[str, ...] = SMOOTH + KINKED) -> Graph:
    """Linear layers, a product, a softmax or a norm, skip connections, random activations: 4 to 3 numbers."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64) / shape[-1] ** 0.5

    def pick(names: tuple[str, ...]) -> str:
        return names[int(torch.randint(len(names), (), generator=random))]

    builder = GraphBuilder()
    x = value = builder.input("x", (4,), "float64")
    for _ in range(3):
        name = pick(activations)
        value = builder.add("linear", [value], {"weight": draw(4, 4), "bias": draw(4)})
        params = {"slope": draw(4)} if name == "prelu" else {}
        bent = builder.add(name, [value], params, ATTRS.get(name, {}))
        join = pick(("add", "mul", "softmax", "layer_norm", "none"))
        if join in ("add", "mul"):
            value = builder.add(join, [bent, x if join == "add" else value])
        elif join == "softmax":
            value = builder.add("softmax", [bent], attrs={"axis": 0})
        elif join == "layer_norm":
            value = builder.add("layer_norm", [bent], attrs={"axes": (0,), "eps": 0.1})
        else:
            value = bent
    return builder.build([builder.add("linear", [value], {"weight": draw(3, 4)})])


@pytest.mark.parametrize("seed", range(20))
def test_jacobians_and_products_of_random_networks(seed: int) -> None:
    graph, random = network(seed), torch.Generator().manual_seed(seed)
    x = torch.randn(8, 4, generator=random, dtype=torch.float64)
    c, t = (torch.randn(8, n, generator=random, dtype=torch.float64) for n in (3, 4))
    expected = autograd(graph, [x], 0)
    close(jacobian(graph)(x)[0], expected)
    rows = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.5, 2.0]], dtype=torch.float64)
    close(jacobian(graph, rows)(x)[0], rows @ expected)
    close(vjp(graph)(x, c)[0], torch.einsum("bm,bmn->bn", c, expected))
    forward = jvp(graph)
    assert forward.inputs == ("x", "tangent")
    close(forward(x, t)[0], torch.einsum("bmn,bn->bm", expected, t))


@pytest.mark.parametrize("seed", range(20))
def test_second_derivatives_of_smooth_networks(seed: int) -> None:
    graph = network(seed, SMOOTH)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    once = jacobian(graph, torch.ones(1, 3, dtype=torch.float64))
    twice = jacobian(once)
    check(twice)
    close(twice(x)[0], autograd(once, [x], 0))
    hessian = torch.stack([torch.autograd.functional.hessian(lambda v: graph(v[None])[0].sum(), v) for v in x])
    close(twice(x)[0], hessian)


def test_an_output_that_does_not_depend_on_the_input_and_a_value_inside() -> None:
    builder = GraphBuilder()
    x, y = builder.input("x", (2,), "float64"), builder.input("y", (2,), "float64")
    inner = builder.add("square", [x])
    graph = builder.build([builder.add("tanh", [y]), builder.add("mul", [inner, y])])
    point = torch.tensor([[0.5, -1.0]], dtype=torch.float64), torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    assert not jacobian(graph)(*point)[0].any()
    (inside,) = jacobian(graph, output=graph.outputs[1], wrt=inner)(*point)
    torch.testing.assert_close(inside[0], torch.diag(point[1][0]))


@pytest.mark.parametrize("op", ["arg_max", "floor"])
def test_ops_that_jump_have_no_derivative(op: str) -> None:
    builder = GraphBuilder()
    x = builder.input("x", (3,), "float64")
    graph = builder.build([builder.add(op, [x], attrs={"axis": 0} if op == "arg_max" else {}, origin="/head")])
    with pytest.raises(UnsupportedError, match=r"G301.*\n.*'/head'"):
        jacobian(graph)


def test_a_kink_has_no_second_derivative() -> None:
    with pytest.raises(UnsupportedError, match="'clarke' has no derivative"):
        jacobian(jacobian(network(0, ("relu",))))


def test_every_op_with_a_derivative_is_in_the_table_of_the_laws() -> None:
    lacking = {name for name in OPS if name not in _JUMPING and name not in {r.op for r in DIFFERENTIABLE}}
    assert not lacking, f"ops without a row in tests/laws: {lacking}"
