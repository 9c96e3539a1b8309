"""Tile sweeps against the plain torch sweep on the same relaxations, for every library that this machine runs."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from graphs import Graph
from relaxations.kernels import library as library_module
from relaxations.kernels.build import fingerprint, library_path, targets
from relaxations.kernels.library import Native
from relaxations.sets import InputSet
from tests.verif.tiled import (
    REGIONS,
    Random,
    Relaxations,
    plain,
    random_region,
    relax,
    tolerance,
    units,
    with_shared_lines,
)
from verif.bounds.entries import by_pixel
from verif.bounds.tiles import TilePass, TilePrograms

RUNS = library_module._CAPABILITY.get(torch.backends.cpu.get_cpu_capability(), ())
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}  # relative to the sum of the absolute terms


def use(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep with the library for one target; skip where this machine has none or cannot run it."""
    if target not in RUNS and target.startswith("x86"):
        pytest.skip(f"this processor is no {target}")
    if not library_path(target).is_file():
        pytest.skip("the native library is not built")
    made = ctypes.CDLL(str(library_path(target)))
    made.verif_fingerprint.restype = ctypes.c_char_p
    if made.verif_fingerprint() != fingerprint().encode():
        pytest.skip("the native library is older than its sources")
    monkeypatch.setattr(library_module, "native", lambda: Native(made, target))


@pytest.fixture(params=targets())
def each_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use(request.param, monkeypatch)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that would be in use."""
    use((*(t for t in RUNS if t in targets()), *targets())[0], monkeypatch)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def near(found: Tensor, wanted: Tensor, size: Tensor) -> None:
    """Equal up to rounding of sums whose absolute terms add up to `size`."""
    assert found.shape == wanted.shape
    assert (found.isfinite() | ~wanted.isfinite()).all()
    error = (found - wanted).abs() / (size + torch.finfo(torch.float32).tiny)
    assert error.max().item() <= ROUNDING[found.dtype] if error.numel() else True


def case(seed: int, dtype: torch.dtype) -> tuple[Graph, InputSet, Relaxations]:
    """A random network of some ten values, a region of one to five sets and its relaxations."""
    graph = Random(seed).graph(4 + seed % 9).to(dtype)
    kind, boxes = REGIONS[seed % len(REGIONS)], 1 + seed // 3 % 5
    region = random_region(kind, graph[graph.inputs[0]].size, boxes, seed).to(dtype)
    relaxations = relax(graph, region)
    return graph, region, with_shared_lines(relaxations) if seed % 4 == 3 else relaxations


def check_units(tiles: TilePass, relaxations: Relaxations, at: str, seed: int) -> None:
    """Both bounds of random entries of a node."""
    graph, region = tiles.programs.graph, tiles.region
    sweep = tiles.sweep(at)
    assert sweep is not None
    node, boxes = graph[at], len(region)
    share = (0.0, 0.3, 1.0)[seed % 3]
    mask = torch.rand(boxes, node.size, generator=torch.Generator().manual_seed(seed)) <= share
    owner, entry = by_pixel(mask, sweep.channels)
    found = tiles.both(sweep, owner, entry, math.inf)
    assert found is not None
    rows = units(graph, at, region.box().lower)
    size = tolerance(graph, relaxations, at, rows, region).expand(boxes, -1)[owner, entry]
    for bound, sign in zip(found, (1, -1), strict=True):
        slopes, bias = plain(graph, relaxations, at, sign * rows, boxes)
        near(sign * bound, (bias + region.minimize(slopes))[owner, entry], size)


def check_ends(tiles: TilePass, at: str, seed: int) -> None:
    """Of random entries the ends that are wanted, some alone: as if both were."""
    sweep = tiles.sweep(at)
    assert sweep is not None
    generator, size = torch.Generator().manual_seed(seed), tiles.programs.graph[at].size
    rows = by_pixel(torch.rand(tiles.boxes, size, generator=generator) < (0.3, 1.0)[seed % 2], sweep.channels)
    expected = torch.randint(-1, 2, rows[0].shape, generator=generator)
    found, both = tiles.ends(sweep, rows, expected, math.inf), tiles.both(sweep, *rows, math.inf)
    assert found is not None and both is not None
    for sign, end, wanted in zip((1, -1), found, both, strict=True):
        there = sign * expected >= 0
        near(end[there], wanted[there], wanted[there].abs() + 1)
        assert bool((sign * end[~there] == -math.inf).all())


def check_rows(tiles: TilePass, relaxations: Relaxations, at: str, seed: int) -> None:
    """Bounds, slopes and biases of random rows, shared and for each box."""
    graph, region = tiles.programs.graph, tiles.region
    sweep = tiles.sweep(at)
    assert sweep is not None
    generator, like = torch.Generator().manual_seed(seed), region.box().lower
    rows = torch.randn(
        (1, len(region))[seed % 2], 1 + seed % 20, *graph[at].shape, generator=generator, dtype=torch.float64
    )
    rows = (rows * (torch.rand(rows.shape, generator=generator) < 0.7)).to(like)
    found = tiles.rows(sweep, rows, math.inf)
    assert found.complete and found.slopes is not None and found.bias is not None
    size = tolerance(graph, relaxations, at, rows, region)
    slopes, bias = plain(graph, relaxations, at, rows, len(region))
    near(found.low, bias + region.minimize(slopes), size)
    near(found.bias, bias, size)
    near(found.slopes * region.box().lower.abs()[:, None], slopes * region.box().lower.abs()[:, None], size[..., None])


@pytest.mark.usefixtures("each_library", "threads")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(60))
def test_tiles_are_the_plain_sweep(seed: int, dtype: torch.dtype) -> None:
    graph, region, relaxations = case(seed, dtype)
    tiles = TilePass(TilePrograms(graph), region, relaxations)
    for at in [node.name for node in graph]:
        if tiles.sweep(at) is not None:
            check_units(tiles, relaxations, at, seed)
            check_rows(tiles, relaxations, at, seed)
            if tiles.box is not None:
                check_ends(tiles, at, seed)
