"""A whole search never leaves a known violation out, and says HOLDS where it comes to an end and none is there.

Networks are small and the searches' constants extreme, so that each mechanism is come to within a few steps; every row
says which ones it reaches, so that the law cannot become empty. `tests/adversarial/searches.py` draws more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from relaxations.kernels.library import available
from tests.adversarial.searches import NETWORKS, SETTINGS, Trial, question, wrong
from verif import Verdict

pytestmark = pytest.mark.skipif(not available(torch.float64), reason="the native library is not built")


@dataclass(frozen=True)
class Row:
    """A question with violations of `share` of the spread of values, how it is asked, and what the search comes to."""

    network: str
    form: str
    trial: Trial
    reached: tuple[str, ...]
    share: float = 0.05
    seed: int = 1
    radius: float = 0.3

    def __str__(self) -> str:
        return f"{self.network}, {self.form}, {self.trial.strategy}, {', '.join(self.reached)}"


def asked(strategy: str = "signs", settings: str = "usual", steps: int = 25, **more: object) -> Trial:
    return Trial(strategy, SETTINGS[settings], steps=steps, **more)


ROWS = [
    Row("wide", "any", asked(), ("several rows", "refuted")),
    Row("wide", "one", asked(settings="small batches"), ("refuted",), seed=2),
    Row("maps", "any", asked(settings="small batches", rough=True), ("float64 has doubts",)),
    Row("dense", "one", asked("auto", "one round"), ("refuted",)),
    Row("maps", "one", asked(settings="one round", steps=60), ("stuck",), seed=2),
    Row("windows", "one", asked("auto", "full store", 40), ("store is full", "last rounds"), seed=2),
    Row("windows", "any", asked("random", "small batches", 40), ("signs at random",)),
    Row("wide", "any", asked("signs", steps=8, halvings=2), ("below signs", "signs of parts")),
    Row("maps", "one", asked("signs", "tight", steps=8, halvings=1), ("signs of parts", "tightened", "front")),
    Row("wide", "one", asked("signs", "tight", steps=8, halvings=1), ("signs of parts", "tightened", "front")),
    Row("maps", "one", asked(settings="tight", steps=18), ("tightened", "begun again", "front"), seed=2),
    Row("windows", "any", asked(settings="tight", rough=True, steps=18), ("tightened", "begun again", "front")),
    Row("windows", "one", asked(settings="tight, in slices", steps=12), ("tightened", "front", "goes on"), seed=3),
    Row("dense", "one", asked(settings="tight, in slices", steps=24), ("tightened", "front", "goes on")),
    Row("dense", "one", asked(settings="tight, in vain", steps=18), ("tightened", "front"), seed=2),
    Row("maps", "any", asked(settings="small batches", steps=4), ("hulls",), 0.002, 2, 0.1),
    Row("few", "all", asked("auto", "few boxes", 40), ("smallest first", "clipped away", "rows combined"), 0.002, 2),
    Row("few", "all", asked("boxes", rough=True), ("denied", "clipped away", "signs inherited"), 0.002, 2),
    Row("few", "any", asked("random", halvings=2), ("boxes", "signs inherited"), 0.002, 2),
    Row("few", "regions", asked("boxes"), ("boxes", "clipped"), 0.002),
    Row("dense", "any", asked("boxes", rough=True, steps=6, arithmetic="float32"), ("boxes", "denied"), radius=0.05),
    Row("tanh", "one", asked("values", steps=3), ("halves",), 0.002),
    Row("choices", "one", asked("auto", steps=4), ("comparisons",), 0.002, 2),
    Row("products", "all", asked("values", "full store", 12), ("empty halves",), 0.002, 2),
    Row("maxima", "any", asked("random", "full store", 8, rough=True), ("values at random",), 0.002),
    Row("small", "any", asked("exact", rough=True), ("exact signs",), 0.002, 2),
    Row("small", "regions", asked("exact"), ("exact",), 0.002, 2),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_no_known_violation_is_left_out(row: Row) -> None:
    question_ = question(NETWORKS[row.network](row.seed), row.form, row.share, row.seed, row.radius)
    met = set()
    for found, watch in row.trial.answers(question_):
        assert not wrong(question_, found, watch)
        assert watch.looks > 0
        met |= {what for what, count in watch.met.items() if count}
    assert met >= set(row.reached)


SHORT = [
    ("small", "one", "small batches", "signs", range(2, 22, 3)),
    ("dense", "any", "small batches", "random", range(4, 14, 3)),
    ("windows", "any", "one round", "signs", (25, 32)),
    ("windows", "one", "tight", "signs", (9, 14, 20, 29)),
    ("few", "all", "usual", "boxes", (6, 12)),
    ("maxima", "any", "usual", "values", (3, 8)),
    ("small", "any", "usual", "exact", range(2, 14, 2)),
]


@pytest.mark.parametrize(("network", "form", "settings", "strategy", "places"), SHORT)
def test_what_there_is_no_time_for_is_open(
    network: str, form: str, settings: str, strategy: str, places: Sequence[int]
) -> None:
    """The time is over at one call for bounds or another."""
    question_, looks = question(NETWORKS[network](2), form, 0.05, 2), 0
    for calls in places:
        ((found, watch),) = asked(strategy, settings, 10**9, calls=calls, seconds=2.0).answers(question_)
        assert not wrong(question_, found, watch)
        looks += watch.looks
    assert looks > 0


HOLDING = [
    Row("dense", "one", asked(settings="small batches"), ("refuted",)),
    Row("windows", "any", asked("auto", "small batches"), ("signs",), seed=2),
    Row("dense", "one", asked("auto", "tight"), ("tightened", "begun again")),
    Row("few", "any", asked("auto"), ("signs inherited",), seed=2),
    Row("products", "one", asked("auto"), ("halves",)),
]


@pytest.mark.parametrize("row", HOLDING, ids=str)
def test_what_holds_is_found_to_hold(row: Row) -> None:
    question_ = question(NETWORKS[row.network](row.seed), row.form, -0.3, row.seed)
    ((found, watch),) = row.trial.answers(question_)
    assert not wrong(question_, found, watch)
    assert found.verdict is Verdict.HOLDS
    assert {what for what, count in watch.met.items() if count} >= set(row.reached)
