"""Worker processes on this machine."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from verif.batch.questions import Question
from verif.batch.slots import Answer, Slot


class Local:
    """Threads that each wait for a supervised worker process; the processors are shared among them.

    `devices` are given out in turn, one to a worker, as CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, jobs: int, devices: Sequence[str] = ()) -> None:
        threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        self._slots = [
            Slot(threads, {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} if devices else {})
            for place in range(jobs)
        ]
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)
        self._pool = ThreadPoolExecutor(jobs)

    def room(self) -> int:
        """One instance for each process."""
        return len(self._slots)

    def submit(self, key: str, question: Question, hints: Sequence[tuple[float, ...]]) -> Future[Answer]:
        """Ask the next process that is free."""
        return self._pool.submit(self._ask, question, hints)

    def _ask(self, question: Question, hints: Sequence[tuple[float, ...]]) -> Answer:
        slot = self._free.get()
        try:
            return slot.answer(question, hints)
        finally:
            self._free.put(slot)

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        for slot in self._slots:
            slot.close()
        self._pool.shutdown(cancel_futures=True)
