"""What programs return, against exact rational arithmetic: any order of sums, in float32 and float16."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from tests.verif.programs import exact, program
from tests.verif.proving import property_file, random_mlp, save
from tests.verif.test_roundoff import CURVES, curved, network
from verif import Verdict, verify
from verif.deployed import TYPES, Programs, deployed
from verif.errors import PropertyError
from verif.properties import linear
from verif.query import Query, compile_query
from verif.rounding import JUMPS


def asked(graph: Graph, box: Box, arithmetic: str) -> Query:
    rows = torch.eye(graph[graph.outputs[0]].size, dtype=torch.float64)
    return compile_query(
        linear(graph, box.lower[0], box.upper[0], rows, [-1e30] * len(rows)), graph, arithmetic=arithmetic
    )


@pytest.mark.parametrize("arithmetic", ["float16", "float32"])
@pytest.mark.parametrize("spread", [0, 2])
def test_programs_return_no_more_than_that(arithmetic: str, spread: int) -> None:
    largest = 0.0
    for seed in range(3):
        graph = network(seed, 0 if arithmetic == "float16" else spread, inputs=4).to(torch.float64)
        graph = retyped(graph, arithmetic)
        generator = np.random.default_rng(seed)
        centre = torch.from_numpy(generator.normal(size=(1, 4)))
        box = Box(centre - 0.1 * (seed % 3), centre + 0.1 * (seed % 3)).to(TYPES[arithmetic]).to(torch.float64)
        found = deployed(asked(graph, box, arithmetic))
        assert found.errors is not None, found.why
        for point in box.sample(8, torch.Generator().manual_seed(seed))[0].to(TYPES[arithmetic]):
            real = exact(graph, [Fraction(x) for x in point.tolist()])
            seen = program(graph, point.numpy(), generator)
            for value, own, error in zip(real, seen.tolist(), found.errors.tolist(), strict=True):
                assert abs(Fraction(own) - value) <= Fraction(error)
                largest = max(largest, float(abs(Fraction(own) - value)) / error)
    assert largest > 1e-3  # or the test tests nothing


def retyped(graph: Graph, dtype: str) -> Graph:
    """The same network with inputs and weights of a type."""
    builder = GraphBuilder()
    for node in graph:
        params = {role: value.to(TYPES[dtype]).double() for role, value in graph.params(node).items()}
        if node.op == "input":
            builder.input(node.name, node.shape, dtype)
        else:
            builder.add(node.op, list(node.inputs), params, dict(node.attrs), name=node.name)
    return builder.build(list(graph.outputs))


def test_holds_is_about_programs(tmp_path: Path) -> None:
    """The margin must be above what the program is off by; what holds by less is unknown, and says so."""
    model = random_mlp(tmp_path / "net.onnx", 4)
    box = [("0.2", "0.3")] * 2
    query = compile_query(property_file(tmp_path / "p.vnnlib", box, 2, "(<= Y_0 -1000)"), model, arithmetic="float32")
    found = verify(None, query, timeout=10)
    assert (found.verdict, found.arithmetic, found.rounding) == (Verdict.HOLDS, "float32", "proved")
    point = property_file(tmp_path / "q.vnnlib", [("0.25", "0.25")] * 2, 2, "(<= Y_0 -1000)")
    query = compile_query(point, model, arithmetic="float32")
    errors, value = deployed(query).errors, float(query.graph.to(torch.float64)(torch.full((1, 2), 0.25).double())[0])
    assert errors is not None
    for share, arithmetic, verdict in (
        (0.5, "real", Verdict.HOLDS),
        (0.5, "float32", Verdict.UNKNOWN),
        (1.5, "float32", Verdict.HOLDS),
    ):
        limit = value - share * float(errors[0])
        claim = property_file(tmp_path / "q.vnnlib", [("0.25", "0.25")] * 2, 2, f"(<= Y_0 {limit:.15f})")
        found = verify(None, compile_query(claim, model, arithmetic=arithmetic), timeout=10)
        assert found.verdict is verdict, (share, arithmetic, found.reason)
        assert verdict is Verdict.HOLDS or "nearer to a violation than a program may be off by" in found.reason


def test_parts_of_the_input_set_have_errors_of_their_own() -> None:
    """y = 3 relu(x) is off by 1e-3 at 1000, and by nothing that counts near 0, where the margin is 1e-6."""
    builder = GraphBuilder()
    x = builder.input("x", (1,))
    x = builder.add("relu", [builder.add("linear", [x], {"weight": torch.full((1, 1), 1.5, dtype=torch.float64)})])
    graph = builder.build([builder.add("linear", [x], {"weight": torch.full((1, 1), 2.0, dtype=torch.float64)})])
    query = compile_query(linear(graph, [0.0], [1000.0], [[1.0]], [-1e-6]), graph, arithmetic="float32")
    errors = deployed(query).errors
    assert errors is not None and float(errors[0]) > 1e-5
    assert verify(None, query, timeout=20).verdict is Verdict.HOLDS


def test_boxes_are_looked_at_together() -> None:
    graph = retyped(network(1, 1, inputs=4).to(torch.float64), "float32")
    whole = Box(torch.full((1, 4), -1.0).double(), torch.ones(1, 4).double())
    programs, parts = Programs.of(asked(graph, whole, "float32")), whole.split(torch.tensor([2]))
    both = programs.inside(parts)
    for index, own in enumerate(both):
        one = slice(index, index + 1)
        alone = programs.inside(Box(parts.lower[one], parts.upper[one]))[0]
        assert torch.allclose(own, alone, rtol=1e-6)
    assert bool((both <= programs.inside(whole) * (1 + 1e-6)).all()) and not torch.allclose(both[0], both[1])


def test_a_search_without_an_end_says_why(tmp_path: Path) -> None:
    """The least value is nearer to the limit than programs may be off by, but not in the middle."""
    model = random_mlp(tmp_path / "net.onnx", 2)
    box = [("0.25", "0.5")] * 2
    query = compile_query(property_file(tmp_path / "p.vnnlib", box, 2, "(<= Y_0 0)"), model, arithmetic="float32")
    corners = torch.cartesian_prod(torch.linspace(0.25, 0.5, 65), torch.linspace(0.25, 0.5, 65)).double()
    least = query.graph.to(torch.float64)(corners)[0].min()
    claim = property_file(tmp_path / "q.vnnlib", box, 2, f"(<= Y_0 {float(least) - 1e-9:.15f})")
    found = verify(None, compile_query(claim, model, arithmetic="float32"), timeout=4)
    assert found.verdict in (Verdict.UNKNOWN, Verdict.VIOLATED), found.reason
    assert found.verdict is Verdict.VIOLATED or "nearer to a violation than a program may be off by" in found.reason


@pytest.mark.parametrize("op", [op for op in CURVES if op not in JUMPS] + ["floor", "ceil"])
def test_curves_and_products_in_programs(op: str) -> None:
    """In float32, against float64: evaluation at points, of which some are corners."""
    largest = 0.0
    for seed in range(6):
        graph = retyped(curved(op, seed % 3, 4).to(torch.float64), "float32")
        centre = torch.randn(1, 4, generator=torch.Generator().manual_seed(seed)).float().double()
        radius = 0.01 * (seed // 3)
        box = Box((centre - radius).float().double(), (centre + radius).float().double())
        found = deployed(asked(graph, box, "float32"))
        if found.errors is None:
            assert "overflow" in found.why
            continue
        points = torch.cat([box.sample(16, torch.Generator().manual_seed(seed))[0].float(), box.lower.float()])
        seen = (graph.to(torch.float32)(points)[0].double() - graph(points.double())[0]).abs()
        assert bool((seen <= found.errors).all())
        largest = max(largest, float((seen / found.errors).max()))
    assert largest > 1e-4  # or the test tests nothing


def test_what_is_not_known_of_programs_is_unknown(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    model = save(tmp_path / "net.onnx", nodes, {"w": np.ones((2, 1), np.float32)}, [1, 2], 1)
    claim = property_file(tmp_path / "p.vnnlib", [("0", "1")] * 2, 1, "(<= Y_0 -5)")
    assert verify(model, claim, timeout=10).verdict is Verdict.HOLDS
    found = verify(None, compile_query(claim, model, arithmetic="float32"), timeout=10)
    assert found.verdict is Verdict.UNKNOWN
    assert found.reason == "it holds in real arithmetic, not shown for float32: no proved error of a program's Softmax"
    graph = curved("sign", 0, 2)
    why = deployed(asked(graph, Box(torch.zeros(1, 2).double(), torch.ones(1, 2).double()), "float32")).why
    assert why == "no proved error of a program's sign"


def test_a_product_of_errors_is_not_the_error_of_a_product(tmp_path: Path) -> None:
    """x x and 1 / x as programs compute them: errors in proportion to the other factor."""
    nodes = [helper.make_node("Mul", ["x", "s"], ["h"]), helper.make_node("Mul", ["h", "h"], ["y"])]
    model = save(tmp_path / "net.onnx", nodes, {"s": np.full((1, 1), 1e4, np.float32)}, [1, 1], 1)
    claim = property_file(tmp_path / "p.vnnlib", [("1", "1")], 1, "(<= Y_0 0)")
    errors = deployed(compile_query(claim, model, arithmetic="float32")).errors
    assert errors is not None and float(errors[0]) > 1e8 * 2.0**-24


def test_constants_that_a_program_computes_are_not_known(tmp_path: Path) -> None:
    """1e8 + 1 - 1e8 is 0 in float32 and 1 where the import folds it in float64."""
    nodes = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Add", ["x", "c"], ["d"])]
    nodes.append(helper.make_node("Sub", ["d", "a"], ["y"]))
    constants = {"a": np.full((1, 1), 1e8, np.float32), "b": np.ones((1, 1), np.float32)}
    model = save(tmp_path / "net.onnx", nodes, constants, [1, 1], 1)
    claim = property_file(tmp_path / "p.vnnlib", [("0", "0.5")], 1, "(<= Y_0 0.75)")
    found = verify(None, compile_query(claim, model, arithmetic="float32"), timeout=10)
    assert found.verdict in (Verdict.UNKNOWN, Verdict.VIOLATED)
    assert deployed(compile_query(claim, model, arithmetic="float32")).why == (
        "no proved error of a program's Add of constants"
    )


def test_integers_and_powers_are_as_programs_compute_them(tmp_path: Path) -> None:
    """A shape that the model computes, as exported for Expand, and x^3 by pow."""
    nodes = [
        helper.make_node("Mul", ["ones", "minus"], ["m"]),
        helper.make_node("Equal", ["size", "m"], ["e"]),
        helper.make_node("Where", ["e", "ones", "size"], ["shape"]),
        helper.make_node("Expand", ["x", "shape"], ["h"]),
        helper.make_node("Pow", ["h", "three"], ["y"]),
    ]
    constants = {"ones": np.ones(2, np.int64), "minus": np.array(-1), "size": np.array([1, -1])}
    constants["three"] = np.array(3.0, np.float32)
    model = save(tmp_path / "net.onnx", nodes, constants, [1, 2], 2)
    claim = property_file(tmp_path / "p.vnnlib", [("1", "2")] * 2, 2, "(<= Y_0 0.99)")
    found = verify(None, compile_query(claim, model, arithmetic="float32"), timeout=10)
    assert (found.verdict, found.rounding) == (Verdict.HOLDS, "proved")
    claim = property_file(tmp_path / "q.vnnlib", [("1", "1e20")] * 2, 2, "(<= Y_0 0.99)")
    assert "overflow" in deployed(compile_query(claim, model, arithmetic="float32")).why


@pytest.mark.parametrize(("low", "jumps"), [(0.25, False), (0.9999998, True)])
def test_a_jump_that_programs_may_make(low: float, jumps: bool) -> None:
    """y = floor(x + 1e-8) for x below 1, where x + 1e-8 is 1 in float32 for x next to it."""
    builder = GraphBuilder()
    shifted = builder.add("shift", [builder.input("x", (1,))], {"offset": torch.full((1,), 1e-8).double()})
    graph = builder.build([builder.add("linear", [builder.add("floor", [shifted])], {"weight": torch.eye(1).double()})])
    point = torch.full((1, 1), low).float().double()
    errors = deployed(asked(graph, Box(point, point), "float32")).errors
    assert errors is not None and bool(errors[0] >= 1) == jumps


@pytest.mark.parametrize(("size", "kind"), [(1e30, "float32"), (3e4, "float16")])
def test_values_that_overflow_are_not_known(size: float, kind: str) -> None:
    builder = GraphBuilder()
    x = builder.input("x", (2,), kind)
    for _ in range(2):
        x = builder.add("linear", [x], {"weight": torch.full((2, 2), size, dtype=torch.float64)})
    graph = builder.build([x])
    found = deployed(asked(graph, Box(torch.zeros(1, 2).double(), torch.ones(1, 2).double()), kind))
    assert found.errors is None
    assert "overflow" in found.why


def test_a_program_computes_in_the_type_of_its_model(tmp_path: Path) -> None:
    model = random_mlp(tmp_path / "net.onnx", 2)
    claim = property_file(tmp_path / "p.vnnlib", [("0", "1")] * 2, 2, "(<= Y_0 0)")
    with pytest.raises(PropertyError, match="the model computes in float32"):
        compile_query(claim, model, arithmetic="float64")
    with pytest.raises(ValueError, match="arithmetic is one of"):
        compile_query(claim, model, arithmetic="bfloat16")


@pytest.mark.parametrize("kind", ["real", "float32"])
def test_a_query_declares_its_arithmetic(kind: str, tmp_path: Path) -> None:
    model = random_mlp(tmp_path / "net.onnx", 2)
    query = (
        f"(vnnlib-version <2.0>)\n(declare-network f (declare-input X {kind} [1,2]) (declare-output Y {kind} [1,2]))\n"
        "(assert (and (>= X[0,0] 0.0) (<= X[0,0] 1.0) (>= X[0,1] 0.0) (<= X[0,1] 1.0)))\n(assert (<= Y[0,0] -1000.0))\n"
    )
    (tmp_path / "q.vnnlib").write_text(query)
    assert compile_query(tmp_path / "q.vnnlib", model).property.arithmetic == kind
    assert compile_query(tmp_path / "q.vnnlib", model, arithmetic="real").property.arithmetic == "real"
    assert verify(model, tmp_path / "q.vnnlib", timeout=10).arithmetic == kind
