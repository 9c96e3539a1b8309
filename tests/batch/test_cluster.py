"""A cluster of three worker processes: what is decided there is what is decided here, whoever dies in the meantime."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.main import run
from tests.batch.test_batch import ROOT, instances, verdicts
from verif.batch import cluster
from verif.batch.questions import Question, Settings

pytest.importorskip("distributed")
Process = subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(*words: str) -> Process:
    line = [sys.executable, "-W", "ignore", "-m", "distributed.cli." + words[0], *words[1:], "--no-dashboard"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Machines:
    """A scheduler and its workers on the loopback; each may be killed and started again."""

    def __init__(self, count: int) -> None:
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self._scheduler()
        self.workers = [self._worker() for _ in range(count)]

    def _scheduler(self) -> Process:
        return start("dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def _worker(self) -> Process:
        return start("dask_worker", self.address, "--nthreads", "1", "--no-nanny", "--death-timeout", "60")

    def lose_worker(self) -> None:
        self.workers[0].kill()
        self.workers[0].wait()
        self.workers[0] = self._worker()

    def restart(self) -> None:
        """The scheduler is killed and started again; its workers end with it, as ever since 2022, and others come."""
        self.scheduler.kill()
        self.scheduler.wait()
        self.scheduler = self._scheduler()
        for worker in self.workers:
            worker.wait(60)
        self.workers = [self._worker() for _ in self.workers]

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@contextmanager
def batch(folder: Path, count: int, workers: int) -> Iterator[tuple[Machines, subprocess.Popen[str]]]:
    """`verify batch` on a cluster, in a process of its own."""
    listed, code = instances(folder, count), "from cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    machines = Machines(workers)
    line = [sys.executable, "-W", "ignore", "-c", code, "batch", str(listed), "--results", str(folder / "r.db")]
    line += ["--cluster", machines.address]
    try:
        with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as process:
            yield machines, process
            assert process.wait() == 1
    finally:
        machines.close()
    assert verdicts(folder / "r.db") == ["violated" if place % 2 else "holds" for place in range(count)]


def test_a_cluster_decides(tmp_path: Path) -> None:
    with batch(tmp_path, 2, 1) as (_, process):
        assert process.stdout is not None
        *told, counts = process.stdout.read().splitlines()
        assert sorted(line.split()[0] for line in told) == ["HOLDS", "VIOLATED"] and counts == "1 holds, 1 violated"


@pytest.mark.long
def test_a_worker_is_killed_and_the_scheduler_restarted(tmp_path: Path) -> None:
    lines = []
    with batch(tmp_path, 300, 3) as (machines, process):
        assert process.stdout is not None
        for text in process.stdout:
            lines.append(text.strip())
            if len(lines) == 20:
                machines.lose_worker()
            elif len(lines) == 100:
                machines.restart()
    assert lines[-1] == "150 holds, 150 violated" and len(lines) == 301


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A worker whose disk has another model under the same path decides nothing."""
    asked = Question("c", "t", (("", tmp_path / "m.onnx"),), tmp_path / "p.vnnlib", 1.0, Settings())
    key = asked.key()
    (tmp_path / "m.onnx").write_text("another")
    outcome, point = cluster.decide(key, asked, ())
    assert (outcome.verdict, outcome.reason, point) == ("error", cluster.OTHER, None)


def test_what_is_no_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["batch", str(instances(tmp_path)), "--results", str(tmp_path / "r.db"), "--cluster", "nonsense://x"]
    assert run(command) == 2 and "error[B202]: no scheduler answers at nonsense://x" in capsys.readouterr().err
    assert run([*command, "--jobs", "2"]) == 2 and "error[C104]" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(command) == 2 and "error[B201]" in capsys.readouterr().err
