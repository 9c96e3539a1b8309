"""Sub-problems of ReLU signs in tiles: bounds that hold wherever the signs do, each as it is alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.kernels.cases import CaseSweep, Chosen, Decided, Pace, Signs
from tests.verif.networks import mlp, residual
from tests.verif.test_tiles import each_library as each_library, fast as fast, threads as threads
from tests.verif.tiled import Random, random_region, relax
from verif.bounds import Engine
from verif.bounds.tiles import Rounds, TilePass, TilePrograms

CASES, ROWS = 30, 5


def _unread_pixels() -> Graph:
    """A convolution that steps over pixels of a ReLU's map: their signs can be given, but no row reaches them."""
    builder = GraphBuilder()
    x = builder.add("reshape", [builder.input("x", (18,))], attrs={"shape": (1, 2, 3, 3)})
    weight = torch.randn(3, 2, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    attrs = {"stride": (4, 2), "padding": (0, 0), "dilation": (1, 1)}
    x = builder.add("conv", [builder.add("relu", [x])], {"weight": weight}, attrs)
    wide = torch.ones(40, 6, dtype=torch.float64)  # its rows leave numbers behind where those of the map come to lie
    return builder.build(
        [builder.add("linear", [builder.add("reshape", [x], attrs={"shape": (6,)})], {"weight": wide})]
    )


GRAPHS = {f"random {seed}": Random(seed, ("relu", "relu", "sigmoid")).graph(6 + seed % 9) for seed in range(40)}
SHORT = Pace(4)
GRAPHS |= {"mlp": mlp(3, (20, 12, 12, 5)), "residual": residual(), "unread pixels": _unread_pixels()}


@dataclass(frozen=True)
class Problem:
    """Cases of a network over one box: row and signs of each, and points (P, n) of the box with all values there."""

    graph: Graph
    sweep: CaseSweep
    row: Tensor
    signs: Signs
    points: Tensor
    values: dict[str, Tensor]

    def run(self, only: slice = slice(None), pace: Pace = SHORT, chosen: Chosen | None = None) -> Decided:
        """Bound (some of) the cases."""
        start = self.signs.start[only.start or 0 : (only.stop or CASES) + 1]
        held = slice(int(start[0]), int(start[-1]))
        signs = Signs(start - start[0], *(x[held].clone() for x in self.signs[1:]))
        row = self.row[only]
        return self.sweep.run(row, signs, torch.full((len(row),), math.inf, dtype=torch.float64), pace, chosen)

    def inside(self, case: int) -> Tensor:
        """Points at which the neurons of a case have their signs."""
        mask = torch.ones(len(self.points), dtype=torch.bool)
        for i in range(int(self.signs.start[case]), int(self.signs.start[case + 1])):
            z = self.front(int(self.signs.slot[i]))[:, int(self.signs.entry[i])]
            mask &= z >= 0 if self.signs.active[i] else z <= 0
        return mask

    def front(self, slot: int) -> Tensor:
        """Values in front of a slot's ReLU, (P, N)."""
        name = self.sweep.sweep.program.slots[slot].scalar
        assert name is not None
        return self.values[self.graph[name].inputs[0]].reshape(len(self.points), -1)


def problem(graph: Graph) -> Problem | None:
    """Cases with up to six signs each, most of them those of a random point; None where the network has none."""
    generator = torch.Generator().manual_seed(len(graph))
    region = random_region("box", graph[graph.inputs[0]].size, 1, 0)
    rows = torch.randn(1, ROWS, *graph[graph.outputs[0]].shape, generator=generator, dtype=torch.float64)
    known = Engine(graph).interval(region)
    made = TilePass(TilePrograms(graph), region, relax(graph, region), Rounds(1, 1), known)
    sweep = made.cases(graph.outputs[0], rows)
    if sweep is None:
        return None
    points = region.sample(3000, generator)[0]
    values = graph.evaluate({graph.inputs[0]: points}, [node.name for node in graph])
    slots = sweep.sweep.program.slots
    relus = [i for i, slot in enumerate(slots) if slot.scalar is not None and graph[slot.scalar].op == "relu"]
    blank = Problem(graph, sweep, torch.arange(CASES) % ROWS, Signs(*(torch.zeros(0),) * 4), points, values)
    chosen: list[tuple[int, int, int]] = []
    start = [0]
    for _ in range(CASES):
        count, here = torch.randint(7, (), generator=generator), torch.randint(3000, (), generator=generator)
        for _ in range(int(count)):
            slot = relus[int(torch.randint(len(relus), (), generator=generator))]
            entry = int(torch.randint(slots[slot].size, (), generator=generator))
            active = int(blank.front(slot)[here, entry] > 0)
            if (slot, entry, active) not in chosen[start[-1] :]:
                chosen.append((slot, entry, active))
        start.append(len(chosen))
    signs = torch.tensor(chosen, dtype=torch.int32).reshape(-1, 3).T.contiguous()
    return Problem(graph, sweep, blank.row, Signs(torch.tensor(start), *signs), points, values)


def check(made: Problem, found: Decided) -> None:
    """Each bound, and the line that comes with it, is below the row wherever the signs hold."""
    assert found.complete
    output = made.values[made.graph.outputs[0]].reshape(len(made.points), -1)
    given = output @ made.sweep.rows.T
    for case in range(CASES):
        inside = made.inside(case)
        assert bool(inside.any())
        values, points = given[inside, made.row[case]], made.points[inside]
        line = points @ found.slopes[case] + found.bias[case]
        slack = 1e-9 * (1 + values.abs() + found.bias[case].abs() + points.abs() @ found.slopes[case].abs())
        assert bool((found.low[case] <= values + slack).all()) and bool((line <= values + slack).all())


@pytest.mark.usefixtures("each_library", "threads")
@pytest.mark.parametrize("name", GRAPHS)
def test_bounds_hold_where_the_signs_do(name: str) -> None:
    made = problem(GRAPHS[name])
    if made is None:
        pytest.skip("this network has no signs to split")
    check(made, made.run())


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_cases_are_bounded_as_they_are_alone(name: str) -> None:
    made = problem(GRAPHS[name])
    assert made is not None
    together = made.run()
    for case in range(CASES):
        alone = made.run(slice(case, case + 1))
        assert torch.equal(alone.low[0], together.low[case]) and torch.equal(alone.slopes[0], together.slopes[case])
        assert torch.equal(alone.slot[0], together.slot[case]) and torch.equal(alone.entry[0], together.entry[case])
        assert torch.equal(alone.chosen.lines[0], together.chosen.lines[case])


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_a_sign_that_is_given_twice_counts_once(name: str) -> None:
    made = problem(GRAPHS[name])
    assert made is not None
    once = made.run()
    twice = Signs(2 * made.signs.start, *(x.repeat_interleave(2) for x in made.signs[1:]))
    row, endless = made.row, torch.full((CASES,), math.inf, dtype=torch.float64)
    assert torch.equal(made.sweep.run(row, twice, endless, SHORT).low, once.low)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_what_to_split_next_is_open(name: str) -> None:
    """A neuron of the case's row whose sign is neither given nor settled by its interval."""
    made = problem(GRAPHS[name])
    assert made is not None
    found = made.run()
    for case in range(CASES):
        mine = slice(int(made.signs.start[case]), int(made.signs.start[case + 1]))
        given = list(zip(made.signs.slot[mine].tolist(), made.signs.entry[mine].tolist(), strict=True))
        named = list(zip(found.slot[case].tolist(), found.entry[case].tolist(), strict=True))
        named = [neuron for neuron in named if neuron[0] >= 0]
        assert len(set(named)) == len(named) and not set(named) & set(given)
    assert bool((found.slot >= 0).any())


@pytest.mark.usefixtures("each_library", "threads")
@pytest.mark.parametrize("name", GRAPHS)
def test_any_choice_of_lines_and_multipliers_is_sound(name: str) -> None:
    made = problem(GRAPHS[name])
    if made is None:
        pytest.skip("this network has no signs to split")
    generator = torch.Generator().manual_seed(3)
    lines = torch.randint(256, (CASES, made.sweep.choices), generator=generator, dtype=torch.uint8)
    multipliers = torch.randn(len(made.signs.slot), generator=generator)
    multipliers[::5] = math.nan
    for pace in (Pace(1, 0.0), Pace(5, 2.0)):
        check(made, made.run(pace=pace, chosen=Chosen(lines, multipliers)))


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_optimisation_goes_on_where_it_ended(name: str) -> None:
    made = problem(GRAPHS[name])
    assert made is not None
    first = made.run(pace=Pace(30, 0.1))
    again, anew = made.run(pace=Pace(1, 0.0), chosen=first.chosen), made.run(pace=Pace(1, 0.0))
    gain = float((first.low - anew.low).mean())
    assert gain > 0 and float((again.low - anew.low).mean()) > 0.8 * gain
    check(made, again)


@pytest.mark.usefixtures("fast")
def test_without_rounds_there_is_no_room_for_slopes() -> None:
    with pytest.raises(ValueError, match="no room"):
        Pace(0)


@pytest.mark.usefixtures("fast")
def test_no_time() -> None:
    made = problem(GRAPHS["residual"])
    assert made is not None
    endless = torch.full((CASES,), math.inf, dtype=torch.float64)
    assert not made.sweep.run(made.row, made.signs, endless, Pace(4, seconds=0.0)).complete
