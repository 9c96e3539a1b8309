"""Running a batch: claim, decide, record, until nothing is open. Only this process writes the store."""

from __future__ import annotations

import os
import platform
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, Protocol

from verif.batch.learning import Learner
from verif.batch.questions import Question
from verif.batch.slots import Answer
from verif.batch.store import Outcome, Store
from verif.verdict import Verdict

LOOK = 1.0  # seconds after which to look again whether workers came or went
HINTS = 8  # counterexamples of one model that are tried on its other instances
CHANGED = "its files changed while it was decided: run the batch again"

Told = Callable[[Question, Outcome], None]
Claimed = Callable[[str], bool]
Answered = tuple[str, Question, Answer]


class Workers(Protocol):
    """Who decides: processes here (`verif.batch.local`) or those of a cluster (`verif.batch.cluster`)."""

    def room(self) -> int:
        """How many instances may be with them at once."""

    def submit(self, key: str, question: Question, hints: Sequence[tuple[float, ...]]) -> Future[Answer]:
        """Ask; the future is cancelled where the workers are lost with it, and the instance is then asked again."""


@dataclass
class Batch:
    """One run over questions; `again` decides errors once more, `learner` chooses what each search begins with."""

    store: Store
    run: int
    again: bool = False
    learner: Learner | None = None
    over: set[str] = field(default_factory=set)
    _hints: dict[str, deque[tuple[float, ...]]] = field(default_factory=dict)

    def open(self, questions: Sequence[Question]) -> list[tuple[str, Question]]:
        """What is not decided yet, each content once, cheap ones first."""
        done = {row.entry.key: row.outcome for row in self.store.rows(self.run)}
        found = {}
        for question in questions:
            key = question.key()
            outcome = done[key]
            if outcome is None or (self.again and outcome.verdict == Verdict.ERROR.label):
                found[key] = question
        return sorted(found.items(), key=lambda item: item[1].weight())

    def decide(self, todo: Sequence[tuple[str, Question]], workers: Workers, told: Told) -> None:
        """Decide instances and record each as it comes."""
        for key, question, (outcome, point) in self.answers(todo, workers, self._claimed):
            told(question, self._keep(key, question, outcome, point))

    def answers(self, todo: Sequence[tuple[str, Question]], workers: Workers, claimed: Claimed) -> Iterator[Answered]:
        """Ask and yield each answer as it comes; what the workers are lost with is asked again. Of a question in `over`
        no further part is asked, and none is waited for.
        """
        waiting, running = deque(todo), dict[Future[Answer], tuple[str, Question]]()
        held: set[str] = set()
        while waiting or not all(question.whole() in self.over for _, question in running.values()):
            while waiting and len(running) < workers.room():
                key, question = waiting.popleft()
                if question.whole() not in self.over and (key in held or claimed(key)):
                    held.add(key)
                    hints = tuple(self._hints.get(_models(question), ()))
                    running[workers.submit(key, self._begun(question), hints)] = key, question
            for future in wait(running, LOOK, FIRST_COMPLETED).done if running else ():
                key, question = running.pop(future)
                if future.cancelled():
                    waiting.appendleft((key, question))
                else:
                    held.remove(key)
                    yield key, question, future.result()

    def _claimed(self, key: str) -> bool:
        return self.store.claim(key, self.run, again=self.again)

    def _keep(self, key: str, question: Question, outcome: Outcome, point: tuple[float, ...] | None) -> Outcome:
        """Record an outcome, unless the files are no longer those of the key."""
        if question.key() != key:
            outcome, point = Outcome(Verdict.ERROR.label, CHANGED, timeout=question.timeout), None
        if point is not None:
            self._hints.setdefault(_models(question), deque(maxlen=HINTS)).appendleft(point)
        self.store.record(key, outcome)
        if self.learner is not None:
            self.learner.learn(question.entry(), outcome)
        return outcome

    def _begun(self, question: Question) -> Question:
        """The question with the tactic that is to begin."""
        if self.learner is None:
            return question
        return replace(question, tactic=self.learner.choose(question, question.entry()))


def facts() -> tuple[dict[str, Any], dict[str, str]]:
    """The environment and the versions, for the store."""
    machine = {"system": platform.platform(), "processor": platform.machine(), "processors": os.cpu_count()}
    names = ("verif-nn", "torch", "onnxruntime", "onnx", "numpy")
    return {**machine, "python": sys.version.split()[0]}, {name: version(name) for name in names}


def _models(question: Question) -> str:
    return str(question.models)
