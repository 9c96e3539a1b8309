"""Exact programs: they are the network, bounds hold whatever a solver says, the tree decides up to the boundary."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from graphs.ops import OPS, Kind
from relaxations.sets import Box
from tests.laws.checks import ROWS
from tests.laws.table import Row
from tests.verif.networks import mlp, residual
from tests.verif.programs import exact
from tests.verif.test_verify import exact_minimum
from tests.verif.tools_exact import decide
from verif import Verdict, verify
from verif.bounds import Engine, crown, optimised
from verif.bounds.engine import OutOfTime
from verif.clauses import ClauseTable
from verif.exact import ExactSearch, harm, known, minimum, program, supported, tighten, worthwhile
from verif.exact.duals import Multipliers, Node, Objective, bound
from verif.exact.forms import Forms
from verif.exact.front import Linear, Solution
from verif.exact.kinks import KINKS
from verif.exact.matrices import expand
from verif.properties import linear

AFFINE = [row for row in ROWS if OPS[row.op].kind is Kind.AFFINE]
BENT = [row for row in ROWS if row.op in KINKS]


def alone(row: Row) -> Graph:
    """A graph that is one node, its inputs cut from one flat input."""
    builder = GraphBuilder()
    sizes = [torch.Size(entry.shape).numel() for entry in row.inputs]
    x, start, inputs = builder.input("x", (sum(sizes),)), 0, []
    for entry, size in zip(row.inputs, sizes, strict=True):
        part = builder.add("slice", [x], attrs={"axis": 0, "start": start, "stop": start + size})
        inputs.append(builder.add("reshape", [part], attrs={"shape": entry.shape}))
        start += size
    out = builder.add(row.op, inputs, row.params, row.attrs)
    return builder.build([builder.add("reshape", [out], attrs={"shape": (builder.nodes[out].size,)})])


def box(lower: Tensor, upper: Tensor) -> Box:
    return Box(lower.double()[None], upper.double()[None])


def cube(n: int, radius: float = 1.0) -> Box:
    return box(torch.full((n,), -radius), torch.full((n,), radius))


@pytest.mark.parametrize("row", AFFINE, ids=str)
def test_matrices_are_the_op(row: Row) -> None:
    call = row.call()
    found = expand(call, [entry.shape for entry in row.inputs])
    assert found is not None
    matrices, offset = found
    torch.manual_seed(0)
    inputs = [torch.randn(1, *entry.shape, dtype=torch.float64) for entry in row.inputs]
    value = sum(m @ x.flatten().numpy() for m, x in zip(matrices, inputs, strict=True)) + offset
    assert value == pytest.approx(call.forward(*inputs).flatten().numpy(), abs=1e-12)


@pytest.mark.parametrize("row", BENT, ids=str)
@pytest.mark.parametrize("radius", [0.0, 0.5, 4.0])
def test_programs_are_the_op(row: Row, radius: float) -> None:
    graph = alone(row)
    check(graph, box(*(torch.linspace(-1, 1, graph["x"].size) + end for end in (-radius, radius))))


@pytest.mark.parametrize("seed", range(3))
def test_programs_are_the_network(seed: int) -> None:
    check(mlp(seed, (4, 12, 12, 3)), cube(4))
    check(residual(seed), cube(64, 0.3))


def check(graph: Graph, region: Box) -> None:
    """Every point of the box satisfies the program, and its outputs are the graph's."""
    made = program(graph, Engine(graph).bound(region).intervals)
    assert made is not None
    triangles = made.triangles()
    for x in region.sample(20)[0]:
        v = made.values(x.numpy())
        outputs = made.outputs.rows @ v + made.outputs.offset
        assert outputs == pytest.approx(graph(x[None])[0][0].numpy(), abs=1e-12)
        assert (v >= made.lower).all() and (v <= made.upper).all()
        assert (triangles.rows @ v <= triangles.at + 1e-12).all()
        assert made.equal @ v == pytest.approx(made.equal_at, abs=1e-12)
        exact = Node.root(made, triangles).with_signs(made, np.where(v[made.before] > 0, 1, -1).astype(np.int8))
        assert (v >= exact.lower).all() and (v <= exact.upper).all()
        assert (triangles.rows @ v <= exact.at + 1e-12).all()


def test_other_ops_are_refused() -> None:
    graph = mlp(0, (4, 8, 1), act="tanh")
    found = Engine(graph).bound(cube(4))
    assert not supported(graph) and program(graph, found.intervals) is None and not worthwhile(graph, found)
    assert minimum(graph, cube(4), torch.ones(1)) is None


@pytest.mark.parametrize("seed", range(20))
def test_any_multipliers_are_sound(seed: int) -> None:
    graph, random = mlp(seed, (4, 8, 8, 2)), np.random.default_rng(seed)
    made = program(graph, Engine(graph).bound(cube(4)).intervals)
    assert made is not None
    triangles = made.triangles()
    objective = Objective(made.outputs.rows, made.outputs.offset, made.outputs.size)
    points = [made.values(x.numpy()) for x in cube(4).sample(300)[0]]
    for _ in range(20):
        x = points[random.integers(len(points))]
        sign = np.where(random.random(len(made.before)) < 0.3, np.sign(x[made.before]), 0).astype(np.int8)
        node = Node.root(made, triangles).with_signs(made, sign)
        inside = [v for v in points if (np.sign(v[made.before]) * sign >= 0).all()]
        sizes = 2, len(made.equal_at), len(triangles.at)
        y = Multipliers(*(random.standard_normal(size) for size in sizes))
        least = min(float(y.objective @ (objective.rows @ v + objective.offset)) for v in inside)
        assert bound(made, triangles, node, objective, y) <= least


def test_bounds_count_what_they_round() -> None:
    """Sums of some numbers at one point: half of them would be above what they are."""
    ends, none, above = torch.linspace(-1, 1, 40), np.zeros(0), 0
    for seed in range(20):
        graph = mlp(seed, (40, 1))
        made = program(graph, Engine(graph).bound(box(ends, ends)).intervals)
        assert made is not None
        objective = Objective(made.outputs.rows, made.outputs.offset, made.outputs.size)
        root, y = Node.root(made, made.triangles()), Multipliers(np.full(1, 1 / 3), none, none)
        (value,) = exact(graph, [Fraction(x) for x in ends.tolist()])
        assert Fraction(bound(made, made.triangles(), root, objective, y)) <= Fraction(1 / 3) * value
        above += Fraction(float((objective.rows @ made.lower + objective.offset)[0])) > value
    assert above > 0  # or the test tests nothing


def test_bounds_of_nan_are_none() -> None:
    graph = mlp(0, (4, 8, 8, 2))
    made = program(graph, Engine(graph).bound(cube(4)).intervals)
    assert made is not None
    triangles = made.triangles()
    objective = Objective(made.outputs.rows, made.outputs.offset, made.outputs.size)
    for bad in (math.nan, math.inf):
        y = Multipliers(np.full(2, bad), np.zeros(len(made.equal_at)), np.zeros(len(triangles.at)))
        assert bound(made, triangles, Node.root(made, triangles), objective, y) == -math.inf


@pytest.mark.parametrize("seed", range(4))
def test_the_oracle_agrees_with_another_formulation(seed: int) -> None:
    graph, row = mlp(seed, (4, 8, 8, 2)), torch.tensor([1.0, -0.5], dtype=torch.float64)
    found = minimum(graph, cube(4), row)
    assert found is not None
    value, point = found
    assert value == pytest.approx(exact_minimum(graph, row)[0], abs=1e-6)
    assert float(row @ graph(point[None])[0][0]) == pytest.approx(value, abs=1e-12)
    assert cube(4).contains(point[None, None]).all()


@pytest.mark.parametrize("act", ["relu", "abs"])
@pytest.mark.parametrize("seed", range(50))
def test_bounds_lie_below_the_oracle_and_verdicts_flip_there(seed: int, act: str) -> None:
    graph, region = mlp(seed, (3, 5, 5, 1), act), cube(3)
    found = minimum(graph, region, torch.ones(1))
    assert found is not None
    least, _ = found
    tolerance = 1e-6 * (1 + abs(least))
    assert float(crown(graph, region)) <= least + tolerance
    assert float(optimised(graph, region)) <= least + tolerance
    assert least <= float(graph(region.sample(500)[0])[0].min()) + tolerance
    for distance, verdict in ((-1e-3, Verdict.HOLDS), (1e-3, Verdict.VIOLATED)):
        unsafe = linear(graph, region.lower[0], region.upper[0], [[1.0]], [least + distance])
        assert decide(graph, unsafe).verdict is verdict
        assert verify(graph, unsafe, timeout=0.5).verdict in (verdict, Verdict.TIMEOUT)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("distance", [1e-2, 1e-8])
def test_the_tree_decides_next_to_the_boundary(seed: int, distance: float) -> None:
    graph, row = mlp(seed, (4, 8, 8, 2)), torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    found = minimum(graph, cube(4), row[0])
    assert found is not None
    # At this distance float32 decides nothing: the network's own evaluation in float64 takes the place of the replay.
    below = linear(graph, cube(4).lower[0], cube(4).upper[0], row, [found[0] - distance])
    assert decide(graph, below, noise=0.0).verdict is Verdict.HOLDS
    above = decide(graph, linear(graph, cube(4).lower[0], cube(4).upper[0], row, [found[0] + distance]), noise=0.0)
    assert above.verdict is Verdict.VIOLATED
    assert above.point is not None and float(row[0] @ graph(above.point[None])[0][0]) <= found[0] + distance


def test_the_tree_allows_for_the_noise_of_the_network() -> None:
    graph = mlp(1, (4, 8, 2))
    least = minimum(graph, cube(4), torch.tensor([1.0, 0.0]))
    assert least is not None
    for noise, verdict in ((0.05, Verdict.HOLDS), (0.2, Verdict.UNKNOWN)):
        unsafe = linear(graph, cube(4).lower[0], cube(4).upper[0], [[1.0, 0.0]], [least[0] - 0.1])
        assert decide(graph, unsafe, noise=noise).verdict is verdict


def test_conjunctions_are_refuted_together() -> None:
    graph = mlp(1, (4, 8, 2))
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    between = linear(graph, cube(4).lower[0], cube(4).upper[0], rows, [0.5, -0.6], together=True)
    assert decide(graph, between).verdict is Verdict.HOLDS  # y <= .5 and y >= .6
    thin = linear(graph, cube(4).lower[0], cube(4).upper[0], rows, [0.601, -0.6], together=True)
    assert decide(graph, thin).verdict is Verdict.VIOLATED


@pytest.mark.parametrize("kind", ["random", "none", "zero"])
def test_a_lying_solver_proves_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)

    def lie(self: Linear, at: np.ndarray, lower: np.ndarray, *rest: object) -> Solution | None:
        if kind == "none":
            return None
        scale = 1.0 if kind == "random" else 0.0
        equal = scale * random.standard_normal(0 if self.equal is None else self.equal.shape[0])
        return Solution(scale * random.standard_normal(len(lower)), equal, scale * random.standard_normal(len(at)))

    graph = mlp(0, (3, 4, 1))
    least = float(graph(cube(3).sample(200)[0])[0].min())
    monkeypatch.setattr(Linear, "solve", lie)
    unsafe = linear(graph, cube(3).lower[0], cube(3).upper[0], [[1.0]], [least])
    assert decide(graph, unsafe, timeout=2).verdict is not Verdict.HOLDS


def test_no_time_is_no_verdict() -> None:
    graph = mlp(0, (4, 8, 8, 1))
    unsafe = linear(graph, cube(4).lower[0], cube(4).upper[0], [[1.0]], [-100.0])
    assert decide(graph, unsafe, timeout=0.0).verdict is Verdict.TIMEOUT


def test_the_time_may_be_over_while_a_program_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual(0)
    found = Engine(graph).bound(cube(64, 0.3))
    with pytest.raises(OutOfTime):
        program(graph, found.intervals, deadline=time.monotonic() - 1)
    monkeypatch.setattr("verif.exact.search.program", lambda *args: program(*args[:2], deadline=0.0))
    unsafe = linear(graph, cube(64, 0.3).lower[0], cube(64, 0.3).upper[0], [[1.0, 0.0, 0.0]], [0.0])
    assert decide(graph, unsafe).verdict is Verdict.TIMEOUT


def test_what_no_program_is_made_of_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = mlp(0, (4, 8, 8, 1))
    monkeypatch.setattr("verif.exact.search.program", lambda *_: None)
    unsafe = linear(graph, cube(4).lower[0], cube(4).upper[0], [[1.0]], [0.0])
    assert decide(graph, unsafe).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("seed", range(3))
def test_tightened_intervals_hold_and_are_tighter(seed: int) -> None:
    graph, region = mlp(seed, (4, 10, 10, 10, 1)), cube(4)
    found = Engine(graph).bound(region)
    made = program(graph, found.intervals)
    assert made is not None
    objective = Objective(made.outputs.rows, made.outputs.offset, made.outputs.size)
    costs = harm(Forms(made, made.triangles(), objective), math.inf)
    assert costs is not None and costs.min() >= 0 and costs.max() > 0
    tight = tighten(made, np.arange(len(made.before)), math.inf)
    width = (made.upper - made.lower)[made.before], (tight.upper - tight.lower)[made.before]
    assert (width[1] <= width[0]).all() and width[1].sum() < 0.99 * width[0].sum()
    for x in region.sample(300)[0]:
        v = tight.values(x.numpy())
        assert (v >= tight.lower).all() and (v <= tight.upper).all()
    again = Engine(graph).bound(region, within=known(tight, found))
    assert float(again.lower) > float(found.lower)
    assert float(again.lower) <= float(graph(region.sample(300)[0])[0].min())
    late = tighten(made, np.arange(len(made.before)), time.monotonic() - 1)
    assert (late.lower == made.lower).all() and (late.upper == made.upper).all()


def test_signs_that_tightening_decides_refute_no_point() -> None:
    builder = GraphBuilder()
    value = builder.input("x", (1,))
    for weight, bias in ([[[1.0], [-1.0], [1.0]], [0.0, 0.0, 2.0]], [[[1.0, 1.0, -0.5]], [1.125]]):
        params = {"weight": torch.tensor(weight).double(), "bias": torch.tensor(bias).double()}
        value = builder.add("relu", [builder.add("linear", [value], params)])
    graph = builder.build([value])  # |x| - x / 2 + 1 / 8, which a pass does not know to be positive
    made = program(graph, Engine(graph).bound(cube(1)).intervals)
    assert made is not None and made.lower[made.before[-1]] < 0
    tight = tighten(made, np.arange(len(made.before)), math.inf)
    assert 0.0 < tight.lower[tight.before[-1]] <= 0.125
    triangles, count = tight.triangles(), len(tight.before)
    for x in np.linspace(-1.0, 1.0, 21):
        assert (triangles.rows @ tight.values(np.array([x])) <= triangles.at + 1e-12).all()
    held = np.zeros(3 * count)
    held[[count - 1, 3 * count - 1]] = 1.0  # z <= h and h <= z - l say together that l <= 0
    nothing = Multipliers(np.zeros(1), np.zeros(len(tight.equal_at)), held)
    objective = Objective(tight.outputs.rows, tight.outputs.offset, tight.outputs.size)
    assert bound(tight, triangles, Node.root(tight, triangles), objective, nothing) <= 0


def test_a_search_counts_what_is_left() -> None:
    graph = mlp(0, (4, 8, 8, 1))
    unsafe = linear(graph, cube(4).lower[0], cube(4).upper[0], [[1.0]], [-100.0])
    search = ExactSearch(
        Engine(graph), ClauseTable.of(unsafe), cube(4), torch.zeros(1).long(), torch.zeros(1), time.monotonic() + 20
    )
    assert search.left == 1
    assert list(search.run()) == []
    assert (search.left, search.done, search.unresolved) == (0, 1, 0)


def test_the_exact_search_takes_turns_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the minimum boxes would be cut for long; linear programs decide it, above and below."""
    monkeypatch.setattr("verif.alongside.AFTER", 0.0)
    graph, region = mlp(3, (6, 7, 7, 1)), cube(6)
    found = minimum(graph, region, torch.ones(1, dtype=torch.float64))
    assert found is not None
    for offset, verdict in ((-1e-5, Verdict.HOLDS), (1e-5, Verdict.VIOLATED)):
        unsafe = linear(graph, region.lower[0], region.upper[0], [[1.0]], [found[0] + offset])
        result = verify(graph, unsafe, timeout=60)
        assert result.verdict is verdict
        if verdict is Verdict.HOLDS:
            assert "exact:" in result.strategy


def test_what_a_solver_cannot_tell_is_no_solution() -> None:
    """cvxpy raises a ValueError for a status that it does not know."""
    sparse = pytest.importorskip("scipy.sparse")
    none = sparse.csr_array((0, 1))
    form = Linear(np.ones(1), none, np.zeros(0), sparse.csr_array(np.ones((1, 1))))
    with mock.patch.object(form.problem, "solve", mock.Mock(side_effect=ValueError)):
        assert form.solve(np.ones(1), np.zeros(1), np.ones(1)) is None
