"""Lipschitz bounds of the shared networks: no looser than a peer's, and exact on the small ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from verif.bounds import Rounds
from verif.jacobians import LocalNorm, flat_rows
from verif.lipschitz import Settings, lipschitz
from verif.networks import Networks
from verif.operator_norms import OperatorNorm

NAMES = ["2layer_16_32_10_relu", "3layer_16_16_16_10_relu", "3layer_16_64_64_10_relu", "3layer_16_16_16_10_tanh"]
SLACK = 1e-5  # the peer computed in float32


def network(folder: Path, name: str) -> tuple[Graph, dict[str, np.ndarray]]:
    stored = dict(np.load(folder / "bench" / f"lip_{name}.npz"))
    builder = GraphBuilder()
    value = builder.input("x", (stored["w0"].shape[1],))
    layers = sum(key.startswith("w") for key in stored)
    for k in range(layers):
        params = {"weight": torch.tensor(stored[f"w{k}"]).double(), "bias": torch.tensor(stored[f"b{k}"]).double()}
        value = builder.add("linear", [value], params)
        value = builder.add(name.split("_")[-1], [value]) if k < layers - 1 else value
    return builder.build([value]), stored


def around(stored: dict[str, np.ndarray], eps: float) -> Box:
    centre = torch.tensor(stored["x0"]).double().reshape(1, -1)
    return Box(centre - eps, centre + eps)


@pytest.mark.parametrize("name", NAMES)
def test_one_pass_is_no_looser_than_the_peer_and_optimised_never_looser(name: str, shared: Path) -> None:
    graph, stored = network(shared, name)
    f, norm = flat_rows(Networks.of(graph).load("")), OperatorNorm(math.inf, math.inf)
    one, better = LocalNorm(f, norm), LocalNorm(f, norm, Rounds(20, 20))
    kept = [key for key in stored if key.startswith("ub_crown")]
    assert len(kept) >= 3
    for key in kept:
        box = around(stored, float(key.split("_")[-1]))
        found = one.rows(box)[0]
        assert (found <= torch.tensor(stored[key]).reshape(-1) * (1 + SLACK)).all()
        assert (better.rows(box)[0] <= found * (1 + 1e-9)).all()


@pytest.mark.parametrize(("eps", "constant"), [(0.01, 9.89910), (0.05, 10.45086), (0.1, 10.68481)])
def test_the_search_closes_the_gap(eps: float, constant: float, shared: Path) -> None:
    graph, stored = network(shared, "3layer_16_16_16_10_relu")
    found = lipschitz(graph, around(stored, eps), settings=Settings(timeout=60))
    assert found.gap <= 1e-4
    assert found.lower == pytest.approx(constant, rel=1e-4)
    (bound,) = (v for k, v in stored.items() if k.startswith("ub_alpha") and float(k.split("_")[-1]) == eps)
    assert found.upper <= float(bound.max())
