"""What tile sweeps are made of: lists of entries, groups of rows, and programs that share memory only in time."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.kernels.entries import Entries
from relaxations.kernels.library import available
from relaxations.kernels.program import Program, StepKind, compile_sweep
from relaxations.kernels.tiles import Tiles, TileSweep, lanes
from relaxations.scalar.lines import ScalarLines
from tests.verif.networks import residual
from tests.verif.test_tiles import each_library as each_library, fast as fast
from tests.verif.tiled import Random

GRAPHS = {f"random {seed}": Random(seed).graph(4 + seed % 12) for seed in range(80)} | {"residual": residual()}


def programs(graph: Graph) -> list[Program]:
    """Those of all nodes that have one."""
    found = (compile_sweep(graph, node.name) for node in graph)
    return [program for program in found if program is not None]


@pytest.mark.parametrize("name", GRAPHS)
def test_slots_that_are_alive_together_lie_apart(name: str) -> None:
    for program in programs(GRAPHS[name]):
        held: dict[int, tuple[int, int]] = {}  # first and last step of each slot
        held[program.at] = (-1, -1)
        for i, step in enumerate(program.steps):
            for slot in (step.source, step.target):
                held[slot] = (held.get(slot, (i, i))[0], i)
        held[program.input] = (held.get(program.input, (len(program.steps),))[0], len(program.steps))
        for a, (first, last) in held.items():
            one = program.slots[a]
            assert one.offset >= 0 and one.offset + one.size <= program.arena <= program.kept
            for b, (begin, end) in held.items():
                other = program.slots[b]
                if a != b and first <= end and begin <= last:
                    assert one.offset + one.size <= other.offset or other.offset + other.size <= one.offset


@pytest.mark.parametrize("name", GRAPHS)
def test_what_slope_optimisation_keeps_lies_apart(name: str) -> None:
    """Behind the arena: a value for each entry of each slot, and four numbers more behind scalar ops."""
    for program in programs(GRAPHS[name]):
        used = sorted((slot.kept, slot.kept + slot.size * (5 if slot.scalar else 1)) for slot in program.slots)
        used = [(0, program.arena), *used]
        assert all(end <= begin for (_, end), (begin, _) in pairwise(used))
        assert used[-1][1] <= program.kept


@pytest.mark.parametrize("name", GRAPHS)
def test_rows_reach_a_slot_before_they_leave_it(name: str) -> None:
    for program in programs(GRAPHS[name]):
        for i, step in enumerate(program.steps):
            stays = step.kind in (StepKind.RELAX, StepKind.SHIFT)
            assert stays == (step.source == step.target)
            before = program.steps[:i]
            assert stays or all(step.target != earlier.source for earlier in before)
            assert step.source == program.at or any(step.source == earlier.target for earlier in before)


def test_ops_without_steps_have_no_program() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (4,))
    product = builder.add("mul", [x, x])
    graph = builder.build([builder.add("relu", [product])])
    assert compile_sweep(graph, product) is None and compile_sweep(graph, graph.outputs[0]) is None
    assert compile_sweep(graph, x) is not None


def test_two_maps_of_one_value_have_no_program() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (12,))
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    for shape in ((1, 3, 2, 2), (1, 1, 3, 4)):
        x = builder.add("reshape", [x], attrs={"shape": shape})
        weight = torch.ones(shape[1], shape[1], 1, 1, dtype=torch.float64)
        x = builder.add("conv", [x], {"weight": weight}, attrs)
    assert compile_sweep(builder.build([x]), x) is None


def test_grouped_and_broadcasting_nodes_have_no_program() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 3, 3))
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 2}
    grouped = builder.add("conv", [x], {"weight": torch.ones(4, 2, 1, 1)}, attrs)
    wide = builder.add("shift", [builder.input("y", (1,))], {"offset": torch.ones(4)})
    rows = builder.add("linear", [builder.input("z", (3, 2))], {"weight": torch.ones(2, 2)})
    graph = builder.build([grouped])
    assert all(compile_sweep(graph, name) is None for name in (grouped, wide, rows))


@pytest.mark.usefixtures("each_library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("geometry", [(7, 1, 1), (3, 2, 4), (1, 1, 5), (5, 3, 1)])
@pytest.mark.parametrize("shared", ["none", "slopes", "all"])
def test_lists_hold_the_entries_that_lines_do_not_zero(
    shared: str, geometry: tuple[int, int, int], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(sum(geometry))
    channels, area = geometry[0], geometry[1] * geometry[2]

    def line(boxes: int) -> Tensor:
        drawn = torch.randn(boxes, *geometry, generator=generator)
        return torch.where(torch.rand(drawn.shape, generator=generator) < 0.3, drawn, 0).to(dtype)

    few = 3 if shared == "none" else 1
    lines = ScalarLines(line(few), None, line(few), line(1 if shared == "all" else 3))
    found = Entries.of(lines, geometry)
    boxes = len(found.start)
    assert found.finite and boxes == (1 if shared == "all" else 3)
    fields = (lines.lower_slope, torch.zeros_like(lines.upper_slope), lines.upper_slope, lines.upper_bias)
    for b in range(boxes):
        at = 0
        for p in range(area):
            assert found.start[b, p] == at
            for c in range(channels):
                values = [f.expand(boxes, *geometry)[b].reshape(channels, area)[c, p] for f in fields if f is not None]
                if any(values):
                    assert found.channel[b, at] == c and found.flat[b, at] == c * area + p
                    assert all(x[b, at] == value for x, value in zip(found.lines, values, strict=False))
                    at += 1
        assert found.start[b, area] == at


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("field", ["lower_slope", "upper_slope"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_lists_tell_of_slopes_that_are_not_finite(field: str, value: float) -> None:
    slopes = {"lower_slope": torch.zeros(2, 6), "upper_slope": torch.ones(2, 6)}
    slopes[field][1, 4] = value
    lines = ScalarLines(slopes["lower_slope"], None, slopes["upper_slope"], torch.full((2, 6), math.inf))
    assert not Entries.of(lines, (6, 1, 1)).finite
    slopes[field][1, 4] = 0
    assert Entries.of(lines, (6, 1, 1)).finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_hold_every_row_once(dtype: torch.dtype) -> None:
    mask = torch.rand(4, 6, 9, generator=torch.Generator().manual_seed(0)) < 0.7  # boxes, pixels, channels
    mask[1] = False
    owner, pixel, channel = mask.nonzero(as_tuple=True)
    tiles = Tiles.of_units(owner, channel * 6 + pixel, 6, dtype)
    at = 0
    for box, first, size in zip(*(x.tolist() for x in tiles), strict=True):
        rows = slice(first, first + size)
        assert first == at and 0 < size <= lanes(dtype) // 2
        assert (owner[rows] == box).all() and len(pixel[rows].unique()) == 1
        at += size
    assert at == len(owner)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 40])
def test_groups_of_given_rows(count: int) -> None:
    tiles = Tiles.of_rows(3, count, torch.float32)
    assert len(tiles.box) == 3 * math.ceil(count / lanes(torch.float32))
    for box in range(3):
        mine = tiles.box == box
        taken = [range(a, a + n) for a, n in zip(tiles.first[mine].tolist(), tiles.size[mine].tolist(), strict=True)]
        assert [row for rows in taken for row in rows] == list(range(count))


@pytest.mark.usefixtures("fast")
def test_the_library_computes_in_two_precisions() -> None:
    assert available(torch.float32) and available(torch.float64)
    assert not available(torch.float16) and not available(torch.bfloat16)


@pytest.mark.usefixtures("fast")
def test_a_sweep_knows_when_its_copies_are_old() -> None:
    graph = residual()
    program = compile_sweep(graph, graph.outputs[0])
    assert program is not None
    sweep = TileSweep(graph, program, torch.float64)
    assert sweep.current()
    next(c for name, c in graph.constants.items() if c.dim() == 4).data.mul_(2)
    assert not sweep.current()
