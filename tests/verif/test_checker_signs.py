"""Proofs over signs of ReLU inputs: sweeps below exact values, and trees that were changed refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.adversarial.forged_signs import KINDS, run
from tests.verif.proving import property_file, random_mlp, save
from verif import evidence
from verif.checker import check, exact, model, stream
from verif.checker.bounds import Bounds
from verif.checker.network import Network
from verif.checker.signs import Leaves, SignSweep, places


def activations(network: Network, point: list[Fraction]) -> tuple[list[Fraction], list[Fraction]]:
    """The inputs of all ReLUs, in order, and the outputs."""
    values, before = [point], []
    for step in network.steps[1:]:
        given = [values[source] for source in step.sources]
        before += given[0] if step.op == "relu" else []
        values.append(exact._value(step, given))
    return before, values[network.output]


@pytest.mark.parametrize("seed", range(12))
def test_sweeps_are_below_exact_values(seed: int, tmp_path: Path) -> None:
    """Any slopes and multipliers, under signs that a point of the box has: below the values at all such points."""
    network, generator = model.read(random_mlp(tmp_path / "net.onnx", seed)), np.random.default_rng(seed)
    count = sum(len(part) for part in places(network).values())
    lower = generator.normal(size=2)
    upper = lower + 10.0 ** generator.uniform(-2, 0.5, 2)
    bounds, row, cases = Bounds(network, lower[None], upper[None]), generator.normal(size=2), 6
    points = [[Fraction(x) for x in lower + generator.random(2) * (upper - lower)] for _ in range(40)]
    seen = [activations(network, point) for point in points]
    neurons = generator.permutation(count)[: generator.integers(1, count)]
    signs = np.zeros((cases, len(neurons)), np.int8)
    for case in range(cases):
        before = seen[case][0]
        own = [1 if before[neuron] >= 0 else -1 for neuron in neurons]
        signs[case] = np.where(generator.random(len(neurons)) < 0.3, own, 0)
    held = Leaves(neurons, signs, generator.random(signs.shape), 10.0 ** generator.uniform(-3, 1, signs.shape))
    low, compared = SignSweep(bounds, row, held).lower(), 0
    assert np.isfinite(low).all()
    for before, outputs in seen:
        value = exact.combined(row, outputs)
        for case in range(cases):
            if all(sign * before[neuron] >= 0 for sign, neuron in zip(signs[case].tolist(), neurons, strict=True)):
                assert Fraction(low[case]) <= value
                compared += 1
    assert compared >= cases


def test_proofs_are_accepted_and_forged_ones_refused() -> None:
    refused, accepted = run(8)
    assert not accepted
    assert refused.total() == 8 * len(KINDS)


def test_signs_beside_other_bends(tmp_path: Path) -> None:
    """Products, maxima and curves keep the planes and lines of the whole box: sweeps lie below values."""
    generator = np.random.default_rng(0)
    constants = {
        name: (generator.normal(size=size) / size[0] ** 0.5).astype(np.float32)
        for name, size in {"a": (26, 8), "b": (8, 8), "c": (8, 2)}.items()
    }
    constants["s"] = np.array([1, 1, 2, 4])
    nodes = [("MatMul", "xa", "h"), ("Relu", "h", "r"), ("MatMul", "rb", "i"), ("Relu", "i", "p"), ("Mul", "pr", "m")]
    nodes += [("Reshape", "ps", "q"), ("MaxPool", "q", "o"), ("Sigmoid", "h", "g"), ("ReduceSum", "o", "t")]
    nodes += [("Add", "mg", "u"), ("Add", "ut", "v"), ("MatMul", "vc", "y")]
    extra = {"MaxPool": {"kernel_shape": [2, 2]}, "ReduceSum": {"keepdims": 0}}
    constants["d"] = np.array([1, 2, 3])
    made = [
        helper.make_node(op, [*given, "d"] if op == "ReduceSum" else [*given], [out], **extra.get(op, {}))
        for op, given, out in nodes
    ]
    path = save(tmp_path / "net.onnx", made, constants, [1, 26], 0)
    network = model.read(path)
    ends, row = (-np.ones((1, 26)), np.ones((1, 26))), np.eye(2)[:1]
    bounds = Bounds(network, *ends)
    neurons = np.arange(16)
    points = np.concatenate([generator.uniform(-1, 1, (300, 26)), np.sign(generator.normal(size=(300, 26)))])
    values = -Bounds(network, points, points).rows(network.output, -row).lower[:, 0]
    before = np.concatenate(
        [Bounds(network, points, points).ranges[step.sources[0]].lower for step in network.steps if step.op == "relu"],
        1,
    )
    signs = np.where(generator.random((600, 16)) < 0.4, np.where(before >= 0, 1, -1), 0).astype(np.int8)
    held = Leaves(neurons, signs, generator.random(signs.shape), 10.0 ** generator.uniform(-3, 1, signs.shape))
    assert (SignSweep(bounds, row[0], held).lower() <= values + 1e-9).all()
    low = bounds.rows(network.output, row).lower[0, 0]
    claim = property_file(tmp_path / "p.vnnlib", [("-1", "1")] * 26, 2, f"(<= Y_0 {low + 0.01:.6f})")
    written = evidence.write(tmp_path / "out.proof", evidence.Claim(path, claim))
    assert check(tmp_path / "out.proof", path, claim).leaves == written.leaves
    assert "S" in [kind for kind, _ in stream.read(tmp_path / "out.proof")[1]]
