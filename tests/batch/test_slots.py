"""Slots: what hangs, grows or dies is that instance's result, and the next one is decided."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import VIOLATED, model, property_text
from verif.batch import slots
from verif.batch.questions import Question, Settings
from verif.batch.slots import Slot


@pytest.fixture(scope="module")
def slot() -> Iterator[Slot]:
    found = Slot()
    yield found
    found.close()


def question(folder: Path, name: str = "p.vnnlib", memory: int | None = None) -> Question:
    """A query that is violated; a property that is a pipe is never read to its end."""
    model(folder / "model.onnx")
    if name == "p.vnnlib":
        (folder / name).write_text(property_text(VIOLATED))
    elif not (folder / name).exists():
        os.mkfifo(folder / name)
    return Question("c", "t", (("", folder / "model.onnx"),), folder / name, 0.5, Settings(memory=memory))


def test_decides(slot: Slot, tmp_path: Path) -> None:
    first, point = slot.answer(question(tmp_path))
    assert first.verdict == "violated" and first.start_seconds > 0 and first.peak_bytes > 10**8 and point is not None
    assert first.counterexample is not None and first.inputs
    second, again = slot.answer(question(tmp_path), [point])
    assert (second.verdict, second.start_seconds, again) == ("violated", 0.0, point)
    assert second.strategy == "none: a sibling's point"


def test_a_changed_model_is_loaded_again(slot: Slot, tmp_path: Path) -> None:
    """A worker of a cluster outlives the runs that it decides for."""
    asked = replace(question(tmp_path), timeout=60.0)
    asked.property.write_text(property_text("(assert (>= Y_0 2.5))"))
    assert slot.answer(asked)[0].verdict == "holds"
    model(tmp_path / "model.onnx", bias=1.0)
    assert slot.answer(asked)[0].verdict == "violated"


def test_a_hint_is_replayed_not_believed(slot: Slot, tmp_path: Path) -> None:
    asked = question(tmp_path)
    asked.property.write_text(property_text("(assert (>= Y_0 2.5))"))
    found = slot.answer(asked, [(1.0, 1.0), (9.0, 9.0), (0.0,)])[0]
    assert found.verdict == "holds" and round(dict(found.widths)["product"], 6) == 2


def test_what_hangs_is_killed(slot: Slot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as impatient:
        impatient.setattr(slots, "GRACE", 0.2)
        outcome, _ = slot.answer(question(tmp_path, "pipe.vnnlib"))
    assert (outcome.verdict, outcome.reason) == ("error", "killed: it did not stop within 0.7 s")
    assert slot.answer(replace(question(tmp_path), timeout=60.0))[0].verdict == "violated"


def test_what_grows_is_killed(slot: Slot, tmp_path: Path) -> None:
    outcome, _ = slot.answer(question(tmp_path, "pipe.vnnlib", memory=1000_000))
    assert (outcome.verdict, outcome.reason) == ("error", "killed: it took more than 1 MB of memory")


def test_a_death_is_told(slot: Slot, tmp_path: Path) -> None:
    def kill() -> None:
        while slot._process is None:
            time.sleep(0.01)
        os.kill(slot._process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    outcome, _ = slot.answer(question(tmp_path, "pipe.vnnlib"))
    thread.join()
    assert outcome.verdict == "error" and outcome.reason.startswith("the worker ended with signal SIGKILL")
