"""Replays: the models' own runtimes and types, closed boxes, strictness, NaN."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from graphs import GraphBuilder
from tests.properties.tools import box, declarations, onnx_model
from verif import floats
from verif.errors import PropertyError
from verif.query import Network, Query, compile_query
from verif.replay import replay

WEIGHT = np.array([[1.0, -1.0], [0.5, 2.0]])
STEP = 2.0**-24


def query(folder: Path, asserts: str, dtype: str = "float32", head: str = box()) -> Query:
    model = onnx_model(folder / "m.onnx", WEIGHT, dtype, "batch")
    (folder / "p.vnnlib").write_text(declarations() + head + asserts)
    return compile_query(folder / "p.vnnlib", model)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_verdict(dtype: str, tmp_path: Path) -> None:
    found = query(tmp_path, "(assert (>= Y_0 1.25))", dtype)
    seen = replay(found, torch.tensor([1.0, 0.5]))
    assert seen.violated and seen.reason == ""
    assert seen.inputs["X"].dtype == seen.outputs["Y"].dtype == dtype
    assert seen.outputs["Y"].tolist() == [[1.25, 0.0]]
    below = replay(found, torch.tensor([1.0, 0.25]))
    assert not below.violated
    assert below.reason == "the outputs do not satisfy the property's unsafe condition"
    assert found.runners is found.runners


@pytest.mark.parametrize(("op", "violated"), [(">=", True), (">", False)])
def test_strict_outputs(op: str, violated: bool, tmp_path: Path) -> None:
    assert replay(query(tmp_path, f"(assert ({op} Y_0 1.25))"), torch.tensor([1.0, 0.5])).violated is violated


def test_the_box_is_closed_and_exact(tmp_path: Path) -> None:
    found = query(tmp_path, "(assert (>= Y_0 -9))")
    assert replay(found, torch.tensor([1.0, 0.0])).violated
    outside = replay(found, torch.tensor([1.0 + 2 * STEP, 0.0]).double())
    assert not outside.violated and outside.reason == "the point is in no region of the property's inputs"
    assert not replay(found, torch.tensor([math.nan, 0.0])).violated


def test_open_ends(tmp_path: Path) -> None:
    found = query(tmp_path, "(assert (< X_0 1.0))(assert (>= Y_0 -9))")
    assert not replay(found, torch.tensor([1.0, 0.0])).violated
    assert replay(found, torch.tensor([1.0 - STEP, 0.0])).violated


def test_an_input_fixed_to_a_decimal_takes_the_nearest_number(tmp_path: Path) -> None:
    head = "(assert (= X_0 0.1))(assert (and (>= X_1 0.0) (<= X_1 0.3)))"
    found = query(tmp_path, "(assert (>= Y_0 -9))", head=head)
    near = float(np.float32(0.1))
    low, high = found.outer()
    assert low.tolist() == [[0.1, 0.0]] and high.tolist() == [[near, 0.3]]
    inner = found.inner()
    below = float(np.nextafter(np.float32(0.3), np.float32(0)))
    assert inner[0].tolist() == [[near, 0.0]] and inner[1].tolist() == [[near, below]]
    seen = replay(found, torch.tensor([0.1, 0.3], dtype=torch.float64))  # both round out of the decimals' box
    assert seen.violated and seen.point.tolist() == [near, below]
    wide = query(tmp_path, "(assert (>= Y_0 -9))", "float64", head)
    assert [bound.tolist() for bound in wide.outer()] == [[[0.1, 0.0]], [[0.1, 0.3]]]


def test_inner_boxes_hold_numbers_of_the_type_only(tmp_path: Path) -> None:
    found = query(tmp_path, "(assert (>= Y_0 -9))")
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    width = 10 ** (torch.rand(2000, 2, generator=generator, dtype=torch.float64) * 12 - 12)
    property = found.property.__class__(**{**found.property.__dict__, "lower": center - width, "upper": center + width})
    many = Query(found.graph, found.networks, property)
    (low, high), (inner_low, inner_high) = many.outer(), many.inner()
    assert bool((low <= property.lower).all() and (property.upper <= high).all())
    assert bool((low <= inner_low).all() and (inner_low <= inner_high).all() and (inner_high <= high).all())
    assert torch.equal(inner_low.float().double(), inner_low) and torch.equal(inner_high.float().double(), inner_high)
    below = torch.nextafter(inner_low.float(), torch.tensor(-math.inf)).double()
    assert bool(((below < property.lower) | (inner_low == inner_high)).all())


def test_nan_is_no_counterexample() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1,))
    graph = builder.build([builder.add("scale", [x], {"factor": torch.ones(1, dtype=torch.float64)}, name="y")])
    for bad in (math.nan, math.inf, -math.inf):
        from verif.properties import linear

        source = Network("", graph, torch.nn.Identity() if bad == 0 else lambda x, bad=bad: x * 0 + bad)
        found = compile_query(linear(source, [0.0], [1.0], [[1.0]], [1e30]), source)
        seen = replay(found, torch.tensor([0.5]))
        assert not seen.violated and seen.reason == "a value is NaN or infinite"


def test_torch_modules_and_graphs_run_too(tmp_path: Path) -> None:
    from verif.properties import linear

    onnx = query(tmp_path, "(assert (>= Y_0 -9))").networks[0]
    module = torch.nn.Linear(2, 2, bias=False)
    module.weight.data = torch.from_numpy(WEIGHT.T.copy()).float()
    for source in (module, None):
        network = Network("", onnx.graph, source)
        found = compile_query(linear(network, [0.0, 0.0], [1.0, 1.0], [[-1.0, 0.0]], [-1.25]), network)
        seen = replay(found, torch.tensor([1.0, 0.5]))
        assert seen.violated and seen.outputs["Y"].tolist() == [[1.25, 0.0]]


def test_integer_inputs_round_inwards_and_unknown_types_are_refused() -> None:
    for dtype, low, high in (("int64", 1.0, 2.0), ("float16", float(np.float16(0.2001)), 2.0)):
        lower, upper = torch.tensor([[0.2]], dtype=torch.float64), torch.tensor([[2.0]], dtype=torch.float64)
        inner = floats.boxes(lower, upper, {dtype: torch.tensor([0])})[2:]
        assert [bound.item() for bound in inner] == [low, high]
    with pytest.raises(PropertyError, match="inputs of type bfloat16 are not supported"):
        floats.boxes(lower, upper, {"bfloat16": torch.tensor([0])})
