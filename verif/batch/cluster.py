"""Workers of a Dask cluster: each of their threads supervises a worker process, as on one machine.

Workers read the files themselves, at the same absolute paths, and check that the contents are those that were asked
about. A worker that dies loses what it was at: the scheduler gives that to another one. When the scheduler dies,
everything that was with it is asked again as soon as one answers at its address.
"""

from __future__ import annotations

import importlib
import queue
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from graphs.errors import VerifError
from verif.batch.questions import Question
from verif.batch.slots import Answer, Slot
from verif.batch.store import Outcome
from verif.verdict import Verdict

AHEAD = 2  # instances for each thread of a worker, so that none waits for the next
PATIENCE = 600.0  # seconds without a scheduler after which the run ends
OTHER = "the worker reads other files at these paths than the ones asked about"

_free: queue.SimpleQueue[Slot] = queue.SimpleQueue()  # of the worker that this process is


class ClusterError(VerifError):
    """The cluster cannot be used (codes B2..)."""


class Cluster:
    """The workers of the scheduler at an address such as tcp://host:8786."""

    def __init__(self, address: str, patience: float = PATIENCE) -> None:
        try:
            self._distributed: Any = importlib.import_module("distributed")
        except ImportError:
            raise ClusterError(
                "B201", "a cluster needs the package distributed", help="pip install distributed"
            ) from None
        self._address, self._patience = address, patience
        self._client: Any = self._connect(30.0)
        self._asked: set[Future[Answer]] = set()

    def room(self) -> int:
        """Some instances for each thread of each worker that is there now."""
        if self._lost():
            self._again()
        try:
            return max(1, AHEAD * int(sum(self._client.nthreads().values())))
        except (OSError, RuntimeError):  # the scheduler is gone; the client tries to find it again, or gives up
            return 1

    def submit(self, key: str, question: Question, hints: Sequence[tuple[float, ...]]) -> Future[Answer]:
        """Ask whichever worker is free."""
        asked: Future[Answer] = Future()
        try:
            lent = self._client.submit(decide, key, question.absolute(), hints, pure=False)
        except (self._distributed.client.ClosedClientError, RuntimeError):
            self._again()
            lent = self._client.submit(decide, key, question.absolute(), hints, pure=False)
        self._asked.add(asked)
        lent.add_done_callback(lambda done: self._hand_over(done, asked))
        return asked

    def _lost(self) -> bool:
        """Whether the client has given up, or the scheduler said that it ends, which a client takes for its own end."""
        comm = self._client.scheduler_comm
        silent = comm is None or comm.comm.closed()
        return self._client.status in ("closing", "closed") or (self._client.status == "running" and silent)

    def _again(self) -> None:
        """Wait for a scheduler; what was with the last one is lost."""
        self._client.close(timeout=2)
        for asked in self._asked:
            _cancel(asked)
        self._asked.clear()
        self._client = self._connect(self._patience)

    def _hand_over(self, lent: Any, asked: Future[Answer]) -> None:
        """What became of a future of the cluster, in one of the standard library."""
        self._asked.discard(asked)
        try:
            if lent.status == "error":
                reason = f"the workers that decided it were lost, one after the other: {lent.exception(60)}"
                answer: Answer | None = Outcome(Verdict.ERROR.label, reason), None
            else:
                answer = lent.result(60) if lent.status == "finished" else None
        except Exception:  # it was lost on the way here
            answer = None
        if answer is None:
            _cancel(asked)
        elif asked.set_running_or_notify_cancel():
            asked.set_result(answer)

    def _connect(self, patience: float) -> Any:
        deadline = time.monotonic() + patience
        while True:
            try:
                return self._distributed.Client(self._address, timeout=5, set_as_default=False)
            except (OSError, ValueError) as error:
                if time.monotonic() > deadline or isinstance(error, ValueError):
                    raise ClusterError("B202", f"no scheduler answers at {self._address}", notes=[str(error)]) from None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close(timeout=2)


def decide(key: str, question: Question, hints: Sequence[tuple[float, ...]]) -> Answer:
    """What a thread of a worker does: the same as a thread here, once the files are seen to be the same."""
    if question.key() != key:
        return Outcome(Verdict.ERROR.label, OTHER, timeout=question.timeout), None
    try:
        slot = _free.get_nowait()
    except queue.Empty:
        slot = Slot()
    try:
        return slot.answer(question, hints)
    finally:
        _free.put(slot)


def _cancel(asked: Future[Answer]) -> None:
    if asked.cancel():
        asked.set_running_or_notify_cancel()
