"""benchmarks/rates.py: its instances are there, and what it counts is what the search did."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import rates
from verif.bab import Progress

SHARED = Path(__file__).resolve().parents[3] / "shared" / "vnncomp"


def test_a_rate_is_between_the_first_and_the_last_report() -> None:
    meter = rates.Meter()
    assert meter.spans == (0, 0.0, 0.0)
    for done in (5, 20, 45):
        meter(Progress(1, done, -1.0, 0.0, 0.0, 0.0))
    done, wall, work = meter.spans
    assert done == 40 and wall > 0 and work >= 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="the instances are not here")
@pytest.mark.parametrize("case", rates.CASES, ids=lambda case: case.name)
def test_each_case_is_one_instance(case: rates.Case) -> None:
    assert (SHARED / case.network).is_file()
    assert len(list(SHARED.glob(case.property))) == 1
