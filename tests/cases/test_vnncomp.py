"""The benchmark script on instances made from a case: it counts, finds what is wrong, and goes on where it stopped."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import replay

ROOT = Path(__file__).resolve().parents[2]
CASE = ROOT / "cases" / "collision"
ROWS = [  # property, what the folder claims
    ("behind_is_clear.vnnlib", "unsat"),
    ("head_on_is_strong_right.vnnlib", "sat"),
    ("dead_ahead_never_left.vnnlib", "unsat"),  # a label that is wrong on purpose
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    family = tmp_path / "family"
    family.mkdir()
    for path in CASE.glob("*.*"):
        (family / path.name).symlink_to(path)
    (family / "instances.csv").write_text("".join(f"model.onnx,{name},60\n" for name, _ in ROWS))
    labels = "".join(f"model.onnx,{name},{label}\n" for name, label in ROWS)
    (family / "expected.csv").write_text(f"onnx,vnnlib,expected\n{labels}")
    return family


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, ROOT / "benchmarks" / "vnncomp.py", "--starts", "0", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)


def test_counts_and_resumes(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "out.csv"
    first = run(folder, "--csv", store, "--only", "*behind*")
    assert first.returncode == 0, first.stderr
    assert "[  1/1]" in first.stdout and "unsat   solved" in first.stdout
    rest = run(folder, "--csv", store, "--timeout", "30")
    assert rest.returncode == 1, rest.stderr  # the wrong label is reported as wrong
    assert "behind" not in rest.stdout and "[  3/3]" in rest.stdout
    counts = next(line for line in rest.stdout.splitlines() if line.startswith("family  ") and "3" in line)
    assert counts.split()[1:5] == ["3", "2", "1", "0"]
    assert len(store.read_text().splitlines()) == 4


def test_nothing_to_run_is_said(folder: Path) -> None:
    result = run(folder, "--only", "nothing")
    assert result.returncode == 2 and "no instance matches 'nothing'" in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(<= X_0 1.0)", 0.0),
        ("(<= X_0 0.25)", 0.25),
        ("(< X_0 0.5)", replay.TINY),
        ("(not (< X_0 0.5))", 0.0),
        ("(not (and (<= X_0 1) (>= X_1 0)))", 0.0),
        ("(or (and (<= X_0 0.25) (>= X_1 0)) (> X_1 X_0))", 1.0),
        ("(== (+ X_0 (* 2 X_1) -1.0) 0.0)", 2.5),
        ("(!= (- X_0 X_1) 1.5)", replay.TINY),
        ("(!= (- X_0) -0.5)", replay.TINY),
    ],
)
def test_slack(text: str, expected: float) -> None:
    values = {"X_0": 0.5, "X_1": -1.0}
    assert math.isclose(replay.slack(replay.parse(text)[0], values), expected, abs_tol=0 if expected < 1e-9 else 1e-12)


def test_point_of_a_counterexample_file() -> None:
    assert replay.read_point("sat\n((X_1 2.5)\n(X_0 -1e-3)\n(Y_0 7))").tolist() == [-0.001, 2.5]
