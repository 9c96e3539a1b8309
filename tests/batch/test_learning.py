"""Which tactic instances begin with: learned from costs, repeatable, and of no effect on verdicts."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from cli.main import run
from tests.batch.test_batch import instances
from verif.batch.learning import OWN, Learner
from verif.batch.questions import Question, Settings
from verif.batch.store import Outcome, Store
from verif.tactics import TACTICS, USUAL, in_force
from verif.verify import verify

CASES = Path(__file__).resolve().parents[2] / "cases" / "digits"


def question(folder: Path, place: int, model: str = "a") -> Question:
    path = folder / f"{model}.onnx"
    path.write_text(model)
    return Question("c", "", (("", path),), folder / f"{place}", 9.0, Settings(seed=place))


def chosen(folder: Path, learner: Learner, seconds: dict[str, float], count: int) -> Counter[str]:
    """The tactics of instances that cost about so much each."""
    found: Counter[str] = Counter()
    chance = random.Random(0)
    for place in range(count):
        asked = question(folder, place)
        tactic = learner.choose(asked, asked.entry())
        found[tactic] += 1
        cost = seconds.get(tactic, 1.0) * math.exp(chance.gauss(0, 0.5))
        learner.learn(asked.entry(), Outcome("holds", search_seconds=cost, tactic=tactic))
    return found


@pytest.mark.parametrize("better", TACTICS)
def test_what_is_faster_is_chosen(better: str, tmp_path: Path) -> None:
    found = chosen(tmp_path, Learner(), {better: 0.5}, 300)
    assert found[better] > 200 and sum(found.values()) == 300


def test_choices_are_repeatable(tmp_path: Path) -> None:
    once, again, other = (chosen(tmp_path, Learner(seed), {"points": 0.8}, 60) for seed in (0, 0, 1))
    assert once == again != other


def test_a_model_counts_by_itself_once_it_is_known(tmp_path: Path) -> None:
    learner = Learner()
    for place in range(40 * OWN):  # where nobody says otherwise, bounds are best in this category
        tactic = tuple(TACTICS)[place % len(TACTICS)]
        seconds = 0.1 if tactic == "bounds" else 1.0
        learner.learn(question(tmp_path, place, "b").entry(), Outcome("holds", search_seconds=seconds, tactic=tactic))
    new = question(tmp_path, 0)
    assert learner.choose(new, new.entry()) == "bounds"
    for _ in range(40 * OWN):
        learner.learn(new.entry(), Outcome("holds", search_seconds=9.0, tactic="bounds"))
        learner.learn(new.entry(), Outcome("holds", search_seconds=0.1, tactic="slopes"))
    assert learner.choose(new, new.entry()) == "slopes"


@pytest.mark.parametrize(
    "outcome", [Outcome("error", search_seconds=9.0, tactic="points"), Outcome("violated", tactic="points")]
)
def test_what_needed_no_search_says_nothing(outcome: Outcome, tmp_path: Path) -> None:
    learner, asked = Learner(), question(tmp_path, 0)
    learner.learn(asked.entry(), outcome)
    assert learner == Learner()


def test_a_tactic_gives_way() -> None:
    assert in_force("slopes", 0.0, math.inf) is TACTICS[USUAL]  # began long ago
    assert in_force("slopes", math.inf, math.inf) is TACTICS["slopes"]


@pytest.mark.parametrize("tactic", TACTICS)
@pytest.mark.parametrize(("name", "expected"), [("image0_eps0.04", "holds"), ("image4_eps0.2", "violated")])
def test_no_verdict_depends_on_it(tactic: str, name: str, expected: str) -> None:
    from verif.strategy import Strategy

    found = verify(CASES / "model.onnx", CASES / f"{name}.vnnlib", timeout=20, strategy=Strategy(tactic=tactic))
    assert found.verdict.label == expected
    assert found.strategy.endswith(f"; tactic {tactic}") == (tactic != USUAL)


def test_it_can_be_switched_off_and_goes_on_from_the_store(tmp_path: Path) -> None:
    listed = instances(tmp_path, 6)
    for flag in ("--learn", "--no-learn"):
        assert run(["batch", str(listed), "--results", str(tmp_path / f"{flag}.db"), "--quiet", flag]) == 1
        with Store(tmp_path / f"{flag}.db") as store:
            tactics = {row.outcome.tactic for row in store.rows() if row.outcome} - {None}
            learner = Learner.of(0, store.decided())
            assert tactics <= set(TACTICS) and (flag == "--learn" or tactics == {USUAL})
            assert sum(tally.count for found in learner._costs.values() for tally in found.values()) > 1
