"""Splitting what has no answer: what its parts say, what is kept of them, and what is not asked again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest

from cli.main import run
from verif.batch.answer import Answerer
from verif.batch.questions import Question, Settings
from verif.batch.runner import Batch
from verif.batch.slots import Answer
from verif.batch.splitting import Splitting, combined
from verif.batch.store import Outcome, Store

CASES = Path(__file__).resolve().parents[2] / "cases"


@dataclass
class Here:
    """Decides in this process, for as long as it may."""

    most: int = 1000
    asked: list[Question] = field(default_factory=list)
    answerer: Answerer = field(default_factory=Answerer)

    def room(self) -> int:
        return 1

    def submit(self, key: str, question: Question, hints: Sequence[tuple[float, ...]]) -> Future[Answer]:
        if len(self.asked) == self.most:
            raise KeyboardInterrupt
        self.asked.append(question)
        found: Future[Answer] = Future()
        found.set_result(self.answerer.answer(question, hints))
        return found


def question(name: str, property: str) -> Question:
    folder = CASES / name
    return Question("c", "t", (("", folder / "model.onnx"),), folder / f"{property}.vnnlib", 20.0, Settings())


def split(path: Path, asked: Question, halvings: int, workers: Here) -> Outcome | None:
    """What a run makes of an instance that came to no answer before."""
    with Store(path, write=True) as store:
        number = store.begin([asked.entry()], "", ({}, {}))
        if next(store.rows()).outcome is None:
            store.claim(asked.key(), number)
            store.record(asked.key(), Outcome("timeout", timeout=20.0))
        try:
            Splitting(Batch(store, number), halvings).run([asked], workers, lambda *_: None)
        finally:
            store.end(number)
            outcome = next(store.rows()).outcome
    return outcome


@pytest.mark.parametrize(
    ("name", "property", "verdict"),
    [
        ("digits", "image0_eps0.04", "holds"),
        ("digits", "image3_eps0.06", "holds"),
        ("collision", "head_on_is_never_clear", "holds"),
        ("digits", "image4_eps0.2", "violated"),
    ],
)
def test_parts_decide_the_whole(name: str, property: str, verdict: str, tmp_path: Path) -> None:
    workers, asked = Here(), question(name, property)
    outcome = split(tmp_path / "r.db", asked, 2, workers)
    assert outcome is not None and outcome.verdict == verdict, outcome
    parts = [one for one in workers.asked if one.part is not None]
    assert len(parts) == (4 if verdict == "holds" else 1) and len(workers.asked) == len(parts) + 1
    assert (outcome.counterexample is not None) == (verdict == "violated")
    again = Here()
    assert split(tmp_path / "r.db", asked, 2, again) == outcome and not again.asked
    with Store(tmp_path / "r.db") as store:
        assert len(list(store.rows())) == 1  # parts are no instances of the list


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    asked = question("collision", "head_on_is_never_clear")
    with pytest.raises(KeyboardInterrupt):
        split(tmp_path / "r.db", asked, 2, Here(most=3))
    workers = Here()
    outcome = split(tmp_path / "r.db", asked, 2, workers)
    assert outcome is not None and outcome.verdict == "holds" and len(workers.asked) == 2


def test_halvings_of_another_version_are_made_anew(tmp_path: Path) -> None:
    """Its names of values might be those of others."""
    asked = question("collision", "head_on_is_never_clear")
    with pytest.raises(KeyboardInterrupt), mock.patch("verif.parts.__version__", "0"):
        split(tmp_path / "r.db", asked, 2, Here(most=3))
    workers = Here()
    outcome = split(tmp_path / "r.db", asked, 2, workers)
    assert outcome is not None and outcome.verdict == "holds" and len(workers.asked) == 5


@dataclass
class Slow(Here):
    """Has no time for one part, whose own parts it decides."""

    def submit(self, key: str, question: Question, hints: Sequence[tuple[float, ...]]) -> Future[Answer]:
        found = super().submit(key, question, hints)
        if question.part is not None and not question.halvings and str(question.part) == ", part 3 of 4":
            found = Future()
            found.set_result((Outcome("timeout", timeout=20.0), None))
        return found


@pytest.mark.parametrize(
    ("name", "property", "verdict"),
    [("collision", "head_on_is_never_clear", "holds"), ("digits", "image3_eps0.06", "holds")],
)
def test_a_part_is_split_again(name: str, property: str, verdict: str, tmp_path: Path) -> None:
    workers, asked = Slow(), question(name, property)
    outcome = split(tmp_path / "r.db", asked, 2, workers)
    assert outcome is not None and outcome.verdict == verdict, outcome
    made = {one.part.splits: one.part for one in workers.asked if one.part is not None}
    assert [one.halvings for one in workers.asked] == [2, 0, 0, 0, 0, 2, 0, 0, 0, 0]
    assert sorted(len(splits) for splits in made) == [2, 4] and all(
        part.number % 4 == 2 for part in made.values() if len(part.splits) > 2
    )
    again = Slow()
    assert split(tmp_path / "r.db", asked, 2, again) == outcome and not again.asked


HELD, LATE, BROKEN = Outcome("holds"), Outcome("timeout", reason="late"), Outcome("violated", counterexample=b"x")


@pytest.mark.parametrize(
    ("found", "verdict", "reason"),
    [
        ([HELD, HELD], "holds", ""),
        ([HELD, LATE], "timeout", "1 of 2 parts hold; another: late"),
        ([LATE, BROKEN], "violated", ""),
        ([BROKEN], "violated", ""),
        ([HELD], "timeout", None),
        ([HELD, Outcome("error", "killed")], "timeout", "1 of 2 parts hold; another: killed"),
    ],
)
def test_what_parts_say(found: list[Outcome], verdict: str, reason: str | None) -> None:
    whole = combined(Outcome("timeout"), dict(enumerate(found)), 2)
    assert whole.verdict == verdict and reason in (None, whole.reason)


@pytest.mark.parametrize("number", ["0", "3", "2048"])
def test_usage(number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["batch", str(tmp_path / "i.csv"), "--split", number]) == 2
    assert "error[C103]" in capsys.readouterr().err
