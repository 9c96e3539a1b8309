"""Passes of whole chains, layer after layer in the library, beside the engine's; and what boxes hand on."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.kernels.boxes import Boxes, BoxSweep, Chain
from relaxations.kernels.library import available
from relaxations.sets import Box
from tests.verif.networks import mlp, residual, weights
from tests.verif.test_tiles import each_library as each_library, threads as threads
from verif.bounds import Engine, Rounds
from verif.bounds.chains import ChainPass, rounds_at
from verif.bounds.engine import OutOfTime

needs_library = pytest.mark.skipif(not available(torch.float64), reason="the native library is not built")
WIDE = (20, 13, 9, 11, 3)  # so many inputs that the engine has no forward mode, which chains go without
PRECISIONS = {torch.float64: 1e-9, torch.float32: 2e-4}


def boxes(count: int, inputs: int, dtype: torch.dtype, seed: int = 0) -> Box:
    """Boxes of many sizes, some of them points."""
    generator = torch.Generator().manual_seed(seed)
    center, size = (torch.rand(count, inputs, generator=generator, dtype=torch.float64) for _ in range(2))
    radius = size * torch.linspace(0, 0.5, count, dtype=torch.float64)[:, None]
    return Box((center - radius).to(dtype), (center + radius).to(dtype))


def listed(region: Box, rounds: tuple[int, int], signs: Tensor) -> Boxes:
    """All with the same rounds; `signs` (B or 1, W)."""
    count = len(region)
    return Boxes(region.center, region.radius, signs.expand(count, -1), torch.tensor([rounds]).expand(count, 2))


def chain(graph: Graph, errors: dict[str, Tensor] | None = None) -> BoxSweep:
    """Its passes."""
    dtype = next(iter(graph.constants.values())).dtype
    found = BoxSweep.of(graph, dtype, errors or {})
    assert found is not None
    return found


@needs_library
@pytest.mark.usefixtures("each_library", "threads")
@pytest.mark.parametrize("rounds", [(0, 0), (0, 3), (2, 4), (2, 0)])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_chain_is_bounded_as_layer_by_layer(dtype: torch.dtype, rounds: tuple[int, int]) -> None:
    graph, region = mlp(3, WIDE).to(dtype), boxes(11, 20, dtype)
    errors = {node.name: torch.full(node.shape, 0.01) for node in graph}
    rows = torch.eye(3, dtype=dtype)
    for moved in ({}, errors):
        wanted = Engine(graph, errors=moved).bound(region, rounds=Rounds(*rounds))
        sweep = chain(graph, moved)
        found = sweep.run(listed(region, rounds, sweep.nothing(1)), rows, torch.get_num_threads())
        assert found.complete and wanted.steep is not None
        near = PRECISIONS[dtype]
        low = found.low.maximum(wanted.intervals[graph.outputs[0]].lower)
        assert torch.allclose(low, wanted.lower, near, near)
        if not any(rounds):  # optimised rows may differ where bounds are alike
            assert torch.allclose(found.slopes, wanted.slopes, near, near)
            assert torch.allclose(found.bias, wanted.bias, near, near)
        if not rounds[0]:
            assert torch.allclose(found.steep, wanted.steep, near, near)


@needs_library
@pytest.mark.usefixtures("each_library")
@pytest.mark.parametrize("seed", range(6))
def test_parts_inherit_signs_that_are_right(seed: int) -> None:
    graph, outer = mlp(seed, (4, 10, 12, 9, 2)), boxes(9, 4, torch.float64, seed)
    sweep, rows = chain(graph), torch.eye(2, dtype=torch.float64)
    whole = sweep.run(listed(outer, (0, 2), sweep.nothing(1)), rows, 1)
    parts = outer.split(torch.full((9,), seed % 4))
    known = whole.signs.repeat(2, 1)
    found = sweep.run(listed(parts, (0, 2), known), rows, 1)
    assert ((known == 0) | (known == found.signs)).all()
    alone = sweep.run(listed(parts, (0, 2), sweep.nothing(1)), rows, 1)
    assert (found.low - alone.low).mean() > -0.01
    points = parts.sample(200, torch.Generator().manual_seed(seed))
    held = graph.evaluate({graph.inputs[0]: points.flatten(0, 1)}, list(graph.nodes))
    below = torch.einsum("bsn,bpn->bps", found.slopes, points) + found.bias[:, None]
    out = held[graph.outputs[0]].unflatten(0, (18, 200))
    assert (out >= below - 1e-9).all() and (out >= found.low[:, None] - 1e-9).all()
    inside = torch.cat([held[name] for name in sweep.chain.linear], 1).unflatten(0, (18, 200))
    signs = found.signs[:, None].expand(inside.shape)
    assert (inside[signs == 1] >= -1e-9).all() and (inside[signs == 2] <= 1e-9).all()
    assert set(found.signs.unique().tolist()) <= {0, 1, 2}


def test_what_is_no_chain() -> None:
    def built(*ops: str) -> Graph:
        builder = GraphBuilder()
        x = builder.input("x", (4,))
        for i, op in enumerate(ops):
            x = builder.add(op, [x], {"weight": weights(i, 4, 4)} if op == "linear" else {})
        return builder.build([x])

    assert Chain.of(built("linear", "relu", "linear", "linear")) is not None
    for ops in (("linear",), ("linear", "relu"), ("linear", "linear", "relu", "linear"), ("linear", "abs", "linear")):
        assert Chain.of(built(*ops)) is None
    assert Chain.of(built("relu", "linear", "relu", "linear")) is None
    assert Chain.of(residual()) is None and Chain.of(mlp(0, (4, 600, 3))) is None
    lost = mlp(0)
    next(iter(lost.constants.values()))[0] = math.inf
    assert BoxSweep.of(lost, torch.float64, {}) is None
    assert BoxSweep.of(mlp(0), torch.float32, {}) is None


@needs_library
def test_intervals_that_overflow_prove_nothing() -> None:
    graph = mlp(1, (4, 8, 8, 2))
    wide = Box(torch.full((2, 4), -1e308, dtype=torch.float64), torch.full((2, 4), 1e308, dtype=torch.float64))
    sweep = chain(graph)
    found = sweep.run(listed(wide, (0, 1), sweep.nothing(1)), torch.eye(2, dtype=torch.float64), 1)
    assert not (found.low > -1e300).any()


@needs_library
def test_a_chain_stops_in_time() -> None:
    graph = mlp(0, (4, 60, 60, 60, 3))
    engine, region = Engine(graph), boxes(2000, 4, torch.float64)
    found = ChainPass.of(engine, torch.float64, 1)
    assert found is not None
    with pytest.raises(OutOfTime):
        found.bound(region, found.sweep.nothing(2000), rounds_at(torch.zeros(2000), Rounds(4, 8)), time.monotonic())
