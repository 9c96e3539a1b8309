"""A worker: a process that has imported the engine once and decides the instances it is sent, one after the other.

`python -m verif.batch.worker FD THREADS`: FD is one end of a socket pair. It ends when the other end is
closed, which the death of whoever started it does too.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from verif.later import postpone


def serve(connection: Connection, threads: int) -> None:
    """Answer until the other end is gone."""
    started = time.monotonic()
    postpone()
    gc.disable()
    import torch

    from verif.batch.answer import Answerer

    gc.freeze()
    gc.enable()
    torch.set_num_threads(threads)
    answerer, start = Answerer(), time.monotonic() - started
    connection.send(os.getpid())
    while True:
        try:
            question, hints = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        _reset_peak()
        outcome, point = answerer.answer(question, hints)
        connection.send((replace(outcome, start_seconds=start, peak_bytes=peak()), point))
        start = 0.0


def peak() -> int:
    """Largest resident memory of this process since the last reset, in bytes; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # the peak is then that of the process
        return


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, also in the middle of a search."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
