"""Running a batch: claim, decide, record, until nothing is open. Only this process writes the store."""

from __future__ import annotations

import os
import platform
import queue
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from verif.batch.questions import Question
from verif.batch.slots import Answer, Slot
from verif.batch.store import Outcome, Store
from verif.verdict import Verdict

HINTS = 8  # counterexamples of one model that are tried on its other instances
CHANGED = "its files changed while it was decided: run the batch again"

Decide = Callable[[Question, Sequence[tuple[float, ...]]], Answer]
Told = Callable[[Question, Outcome], None]


@dataclass
class Batch:
    """One run over questions. `ahead` are asked for at once; `again` decides errors once more."""

    store: Store
    run: int
    ahead: int = 1
    again: bool = False
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

    def decide(self, todo: Sequence[tuple[str, Question]], pool: ThreadPoolExecutor, ask: Decide, told: Told) -> None:
        """Decide instances with `ask` in the pool's threads, and record each as it comes."""
        waiting, running = deque(todo), dict[Future[Answer], tuple[str, Question]]()
        while waiting or running:
            while waiting and len(running) < self.ahead:
                key, question = waiting.popleft()
                if self.store.claim(key, self.run, again=self.again):
                    hints = tuple(self._hints.get(_models(question), ()))
                    running[pool.submit(ask, question, hints)] = key, question
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                key, question = running.pop(future)
                told(question, self._keep(key, question, *future.result()))

    def _keep(self, key: str, question: Question, outcome: Outcome, point: tuple[float, ...] | None) -> Outcome:
        """Record an outcome, unless the files are no longer those of the key."""
        if question.key() != key:
            outcome, point = Outcome(Verdict.ERROR.label, CHANGED, timeout=question.timeout), None
        if point is not None:
            self._hints.setdefault(_models(question), deque(maxlen=HINTS)).appendleft(point)
        self.store.record(key, outcome)
        return outcome


@contextmanager
def slots(jobs: int, devices: Sequence[str] = ()) -> Iterator[tuple[ThreadPoolExecutor, Decide]]:
    """Threads that each wait for a supervised worker process; the processors are shared among them.

    `devices` are given out in turn, one to a worker, as CUDA_VISIBLE_DEVICES.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
    every = [
        Slot(threads, {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} if devices else {})
        for place in range(jobs)
    ]
    for slot in every:
        free.put(slot)

    def ask(question: Question, hints: Sequence[tuple[float, ...]]) -> Answer:
        slot = free.get()
        try:
            return slot.answer(question, hints)
        finally:
            free.put(slot)

    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool, ask
    finally:
        for slot in every:
            slot.close()
        pool.shutdown(cancel_futures=True)


def facts() -> tuple[dict[str, Any], dict[str, str]]:
    """The environment and the versions, for the store."""
    machine = {"system": platform.platform(), "processor": platform.machine(), "processors": os.cpu_count()}
    names = ("verif-nn", "torch", "onnxruntime", "onnx", "numpy")
    return {**machine, "python": sys.version.split()[0]}, {name: version(name) for name in names}


def _models(question: Question) -> str:
    return str(question.models)
