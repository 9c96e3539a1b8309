"""`--proof` and `verify check` from the command line."""

from __future__ import annotations

import subprocess
import sys
import time
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


def test_a_killed_search_leaves_a_proof_of_what_it_had_done(small: Path, capsys: Capture) -> None:
    code = "from pathlib import Path\nfrom verif import evidence\nevidence.OFTEN = 0\n"
    code += "evidence.write(Path('out.proof'), evidence.Claim(Path('model.onnx'), Path('violated.vnnlib')))"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        until = time.monotonic() + 30
        while time.monotonic() < until and not (Path("out.proof").exists() and Path("out.proof").stat().st_size > 2000):
            time.sleep(0.01)
        process.kill()
    files = ["--model", "model.onnx", "--property", "violated.vnnlib"]
    assert run(["check", "out.proof", *files]) == 3
    out = capsys.readouterr().out
    assert out.startswith("incomplete: holds on ")
    assert 50 < float(out.split()[3].rstrip("%")) < 90  # of 0 <= y <= 2, seven eighths of the points are below 1.5


def test_what_could_not_be_confirmed_is_told(small: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from verif import evidence

    written = evidence.Written(3, 100, 0.25, "no time")
    monkeypatch.setattr(evidence, "write", lambda *_: written)
    assert run(["model.onnx", "holds.vnnlib", "--proof", "out.proof"]) == 0
    err = capsys.readouterr().err
    assert err == "proof: out.proof (3 leaves, 100 bytes)\nit proves 25.0% of the input set: no time\n"


def test_a_proof_of_monotonicity(small: Path, capsys: Capture) -> None:
    Path("box.csv").write_text("name,lower,upper\na,0,1\nb,0,1\n")
    assert run(["monotone", "model.onnx", "--box", "box.csv", "--increasing", "a,b", "--proof", "out.proof"]) == 0
    assert capsys.readouterr().err.startswith("proof: out.proof (1 leaves, ")
    files = ["--model", "model.onnx", "--property", "out.vnnlib"]
    assert run(["check", "out.proof", *files, "--slopes", "0"]) == 0
    assert capsys.readouterr().out.startswith("holds of the slopes of output 0 in real arithmetic")
    assert run(["check", "out.proof", *files]) == 2
    assert run(["monotone", "model.onnx", "--box", "box.csv", "--decreasing", "a", "--proof", "out.proof"]) == 1
    assert "no proof was written" in capsys.readouterr().err
