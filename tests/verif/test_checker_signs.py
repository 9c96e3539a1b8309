"""Proofs over signs of ReLU inputs: sweeps below exact values, and trees that were changed refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.adversarial.forged_signs import KINDS, run
from tests.verif.proving import random_mlp
from verif.checker import exact, model
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
