"""Ops that the checker writes as sums, moves and ReLUs: against onnxruntime, and bounds against exact rationals."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from tests.verif.proving import Array, save
from verif.checker import Refused, exact, forms, model
from verif.checker.bounds import Bounds
from verif.checker.lines import Range, maximum_planes

Nodes = list[tuple[str, list[str], list[str], dict[str, Any]]]
INTEGERS = {
    name: np.array(value, np.int64)
    for name, value in {"one": [1], "zero": [0], "flat": [1, -1], "space": [2, 3]}.items()
}
FLOATS = {
    name: np.array(value, np.float32) for name, value in {"two": 2, "three": 3, "low": -0.5, "high": 0.75}.items()
}
FLOATS |= {
    "row": np.linspace(-1, 1, 4, dtype=np.float32),
    "grid": np.ones((1, 1, 3, 4), np.float32),
    "wide": np.ones((1, 2, 1, 4), np.float32),
}
SQUARE = {"kernel_shape": [2, 2]}
FLAT: Nodes = [("Reshape", ["e", "flat"], ["y"], {})]

# Nodes from x (1, 2, 3, 4) to e; the flat e is the output.
CASES: dict[str, Nodes] = {
    "maxpool": [("MaxPool", ["x"], ["e"], {"kernel_shape": [2, 2], "strides": [1, 2]})],
    "maxpool padded": [("MaxPool", ["x"], ["e"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]})],
    "concat": [("Neg", ["x"], ["n"], {}), ("Concat", ["n", "x", "n"], ["e"], {"axis": 2})],
    "concat with a constant": [("Concat", ["grid", "c"], ["e"], {"axis": 1}), ("ReduceSum", ["x", "one"], ["c"], {})],
    "broadcast": [("ReduceSum", ["x", "space"], ["m"], {}), ("Sub", ["x", "m"], ["e"], {})],
    "broadcast by a constant": [("ReduceSum", ["x", "one"], ["m"], {}), ("Add", ["m", "wide"], ["e"], {})],
    "reduced": [("ReduceSum", ["x", "one"], ["e"], {"keepdims": 0})],
    "products": [("ReduceSum", ["x", "one"], ["m"], {}), ("Mul", ["x", "m"], ["e"], {})],
    "square": [("Pow", ["x", "two"], ["e"], {})],
    "cube": [("Pow", ["x", "three"], ["e"], {})],
    "floor": [("Floor", ["x"], ["e"], {})],
    "abs": [("Abs", ["x"], ["e"], {})],
    "leaky": [("LeakyRelu", ["x"], ["e"], {"alpha": 0.125})],
    "clip": [("Clip", ["x", "low", "high"], ["e"], {})],
    "max": [("Neg", ["x"], ["n"], {}), ("Max", ["x", "n"], ["e"], {})],
    "min": [("Min", ["high", "x"], ["e"], {})],
    "vector": [("MatMul", ["x", "row"], ["e"], {})],
    "maxpool of sums": [("Relu", ["x"], ["r"], {}), ("Add", ["r", "x"], ["a"], {}), ("MaxPool", ["a"], ["e"], SQUARE)],
    "gather twice": [
        ("Concat", ["one", "zero", "one"], ["i"], {"axis": 0}),
        ("Gather", ["x", "i"], ["e"], {"axis": 1}),
    ],
    "split": [("Split", ["x"], ["a", "b"], {"axis": 1}), ("Add", ["a", "b"], ["e"], {})],
    "shapes": [
        ("Shape", ["x"], ["s"], {}),
        ("Slice", ["s", "zero", "one"], ["first"], {}),
        ("Concat", ["first", "m"], ["to"], {"axis": 0}),
        ("Sub", ["zero", "one"], ["m"], {}),
        ("Reshape", ["x", "to"], ["e"], {}),
    ],
}


def build(path: Path, case: Nodes) -> Path:
    """The model of a case; nodes are put in the order of their values."""
    constants: dict[str, Array] = INTEGERS | FLOATS
    known, left, nodes = {"x", *constants}, [*case, *FLAT], []
    while left:
        node = next(one for one in left if known.issuperset(one[1]))
        left.remove(node)
        known.update(node[2])
        nodes.append(helper.make_node(node[0], node[1], node[2], **node[3]))
    return save(path, nodes, constants, [1, 2, 3, 4], 0)


@pytest.mark.parametrize("name", CASES)
def test_values_and_bounds(name: str, tmp_path: Path) -> None:
    path = build(tmp_path / "net.onnx", CASES[name])
    network = model.read(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    middle = generator.normal(size=(3, 24)).astype(np.float32).astype(np.float64)
    rows = np.concatenate([np.eye(network.outputs), generator.normal(size=(3, network.outputs))])
    low = Bounds(network, middle - 0.25, middle + 0.25).rows(network.output, rows).lower
    for centre, found in zip(middle, low.tolist(), strict=True):
        for step in (0.0, *generator.uniform(-0.25, 0.25, 3).tolist()):
            outputs = exact.evaluate(network, [Fraction(x) for x in (centre + step).tolist()])
            if not step:
                ran = session.run(None, {"x": centre.astype(np.float32).reshape(1, 2, 3, 4)})[0].ravel()
                assert np.allclose([float(value) for value in outputs], ran, atol=1e-5)
            for row, bound in zip(rows, found, strict=True):
                assert Fraction(bound) <= exact.combined(row, outputs)
                assert bound > -100


def test_means(tmp_path: Path) -> None:
    path = build(tmp_path / "net.onnx", [("ReduceMean", ["x"], ["e"], {"axes": [2, 3]})])
    point = np.random.default_rng(0).normal(size=(1, 24))
    low = Bounds(model.read(path), point, point).rows(model.read(path).output, np.eye(2)).lower[0]
    means = [sum(map(Fraction, half.tolist())) / 12 for half in point[0].reshape(2, 12)]
    for bound, mean in zip(low.tolist(), means, strict=True):
        assert 0 <= mean - Fraction(bound) < 1e-12


def test_nearest_entries(tmp_path: Path) -> None:
    """Of an op that onnxruntime knows under older opsets only."""
    node = helper.make_node("Upsample", ["x", "scales"], ["y"], mode="nearest")
    path = save(tmp_path / "net.onnx", [node], {"scales": np.array([1, 1, 2, 3], np.float32)}, [1, 2, 3, 4], 0)
    point = np.arange(24.0)
    found = exact.evaluate(model.read(path), [Fraction(x) for x in point.tolist()])
    wanted = np.kron(point.reshape(1, 2, 3, 4), np.ones((1, 1, 2, 3)))
    assert [float(x) for x in found] == wanted.ravel().tolist()


@pytest.mark.parametrize("power", [0.5, -1, 0, 9, np.nan])
def test_other_powers_are_refused(power: float, tmp_path: Path) -> None:
    node = helper.make_node("Pow", ["x", "p"], ["y"])
    constants = {"p": np.full(1, power, np.float32)}
    with pytest.raises(Refused):
        model.read(save(tmp_path / "net.onnx", [node], constants, [1, 3], 3))


def test_a_sum_of_float_constants_is_refused(tmp_path: Path) -> None:
    nodes: Nodes = [("Add", ["row", "high"], ["c"], {}), ("Add", ["x", "c"], ["e"], {})]
    with pytest.raises(Refused, match="two constants"):
        model.read(build(tmp_path / "net.onnx", nodes))


@pytest.mark.parametrize("wide", [1, 512])
@pytest.mark.parametrize(
    "name", ["maxpool padded", "maxpool of sums", "max", "clip", "concat", "products", "cube", "floor"]
)
def test_ranges_by_forms(name: str, wide: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few inputs that vary, without rows: around exact values of every step, and no wider than intervals."""
    monkeypatch.setattr(forms, "WIDE", wide)
    monkeypatch.setattr(Bounds, "_tightened", lambda self, place, _: self.ranges[place])
    network, generator = model.read(build(tmp_path / "net.onnx", CASES[name])), np.random.default_rng(0)
    middle, reach = generator.normal(size=(3, 24)), np.zeros((3, 24))
    for k in range(3):
        reach[k, generator.permutation(24)[:6]] = 10.0 ** generator.uniform(-6, 1, 6)
    reach[2] += 1.0  # all 24 vary
    found = Bounds(network, middle - reach, middle + reach).ranges
    monkeypatch.setattr(forms, "MOST", -1)
    wider = Bounds(network, middle - reach, middle + reach).ranges
    for box in range(3):
        for share in (np.ones(24), -np.ones(24), *generator.uniform(-1, 1, (3, 24))):
            values = [[Fraction(x) for x in (middle[box] + share * reach[box]).tolist()]]
            for step in network.steps[1:]:
                values.append(exact._value(step, [values[source] for source in step.sources]))
            for held, known, plain in zip(values, found, wider, strict=True):
                assert all(
                    a <= value <= b for a, value, b in zip(known.lower[box], held, known.upper[box], strict=True)
                )
                assert (known.upper - known.lower <= plain.upper - plain.lower).all()


def test_planes_around_maxima() -> None:
    generator = np.random.default_rng(0)
    ends = np.sort(np.round(generator.normal(size=(4, 2, 300)) * 10.0 ** generator.integers(-8, 9, 300), 3), 1)
    ends[1::2, :, :40] = ends[::2, :, :40]  # both the same
    ends[:2, 1, 40:80] = ends[:2, 0, 40:80]  # a point
    first, second = (Range(*ends[k]) for k in (0, 1))
    planes = maximum_planes(first, second)
    for x, y in ((x, y) for x in (first.lower, first.upper) for y in (second.lower, second.upper)):
        exactly = ([Fraction(value) for value in array.tolist()] for array in (x, y))
        for at, (one, other) in enumerate(zip(*exactly, strict=True)):
            low = Fraction(planes.lower[0][at]) * one + Fraction(planes.lower[1][at]) * other
            high = Fraction(planes.upper[0][at]) * one + Fraction(planes.upper[1][at]) * other
            top = max(one, other)
            assert low + Fraction(planes.base[at]) <= top <= high + Fraction(planes.shift[at])
            assert high + Fraction(planes.shift[at]) <= 2 * max(abs(ends[:2, :, at]).max(), 1e-9) * 2
