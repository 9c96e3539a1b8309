"""What a command imports: nothing heavy that it does not need. (Times are in benchmarks, not in tests.)"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = "cases/collision/model.onnx"
HOLDS = (MODEL, "cases/collision/head_on_is_never_clear.vnnlib")
VIOLATED = (MODEL, "cases/collision/dead_ahead_never_left.vnnlib")
# `onnx` is the package (0.2 s); models are read with its generated messages alone.
HEAVY = frozenset({"cvxpy", "networkx", "onnx", "onnxruntime", "rich", "scipy", "sympy", "torch._dynamo", "torch.onnx"})
CODE = """
import json, sys
from cli.main import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]))
"""


def after(*arguments: str) -> tuple[int, frozenset[str]]:
    """The exit code of a command in a process of its own, and the modules that it has loaded."""
    line = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(line, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stdout.splitlines()[-1])
    return code, frozenset(modules)


def test_version_needs_nothing() -> None:
    code, modules = after("--version")
    assert code == 0 and not modules & ({"torch", "numpy", "cyclopts"} | HEAVY)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--bogus",), (MODEL, "no_such_file.vnnlib"), ("supports", "--help")]
)
def test_without_a_model_there_is_no_torch(arguments: tuple[str, ...]) -> None:
    _, modules = after(*arguments)
    assert not modules & ({"torch", "numpy"} | HEAVY - {"rich"})  # help and usage errors are set by rich


@pytest.mark.parametrize(("arguments", "expected"), [(HOLDS, 0), (VIOLATED, 1)])
def test_a_verdict_needs_the_runtime_alone(arguments: tuple[str, ...], expected: int) -> None:
    """It replays the counterexample, or looks at whether the graph that was bounded is the model."""
    code, modules = after(*arguments)
    assert code == expected and "torch" in modules
    assert modules & HEAVY == {"onnxruntime"}


SUMS = """
import sys, torch
from graphs import GraphBuilder
from relaxations.sets import Box
from verif.bounds import Engine
builder = GraphBuilder()
sums = builder.add("cumsum", [builder.input("x", (9,))], attrs={"axis": 0})
graph = builder.build([builder.add("tanh", [builder.add("scale", [sums], {"factor": torch.tensor(-1.0)})])])
Engine(graph).bound(Box(torch.zeros(1, 9), torch.ones(1, 9)))
print("torch._dynamo" in sys.modules)
"""


def test_transposes_that_are_not_written_by_hand_need_no_compiler() -> None:
    line = [sys.executable, "-c", SUMS]
    done = subprocess.run(line, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


LATER = """
import sys
from verif.later import postpone
postpone()
import torch
from verif import compile
assert torch.rand(3, generator=torch.Generator().manual_seed(0)).shape == (3,)
assert "torch._decomp" not in sys.modules and "torch.export" in sys.modules
module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.GELU())
compiled = compile(module, torch.zeros(1, 2))
assert "torch._decomp" in sys.modules and torch.export.Dim is not None
assert torch.empty(2, 3, device="meta").cumsum(0).shape == (2, 3)
print(compiled.graph()(torch.zeros(1, 2))[0].shape)
"""


def test_the_command_itself_leaves_them_out() -> None:
    """`main` ends the process, so that what it printed is all there is; `-v` tells what was imported."""
    code = "import sys; sys.argv[0] = 'verify'; from cli.main import main; main()"
    line = [sys.executable, "-v", "-c", code, *HOLDS]
    done = subprocess.run(line, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("HOLDS") and "import 'torch.functional'" in done.stderr
    assert "import 'torch._decomp'" not in done.stderr


def test_so_does_a_worker() -> None:
    code = """
import socket
from multiprocessing.connection import Connection
from verif.batch.worker import serve
own, other = socket.socketpair()
other.shutdown(socket.SHUT_WR)
serve(Connection(own.detach()), 1)
"""
    line = [sys.executable, "-v", "-c", code]
    done = subprocess.run(line, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert "import 'torch.functional'" in done.stderr and "import 'torch._decomp'" not in done.stderr


def test_what_torch_traces_modules_with_is_loaded_when_it_is_needed() -> None:
    line = [sys.executable, "-c", LATER]
    done = subprocess.run(line, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch.Size([1, 3])"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_a_longer_run_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.options import Options
    from cli.progress import watching
    from verif.bab import Progress

    def event(seconds: float) -> Progress:
        return Progress(open=5, done=3, worst=-0.25, proved_share=0.5, boxes_per_second=30.0, seconds=seconds)

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with watching(Options(), "title") as watch:
        assert watch is not None
        watch(event(0.1))
        assert terminal.getvalue() == ""
        watch(event(1.0))
        watch(event(2.0))
    assert "worst bound -0.25" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K"), "the line is wiped at the end"
