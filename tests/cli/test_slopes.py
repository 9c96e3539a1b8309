"""Lipschitz constants from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cli.main import run
from tests.cli.conftest import model
from verif.lipschitz import Lipschitz

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """y = relu(x0 + x1)."""
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "sum.onnx")
    np.save("one.npy", np.array([0.5, 0.5], np.float32))
    np.save("two.npy", np.array([[0.5, 0.5], [-3.0, 0.0]], np.float32))


@pytest.mark.parametrize(("norm", "constant"), [("inf", 2.0), ("2", 2**0.5), ("1", 1.0)])
@pytest.mark.usefixtures("here")
def test_the_constant_of_a_sum(norm: str, constant: float, capsys: Capture) -> None:
    assert run(["lipschitz", "sum.onnx", "--input", "one.npy", "--eps", "0.1", "--norm", norm]) == 0
    title, low, high, gap, *_ = capsys.readouterr().out.split("   ")
    assert title == "LIPSCHITZ sum x one, eps 0.1"
    assert float(low.removeprefix("at least ")) == pytest.approx(constant, rel=1e-4)
    assert float(high.removeprefix("at most ")) == pytest.approx(constant, rel=1e-4)
    assert gap == "gap 0.0%"


@pytest.mark.usefixtures("here")
def test_several_samples_and_margins(capsys: Capture) -> None:
    assert run(["lipschitz", "sum.onnx", "--input", "two.npy", "--eps", "0.1", "--timeout", "5"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("LIPSCHITZ sum x two[0], eps 0.1   at least 2")
    assert second.startswith("LIPSCHITZ sum x two[1], eps 0.1   at least 0   at most 0   gap 0.0%")


@pytest.mark.usefixtures("here")
def test_an_interruption_is_told_and_its_bounds_are_kept(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Lipschitz(1.0, 3.0, 3.0, torch.zeros(2, 2), 7, 0.5, True)
    monkeypatch.setattr(sys.modules["verif.lipschitz"], "lipschitz", lambda *_, **__: known)
    assert run(["lipschitz", "sum.onnx", "--input", "two.npy", "--eps", "0.1"]) == 130
    out, err = capsys.readouterr()
    assert out.startswith("LIPSCHITZ sum x two[0], eps 0.1   at least 1   at most 3")
    assert err == "interrupted: these bounds hold; 0 of 2 samples are finished\n"


@pytest.mark.usefixtures("here")
def test_progress_goes_to_stderr_and_not_into_a_pipe(capsys: Capture) -> None:
    words = ["lipschitz", "sum.onnx", "--input", "one.npy", "--eps", "2"]
    assert run(words) == 0
    assert capsys.readouterr().err == ""
    assert run([*words, "--verbose"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err.startswith("at least 2   at most 2   gap 0.0%   1 domains   00:00/00:10   sum x one, eps 2\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--input gone.npy --eps 1", "error[C107]: no such file"),
        ("--input one.npy --eps -1", "error[C103]: --eps takes a radius of at least 0"),
        ("--input one.npy --eps 1 --timeout 0", "error[C103]: --timeout takes"),
        ("--input one.npy", "error[C102]"),
        ("--input one.npy --eps 1 --norm 3", "error[C102]"),
    ],
)
@pytest.mark.usefixtures("here")
def test_bad_input(line: str, message: str, capsys: Capture) -> None:
    assert run(["lipschitz", "sum.onnx", *line.split()]) == 2
    assert capsys.readouterr().err.startswith(message)
