"""Slots: a supervised worker process each. What kills the worker is the instance's result; the slot starts another."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from verif.batch.questions import Question
from verif.batch.store import Outcome
from verif.verdict import Verdict

GRACE = 5.0  # seconds beyond its own at which an instance's process is killed
START = 120.0  # seconds that a worker may take to import the engine
POLL = 0.05  # seconds between two looks at the memory
RECYCLE = 2 * 10**9  # bytes above which a worker is not used again

Answer = tuple[Outcome, tuple[float, ...] | None]


class Died(Exception):
    """The worker is gone; the text says how."""


@dataclass
class Slot:
    """Decides one instance at a time in a process of its own, with limits enforced from here.

    `threads` for torch; `environment` is added to the worker's (CUDA_VISIBLE_DEVICES gives it a device of its own).
    """

    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _connection: Connection | None = None
    _errors: IO[bytes] | None = None

    def answer(self, question: Question, hints: Sequence[tuple[float, ...]] = ()) -> Answer:
        """The outcome, whatever happens to the worker."""
        started = time.monotonic()
        try:
            connection = self._ready()
            started = time.monotonic()
            connection.send((question, hints))
            answer: Answer = self._wait(connection, question.timeout + GRACE, question.settings.memory)
        except (Died, EOFError, OSError) as error:
            reason = str(error) if isinstance(error, Died) else self._end_of_worker()
            self.close()
            spent = time.monotonic() - started
            return Outcome(Verdict.ERROR.label, reason, seconds=spent, timeout=question.timeout), None
        if self._resident() > RECYCLE:
            self.close()
        return answer

    def close(self) -> None:
        """End the worker; the next instance starts another."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._errors is not None:
            self._errors.close()
        self._process = self._connection = self._errors = None

    def _ready(self) -> Connection:
        if self._connection is not None and self._process is not None and self._process.poll() is None:
            return self._connection
        self.close()
        own, other = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the worker)
        line = [sys.executable, "-m", "verif.batch.worker", str(other.fileno()), str(self.threads)]
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        count = {"OMP_NUM_THREADS": str(self.threads), "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
        environment = {"GOMP_SPINCOUNT": "1000", **os.environ, **count, **self.environment}
        with other:
            self._process = subprocess.Popen(
                line,
                pass_fds=[other.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
            )
        self._connection = Connection(own.detach())
        self._wait(self._connection, START, None)
        return self._connection

    def _wait(self, connection: Connection, seconds: float, memory: int | None) -> Any:
        deadline = time.monotonic() + seconds
        while not connection.poll(POLL):
            if time.monotonic() > deadline:
                raise Died(f"killed: it did not stop within {seconds:g} s")
            if memory is not None and self._resident() > memory:
                raise Died(f"killed: it took more than {memory / 1e6:.0f} MB of memory")
        return connection.recv()

    def _resident(self) -> int:
        """Bytes that the worker holds; 0 where the system does not say."""
        try:
            assert self._process is not None
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _end_of_worker(self) -> str:
        """How the worker ended, and the last line that it wrote."""
        if self._process is None or self._errors is None:
            return "the worker could not be started"
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "the worker closed its connection"
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        hint = ": killed from outside, as a system does that is out of memory" if code == -signal.SIGKILL else ""
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return f"the worker ended with {how}{hint}{''.join(f' ({line})' for line in last)}"
