"""Proofs about slopes: bounds around difference quotients of all ops, and claims that are false refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.verif.proving import Array, pack, property_file, random_mlp, save, unpack
from verif import evidence
from verif.checker import Refused, check, derivative, model
from verif.checker.bounds import Bounds
from verif.checker.network import Network

INNER = {
    "relu": [("Relu", ["h"], ["e"])],
    "sigmoid": [("Sigmoid", ["h"], ["e"])],
    "tanh": [("Tanh", ["h"], ["e"])],
    "softmax": [("Softmax", ["h"], ["e"])],
    "quotient": [("Exp", ["h"], ["p"]), ("Add", ["p", "one"], ["q"]), ("Div", ["h", "q"], ["e"])],
    "waves": [("Sin", ["h"], ["s"]), ("Cos", ["h"], ["c"]), ("Mul", ["s", "c"], ["e"])],
    "residual": [("Relu", ["h"], ["r"]), ("Add", ["r", "h"], ["e"])],
    "maximum": [("Neg", ["h"], ["n"]), ("Max", ["h", "n"], ["e"])],
    "side by side": [("Concat", ["h", "h"], ["c"]), ("Sigmoid", ["c"], ["s"]), ("Gather", ["s", "order"], ["e"])],
}


def build(path: Path, name: str) -> Path:
    """x (1, 3) to h (1, 4), the inner nodes, y (1, 2)."""
    generator = np.random.default_rng(0)
    first = helper.make_node("Gemm", ["x", "w", "b"], ["h"])
    attributes = {"Softmax": {"axis": -1}, "Concat": {"axis": 1}, "Gather": {"axis": 1}}
    inner = [helper.make_node(op, given, to, **attributes.get(op, {})) for op, given, to in INNER[name]]
    constants: dict[str, Array] = {
        "w": generator.normal(size=(3, 4)).astype(np.float32),
        "b": generator.normal(size=4).astype(np.float32),
        "v": generator.normal(size=(4, 2)).astype(np.float32),
        "one": np.ones(1, np.float32),
        "order": np.array([0, 5, 2, 5]),
    }
    return save(path, [first, *inner, helper.make_node("MatMul", ["e", "v"], ["y"])], constants, [1, 3], 2)


def values(network: Network, points: Array) -> Array:
    """Outputs (P, m) at points, from below."""
    return Bounds(network, points, points).rows(network.output, np.eye(network.outputs)).lower


@pytest.mark.parametrize("name", INNER)
def test_slopes_are_around_difference_quotients(name: str, tmp_path: Path) -> None:
    network = model.read(build(tmp_path / "net.onnx", name))
    slopes, generator = derivative.slopes(network, 1), np.random.default_rng(1)
    lower = generator.normal(size=(8, 3))
    upper = lower + 10.0 ** generator.uniform(-3, 0, (8, 1))
    unit = np.eye(3)
    bounds = Bounds(slopes, lower, upper)
    low, high = bounds.rows(slopes.output, unit).lower, -bounds.rows(slopes.output, -unit).lower
    for _ in range(20):
        points = lower + generator.random((8, 3)) * (upper - lower)
        for axis in range(3):
            step = unit[axis] * np.minimum(1e-4, (upper - points) / 2)
            quotient = (values(network, points + step) - values(network, points))[:, 1] / step[:, axis]
            assert (low[:, axis] <= quotient + 1e-6).all() and (quotient <= high[:, axis] + 1e-6).all()
    narrow = upper[:, 0] - lower[:, 0] < 0.01
    assert (high - low)[narrow].max() < 3  # a jump inside of one


@pytest.fixture
def proved(tmp_path: Path) -> tuple[Path, Path, Path, float]:
    """A proof that a slope is nowhere below a limit, and a slope that was seen."""
    network_file = random_mlp(tmp_path / "net.onnx", 4)
    slopes = derivative.slopes(model.read(network_file), 0)
    points = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    least = float((-Bounds(slopes, points, points).rows(slopes.output, -np.eye(2)[:1]).lower).min())
    claim = property_file(tmp_path / "p.vnnlib", [("-1", "1")] * 2, 2, f"(<= Y_0 {least - 0.5:.6f})")
    out = tmp_path / "out.proof"
    evidence.write(out, evidence.Claim(network_file, claim, 0))
    return out, network_file, claim, least


def test_a_proof_about_slopes(proved: tuple[Path, Path, Path, float], tmp_path: Path) -> None:
    out, network, claim, least = proved
    assert check(out, network, claim, 0).verdict == "holds"
    for other in (None, 1, -1, 2):
        with pytest.raises(Refused):
            check(out, network, claim, other)
    manifest, arrays = unpack(out)
    false = property_file(tmp_path / "q.vnnlib", [("-1", "1")] * 2, 2, f"(<= Y_0 {least + 0.001:.6f})")
    pack(out, {**manifest, "property": evidence.digest_of(false)}, arrays)
    with pytest.raises(Refused):
        check(out, network, false, 0)
    pack(out, {**manifest, "verdict": "violated"}, {"point": np.zeros(2)})
    with pytest.raises(Refused):
        check(out, network, claim, 0)


def test_an_output_that_no_input_moves(tmp_path: Path) -> None:
    path = build(tmp_path / "net.onnx", "relu")
    with pytest.raises(Refused, match="does not have"):
        derivative.slopes(model.read(path), 2)
