"""Verdicts: right against exact minima, closed at the boundary, and never made from what went wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partialmethod
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from graphs import Graph
from tests.verif.networks import mlp, pendulum
from verif import Verdict, verify
from verif.bab import Candidate, Progress, Search
from verif.clauses import TINY, ClauseTable
from verif.properties import linear, output_range, robustness
from verif.query import Clauses, Network, Property, compile_query

LOWER, UPPER = -torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)


def exact_minimum(graph: Graph, row: Tensor) -> tuple[float, Tensor]:
    """Minimum of row . output over [-1, 1]^4 and where it lies, by mixed-integer programming (HiGHS), for ReLU MLPs."""
    import cvxpy as cp

    x = cp.Variable(4)
    value, constraints = x, [x >= -1, x <= 1]
    for node in graph:
        if node.op == "linear":
            params = graph.params(node)
            value = params["weight"].numpy() @ value + params["bias"].numpy()
        elif node.op == "relu":
            out, on = cp.Variable(node.size), cp.Variable(node.size, boolean=True)
            big = 50.0
            constraints += [out >= 0, out >= value, out <= value + big * (1 - on), out <= big * on]
            value = out
    problem = cp.Problem(cp.Minimize(row.numpy() @ value), constraints)
    problem.solve(solver=cp.HIGHS)
    return float(problem.value), torch.tensor(x.value)


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_flip_at_the_exact_minimum(seed: int) -> None:
    graph = mlp(seed, (4, 8, 8, 2))
    row = torch.tensor([1.0, -0.5], dtype=torch.float64)
    least, _ = exact_minimum(graph, row)
    below = verify(graph, linear(graph, LOWER, UPPER, row, [least - 2e-3]), timeout=60)
    assert below.verdict is Verdict.HOLDS and below.lower_bound is not None
    assert 0 <= below.lower_bound < 2e-3 + 1e-4
    above = verify(graph, linear(graph, LOWER, UPPER, row, [least + 2e-3]), timeout=60)
    assert above.verdict is Verdict.VIOLATED and above.counterexample is not None
    point = above.counterexample.point
    assert float(row @ graph(point[None])[0][0]) <= least + 2e-3
    assert (point >= -1).all() and (point <= 1).all()


def test_a_boundary_that_is_only_touched_is_violated_unless_strict() -> None:
    graph = mlp(0, (4, 4))  # linear: its minimum is at a corner
    graph = replace(graph, constants={name: (value * 64).round() / 64 for name, value in graph.constants.items()})
    weight, bias = graph.constants.values()
    least = float(bias[0] - weight[0].abs().sum())  # exact: sums of a few 64ths
    touch = linear(graph, LOWER, UPPER, torch.eye(4)[:1], [least])
    assert verify(graph, touch, timeout=20).verdict is Verdict.VIOLATED
    strict = linear(graph, LOWER, UPPER, torch.eye(4)[:1], [least], strict=True)
    assert verify(graph, strict, timeout=5).verdict is not Verdict.VIOLATED


def test_a_graph_that_is_not_the_model_makes_no_verdict() -> None:
    graph = mlp(0, (4, 6, 2))
    property = output_range(graph, [-1.0] * 4, [1.0] * 4, low=-50.0)
    query = compile_query(property, graph)
    assert verify(None, query, timeout=10).verdict is Verdict.HOLDS
    other = {name: value * 1.1 for name, value in query.graph.constants.items()}
    result = verify(None, replace(query, graph=replace(query.graph, constants=other)), timeout=10)
    assert result.verdict is Verdict.UNKNOWN and "our reading of it" in result.reason


def test_a_model_that_cannot_be_run_is_unknown() -> None:
    """Its graph may be another network's; what the search found is no verdict, and no crash."""

    def broken(*arrays: Tensor) -> Tensor:
        raise ValueError("not today")

    graph = mlp(0, (4, 6, 2))
    network = Network("", graph, broken)
    result = verify(network, output_range(graph, [-1.0] * 4, [1.0] * 4, low=-50.0), timeout=10)
    assert result.verdict is Verdict.UNKNOWN and "cannot be run: not today" in result.reason


def test_a_strict_atom_is_refuted_by_an_exact_bound() -> None:
    from graphs import GraphBuilder

    builder = GraphBuilder()
    graph = builder.build([builder.add("relu", [builder.input("x", (2,))])])
    never_negative = output_range(graph, [-1.0, -1.0], [1.0, 1.0], low=0.0)
    assert verify(graph, never_negative, timeout=10).verdict is Verdict.HOLDS


def test_a_conjunction_is_refuted_when_one_of_its_atoms_is() -> None:
    graph = mlp(1, (4, 8, 2))
    row = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    least, _ = exact_minimum(graph, row[0])
    both = linear(graph, LOWER, UPPER, row, [least - 0.1, 1e3], together=True)
    assert verify(graph, both, timeout=20).verdict is Verdict.HOLDS
    either = linear(graph, LOWER, UPPER, row, [least - 0.1, 1e3])
    assert verify(graph, either, timeout=20).verdict is Verdict.VIOLATED


def test_factors_are_conjunctions_of_disjunctions() -> None:
    graph = mlp(1, (4, 8, 2))
    base = linear(graph, LOWER, UPPER, torch.eye(2), [0.0])
    first, _ = exact_minimum(graph, torch.tensor([1.0, 0.0], dtype=torch.float64))
    thresholds = torch.tensor([[first - 0.1], [first - 0.2], [1e3], [1e3]], dtype=torch.float64)
    clauses = Clauses(torch.tensor([[0], [0], [1], [0]]), thresholds, torch.zeros(4, 1, dtype=torch.bool))
    holds = replace(base, clauses=clauses, spans=torch.tensor([[[0, 2], [2, 4]]]))
    assert verify(graph, holds, timeout=20).verdict is Verdict.HOLDS
    violated = replace(base, clauses=clauses, spans=torch.tensor([[[1, 4], [2, 4]]]))
    assert verify(graph, violated, timeout=20).verdict is Verdict.VIOLATED


@pytest.mark.parametrize("strategy", ["boxes", "exact"])
def test_a_clause_has_no_more_atoms_than_its_own(strategy: str) -> None:
    """Whatever stands where it is padded."""
    graph = mlp(1, (4, 8, 2))
    base = linear(graph, LOWER, UPPER, torch.eye(2), [0.0])
    first, _ = exact_minimum(graph, torch.tensor([1.0, 0.0], dtype=torch.float64))
    atoms, none = torch.tensor([[0, -1], [0, 1]]), torch.zeros(2, 2, dtype=torch.bool)
    for limit, verdict in ((first + 0.05, Verdict.VIOLATED), (first - 0.05, Verdict.HOLDS)):
        thresholds = torch.tensor([[limit, first - 9.0], [first - 0.1, 1e3]], dtype=torch.float64)
        asked = replace(base, clauses=Clauses(atoms, thresholds, none), spans=torch.tensor([[[0, 2]]]))
        assert verify(graph, asked, timeout=20, strategy=strategy).verdict is verdict


def test_many_regions_are_one_batch_of_sub_problems() -> None:
    graph = mlp(2, (1, 6, 1))
    count = 50_000
    lower = torch.linspace(-1, 1, count, dtype=torch.float64)[:, None]
    upper = lower + 1e-5
    middle = graph(lower)[0]
    property = linear(graph, lower, upper, torch.tensor([[1.0], [-1.0]]), [0.0, 0.0])
    thresholds = torch.stack([middle - 0.01, -middle - 0.01], 1).reshape(-1, 1)
    atoms = torch.arange(2).repeat(count)[:, None]
    spans = (2 * torch.arange(count)[:, None, None]) + torch.tensor([0, 2])
    clauses = Clauses(atoms, thresholds, torch.zeros_like(atoms, dtype=torch.bool))
    result = verify(graph, replace(property, clauses=clauses, spans=spans), timeout=60)
    assert result.verdict is Verdict.HOLDS
    assert result.domains >= count
    thresholds[2 * 31_415] = middle[31_415] + 0.01
    result = verify(graph, replace(property, clauses=clauses, spans=spans), timeout=60)
    assert result.verdict is Verdict.VIOLATED


def test_dynamics_stay_in_a_set() -> None:
    graph = pendulum(3)
    small = [torch.tensor([-s, -s], dtype=torch.float64) for s in (0.1, 1.0)]
    inside = output_range(graph, small[0], -small[0], low=-1.0, high=1.0)
    assert verify(graph, inside, timeout=30).verdict is Verdict.HOLDS
    outside = output_range(graph, small[1], -small[1], low=-0.5, high=0.5)
    assert verify(graph, outside, timeout=30).verdict is Verdict.VIOLATED


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
def test_robustness_in_every_norm(norm: float) -> None:
    graph = mlp(0, (4, 16, 3))
    x = torch.tensor([0.3, -0.2, 0.8, 0.1], dtype=torch.float64)
    assert verify(graph, robustness(graph, x, 0.01, norm=norm), timeout=30).verdict is Verdict.HOLDS
    broken = verify(graph, robustness(graph, x, 20.0, norm=norm), timeout=30)
    assert broken.verdict is Verdict.VIOLATED and broken.counterexample is not None
    assert float(torch.linalg.vector_norm(broken.counterexample.point - x, norm)) <= 20.0 + 1e-6


def hard() -> tuple[Graph, Property]:
    graph = mlp(9, (12, 64, 64, 64, 2))
    lower = -torch.ones(12, dtype=torch.float64)
    return graph, linear(graph, lower, -lower, torch.eye(2)[:1], [-1e2])


def test_a_timeout_ends_with_what_is_known() -> None:
    graph, property = hard()
    least = linear(graph, property.lower[0], property.upper[0], torch.eye(2)[:1], [-8.0])
    result = verify(graph, least, timeout=0.5)
    assert result.verdict in (Verdict.TIMEOUT, Verdict.VIOLATED, Verdict.HOLDS)
    assert result.seconds < 5
    already = verify(graph, least, timeout=0.0)
    assert already.verdict in (Verdict.TIMEOUT, Verdict.VIOLATED)


def test_an_interruption_is_unknown_and_keeps_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = mlp(0, (4, 8, 8, 1))
    least, _ = exact_minimum(graph, torch.ones(1, dtype=torch.float64))

    def interrupt(event: Progress) -> None:
        raise KeyboardInterrupt

    property = linear(graph, LOWER, UPPER, torch.ones(1, 1), [least - 1e-3])
    result = verify(graph, property, on_event=interrupt)
    assert result.verdict is Verdict.UNKNOWN
    assert result.reason == "interrupted"
    assert result.domains > 0


def test_a_candidate_that_no_replay_confirms_is_not_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = mlp(0, (4, 8, 1))
    least, _ = exact_minimum(graph, torch.ones(1, dtype=torch.float64))
    property = linear(graph, LOWER, UPPER, torch.ones(1, 1), [least - 0.5])
    run = Search.run

    def lying(self: Search) -> Iterator[Progress | Candidate]:
        yield Candidate(torch.zeros(4), 0)
        yield from run(self)

    monkeypatch.setattr(Search, "run", lying)
    assert verify(graph, property, timeout=20).verdict is Verdict.HOLDS


def test_bounds_that_are_nan_or_infinite_never_make_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    from verif.bounds import Engine
    from verif.bounds.chains import ChainPass
    from verif.bounds.found import Pass

    graph = mlp(0, (4, 8, 1))
    property = linear(graph, LOWER, UPPER, torch.ones(1, 1), [-1e3])
    whole, chain = Engine.bound, ChainPass.bound

    def lost(found: Pass, bad: float) -> Pass:
        return replace(found, lower=torch.full_like(found.lower, bad), bias=torch.full_like(found.bias, bad))

    def by_chain(self: ChainPass, *args: Any, bad: float) -> tuple[Pass, torch.Tensor]:
        found, signs = chain(self, *args)
        return lost(found, bad), signs

    for bad in (math.nan, -math.inf):
        monkeypatch.setattr(Engine, "bound", lambda self, *args, bad=bad, **more: lost(whole(self, *args, **more), bad))
        monkeypatch.setattr(ChainPass, "bound", partialmethod(by_chain, bad=bad))
        assert verify(graph, property, timeout=1.0).verdict in (Verdict.TIMEOUT, Verdict.UNKNOWN)


def test_an_exception_is_not_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    from verif.bounds import Engine

    def broken(self: Engine, *args: object, **more: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Engine, "bound", broken)
    graph = mlp(0, (4, 8, 1))
    with pytest.raises(RuntimeError, match="broken"):
        verify(graph, linear(graph, LOWER, UPPER, torch.ones(1, 1), [-1e3]))


def test_no_region_holds_with_a_warning() -> None:
    graph = mlp(0, (4, 8, 1))
    empty = linear(graph, UPPER, LOWER, torch.ones(1, 1), [1e3])
    result = verify(graph, empty)
    assert result.verdict is Verdict.HOLDS
    assert result.warnings == ("1 of 1 input boxes are empty",)


def test_the_search_reports_progress() -> None:
    graph = mlp(9, (4, 8, 8, 1))
    least, _ = exact_minimum(graph, torch.ones(1, dtype=torch.float64))
    events: list[Progress] = []
    property = linear(graph, LOWER, UPPER, torch.ones(1, 1), [least - 1e-3])
    result = verify(graph, property, on_event=events.append, timeout=60)
    assert result.verdict is Verdict.HOLDS
    assert events[-1].open == 0
    assert events[-1].proved_share == pytest.approx(1.0, abs=1e-6)
    assert all(a.proved_share <= b.proved_share + 1e-9 for a, b in pairwise(events))
    assert events[-1].done == result.domains


def test_gaps_of_strict_atoms_and_padding() -> None:
    graph = mlp(0, (4, 2))
    base = linear(graph, LOWER, UPPER, torch.eye(2), [0.0, 1.0], together=True)
    clauses = replace(base.clauses, strict=torch.tensor([[True, False]]))
    table = ClauseTable.of(compile_query(replace(base, clauses=clauses), graph).property)
    values = torch.tensor([[0.0, 0.0], [-1.0, 1.0], [-1.0, 3.0], [math.nan, 0.5]], dtype=torch.float64)
    gaps, _ = table.gaps(values, torch.zeros(4, dtype=torch.int64))
    assert table.worst(gaps).tolist() == [TINY, 0.0, 2.0, -0.5]
