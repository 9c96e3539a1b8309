"""The competition's scripts: the words and counterexamples they write, and what they do where something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import run
from verif.counterexample import parse_competition

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "vnncomp"


@pytest.fixture
def verify(small: Path) -> Path:
    """The command, whatever environment runs the tests."""
    command = small / "verify"
    code = "import sys; from cli.main import main; main()"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    command.chmod(0o755)
    return command


def script(name: str, *arguments: str, verify: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VERIFY": str(verify), "PYTHONPATH": str(SCRIPTS.parent)}
    return subprocess.run(
        ["bash", str(SCRIPTS / name), *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_run(small: Path, verify: Path) -> None:
    def word(model: str, spec: str, seconds: str = "60") -> list[str]:
        done = script("run_instance.sh", "v1", "small", model, spec, "out.txt", seconds, verify=verify)
        assert done.returncode == 0, done.stderr
        return (small / "out.txt").read_text().splitlines()

    assert word("model.onnx", "holds.vnnlib") == ["unsat"]
    first, *rest = word("model.onnx", "violated.vnnlib")
    values = parse_competition("\n".join(rest))
    assert first == "sat" and values["Y"][0] >= 1.5 and values["X"].sum() == pytest.approx(values["Y"][0])
    (small / "cex.txt").write_text("\n".join(rest))
    assert run(["replay", "model.onnx", "violated.vnnlib", "cex.txt"]) == 1
    assert word("model.onnx", "none.vnnlib") == ["error"]
    assert word("model.onnx", "holds.vnnlib", "0.01") == ["timeout"]
    assert not list(small.glob("out.txt.*"))


def test_prepare_and_versions(small: Path) -> None:
    assert script("prepare_instance.sh", "v1", "small", "model.onnx", "holds.vnnlib").returncode == 0
    missing = script("prepare_instance.sh", "v1", "small", "model.onnx", "none.vnnlib")
    assert missing.returncode == 1 and "cannot read none.vnnlib" in missing.stderr
    for name in ("install_tool.sh", "prepare_instance.sh", "run_instance.sh"):
        assert os.access(SCRIPTS / name, os.X_OK)
        done = script(name, "v9")
        assert done.returncode == 1 and "expected the version v1" in done.stderr
