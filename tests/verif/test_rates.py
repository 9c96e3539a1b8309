"""Scripts about the search, benchmarks/{rates,ablation,forced}.py: their instances are there, counts are right."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

import verif
from benchmarks import ablation, forced, rates
from graphs import Graph
from relaxations.kernels.library import available
from relaxations.sets import Box
from tests.verif.networks import mlp
from verif.bab import Progress

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "vnncomp"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the instances are not here")
QUICK = [name for name in ablation.LEVERS if name != "split multipliers"]  # that one is compiled


def test_a_rate_is_between_the_first_and_the_last_report() -> None:
    meter = rates.Meter()
    assert meter.spans == (0, 0.0, 0.0)
    for done in (5, 20, 45):
        meter(Progress(1, done, -1.0, 0.0, 0.0, 0.0))
    done, wall, work = meter.spans
    assert done == 40 and wall > 0 and work >= 0


@shared
@pytest.mark.parametrize("case", rates.CASES, ids=lambda case: case.name)
def test_each_case_is_one_instance(case: rates.Case) -> None:
    assert (SHARED / case.network).is_file()
    assert len(list(SHARED.glob(case.property))) == 1


@shared
@pytest.mark.parametrize("instance", ablation.INSTANCES, ids="-".join)
def test_each_instance_of_the_ablation_has_an_answer(instance: tuple[str, str, str]) -> None:
    family, network, name = instance
    assert f"onnx/{network}.onnx,vnnlib/{name}.vnnlib," in (SHARED / family / "expected.csv").read_text()


def test_without_levers_verdicts_stay_right() -> None:
    folder = ROOT / "cases" / "collision"
    with ExitStack() as levers:
        for name in QUICK:
            levers.enter_context(ablation.LEVERS[name]())
        held = verif.verify(folder / "model.onnx", folder / "head_on_is_never_clear.vnnlib")
    assert held.verdict.name == "HOLDS"


@pytest.mark.skipif(not available(torch.float64), reason="the native library is not built")
def test_slopes_are_pinned_and_bounds_hold() -> None:
    graph: Graph = mlp(3, (20, 12, 12, 5))
    box = Box(torch.zeros(1, 20).double(), torch.ones(1, 20).double())
    free = verif.bounds.Engine(graph).bound(box, rounds=verif.bounds.Rounds(5, 20)).lower
    with ablation.LEVERS["optimised slopes"]():
        fixed = verif.bounds.Engine(graph).bound(box, rounds=verif.bounds.Rounds(5, 20)).lower
    assert bool((fixed < free).any())
    assert bool((fixed <= graph(box.sample(100)[0])[0].amin(0) + 1e-9).all())


def test_the_table_counts_what_is_open_with_the_limit() -> None:
    row = ablation.Row("clipping", "acasxu", "net", "prop", "HOLDS", False, 2.0, 7)
    late = ablation.Row("clipping", "acasxu", "net", "prop_2", "TIMEOUT", False, 21.0, 3)
    assert ablation.table([row, late], 20.0).splitlines()[-1] == "| clipping | 1/2 | 0 | 22.0 | 10 | acasxu prop_2 |"


@shared
def test_of_each_family_instances_with_counterexamples_come_first() -> None:
    taken = list(forced.chosen(SHARED, 3))
    assert len({i.family for i in taken}) > 15
    assert [i.expected for i in taken if i.family == "acasxu"] == ["sat", "sat", "unsat"]


@shared
@pytest.mark.parametrize("strategy", ["boxes", "signs"])
def test_a_search_by_force_says_nothing_wrong(strategy: str) -> None:
    instance = next(i for i in forced.chosen(SHARED, 1) if i.family == "test")
    row = forced.solve(instance, strategy, 60.0)
    assert row.expected == "sat" and not row.wrong


def test_what_contradicts_an_answer_is_wrong() -> None:
    for verdict, wrong in (("HOLDS", True), ("VIOLATED", False), ("TIMEOUT", False)):
        row = forced.Row("signs", "test", "net", "prop", "sat", verdict, 1, 0.1, "signs")
        assert row.wrong is wrong
        assert forced.table([row]).endswith(f" {int(wrong)} | 1 |")
