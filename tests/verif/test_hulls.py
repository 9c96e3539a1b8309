"""Bounds by minima over patches: never above a value, never below those of lines, exact for a single patch."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.kernels.library import available
from relaxations.sets import Box
from verif.bounds import Engine, Rounds
from verif.hulls import Asked, lower_bounds
from verif.signs import SignSearch


def _network(seed: int, size: int = 5, kernel: int = 2, *, deep: bool = False, skip: bool = False) -> Graph:
    """A convolution of one channel, ReLUs, and rows of all of them."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    builder = GraphBuilder()
    x = builder.input("x", (size * size,))
    image = builder.add("reshape", [x], attrs={"shape": (1, 1, size, size)})
    params = {"weight": drawn(6, 1, kernel, kernel), "bias": 0.3 * drawn(6)}
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    value = builder.add("relu", [builder.add("conv", [image], params, attrs)])
    count = 6 * (size - kernel + 1) ** 2
    value = builder.add("reshape", [value], attrs={"shape": (count,)})
    if skip:
        value, count = builder.add("concat", [value, x], attrs={"axis": 0}), count + size * size
    if deep:
        value = builder.add("linear", [value], {"weight": drawn(8, count) / count**0.5, "bias": drawn(8)})
        value, count = builder.add("relu", [value]), 8
    return builder.build([builder.add("linear", [value], {"weight": drawn(3, count), "bias": drawn(3)})])


def _box(size: int, radius: float = 0.5) -> Box:
    generator = torch.Generator().manual_seed(size)
    center = torch.randn(1, size * size, generator=generator, dtype=torch.float64)
    reach = torch.full_like(center, radius)
    reach[0, 3] = 0.0
    return Box(center - reach, center + reach)


def _bounds(graph: Graph, box: Box, target: float = math.inf) -> tuple[Tensor, Tensor]:
    """Lower bounds of the outputs over a box, by minima over patches and by lines."""
    engine, rows = Engine(graph), torch.eye(3, dtype=torch.float64)
    found = engine.bound(box, rows, rounds=Rounds(4, 20))
    asked = Asked(engine, box, found, rows, torch.full((3,), target, dtype=torch.float64), math.inf)
    return lower_bounds(asked), found.lower[0]


def _lowest(graph: Graph, box: Box) -> Tensor:
    """The lowest values (3,) that descents find."""
    points = box.sample(150, torch.Generator().manual_seed(0))[0].repeat(3, 1)
    which = torch.arange(3).repeat_interleave(len(points) // 3)
    lowest = torch.full((3,), math.inf, dtype=torch.float64)
    for step in (0.2 * 0.9**i for i in range(60)):
        points = points.detach().requires_grad_()
        values = graph(points)[0]
        lowest = lowest.minimum(values.detach().amin(0))
        (gradient,) = torch.autograd.grad(values.gather(1, which[:, None]).sum(), points)
        points = torch.minimum(torch.maximum(points - step * gradient.sign() * box.width, box.lower), box.upper)
    return lowest


@pytest.mark.parametrize("kernel", [1, 2])
@pytest.mark.parametrize(("deep", "skip"), [(False, False), (False, True), (True, False), (True, True)])
def test_bounds_lie_between_those_of_lines_and_the_values(kernel: int, deep: bool, skip: bool) -> None:
    graph, box = _network(1, kernel=kernel, deep=deep, skip=skip), _box(5)
    hulls, lines = _bounds(graph, box)
    lowest = _lowest(graph, box)
    assert bool((hulls <= lowest + 1e-9).all())
    if not deep:  # nothing else is relaxed
        assert bool((hulls >= lines - 1e-6).all())
        assert bool((hulls >= lines.lerp(lowest, 0.7) - 1e-6).all())


def test_one_patch_is_exact() -> None:
    graph, box = _network(3, size=2), _box(2, radius=1.0)
    hulls, lines = _bounds(graph, box)
    assert bool((hulls > lines + 0.05).any())
    assert torch.allclose(hulls, _lowest(graph, box), atol=2e-3)


def test_equal_channels_are_sound() -> None:
    """Hyperplanes that coincide have no vertices that could be found: all but one of them keep their lines."""
    graph, box = _network(2), _box(5)
    (name,) = (name for name, held in graph.constants.items() if held.dim() == 4)
    graph.constants[name][1:4] = graph.constants[name][0]
    (bias,) = (name for name, held in graph.constants.items() if held.shape == (6,))
    graph.constants[bias][1:3] = graph.constants[bias][0]
    hulls, lines = _bounds(graph, box)
    lowest = _lowest(graph, box)
    assert bool((hulls <= lowest + 1e-9).all())
    assert bool((hulls > lines + 0.01).any())


def test_wide_kernels_have_no_patches() -> None:
    assert bool((_bounds(_network(0, kernel=3), _box(5))[0] == -math.inf).all())


def test_enough_is_enough() -> None:
    graph, box = _network(1), _box(5)
    far, near = _bounds(graph, box)[0], _bounds(graph, box, target=-100.0)[0]
    assert bool((near > -100.0).all())
    assert bool((near < far).any())


@pytest.mark.skipif(not available(torch.float64), reason="the native library is not built")
def test_a_search_over_signs_begins_with_them() -> None:
    graph, box = _network(1), _box(5)
    hulls, lines = _bounds(graph, box)
    between = lines.lerp(hulls, 0.9)
    assert bool((between > lines).any())
    search = SignSearch(Engine(graph), box, torch.eye(3).double()[None], between, time.monotonic() + 60)
    assert list(search.run()) == [None]
    assert not len(search.open)
    assert not search.unresolved
