"""`--proof` and `verify check` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import run
from tests.cli.conftest import model

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(("claim", "code"), [("holds", 0), ("violated", 1)])
def test_a_proof_is_written_and_checked(small: Path, capsys: Capture, claim: str, code: int) -> None:
    files = ["--model", "model.onnx", "--property", f"{claim}.vnnlib"]
    assert run(["model.onnx", f"{claim}.vnnlib", "--proof", "out.proof"]) == code
    assert capsys.readouterr().err.startswith("proof: out.proof (")
    assert run(["check", "out.proof", *files]) == code
    assert capsys.readouterr().out.startswith(f"{claim} in real arithmetic (proof of ")


def test_a_proof_of_something_else_is_refused(small: Path, capsys: Capture) -> None:
    assert run(["model.onnx", "holds.vnnlib", "--proof", "out.proof"]) == 0
    assert run(["check", "out.proof", "--model", "model.onnx", "--property", "violated.vnnlib"]) == 2
    assert capsys.readouterr().err.endswith("refused: the proof is of another property\n")
    assert run(["check", "model.onnx", "--model", "model.onnx", "--property", "holds.vnnlib"]) == 2
    assert "this is no proof" in capsys.readouterr().err


def test_no_proof_where_an_op_is_beyond_the_checker(small: Path, capsys: Capture) -> None:
    model(small / "model.onnx", "Softplus")
    (small / "out.proof").write_text("older")
    run(["model.onnx", "holds.vnnlib", "--proof", "out.proof"])
    assert "not confirmed in real arithmetic: the op Softplus is beyond the checker" in capsys.readouterr().err
    assert not (small / "out.proof").exists()


def test_flags_that_do_not_fit(small: Path, capsys: Capture) -> None:
    assert run(["model.onnx", "--proof", "out.proof"]) == 2
    assert "--proof has no meaning here" in capsys.readouterr().err
