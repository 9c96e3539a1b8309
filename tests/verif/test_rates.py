"""benchmarks/rates.py and benchmarks/ablation.py: their instances are there, what they count is what the search did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import verif
from benchmarks import ablation, rates
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


@pytest.mark.parametrize("lever", QUICK)
def test_without_a_lever_verdicts_stay_right(lever: str) -> None:
    folder = ROOT / "cases" / "collision"
    with ablation.LEVERS[lever]():
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
