"""Verdicts from files to stdout, files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.main import run
from tests.cli.conftest import model, property_text

Capture = pytest.CaptureFixture[str]


def test_a_bad_model_is_not_hidden_by_a_bad_property(small: Path, capsys: Capture) -> None:
    (small / "nothing.onnx").touch()
    (small / "bad.vnnlib").write_text("(assert")
    assert run(["nothing.onnx", "bad.vnnlib"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error[G102]") and "note: the property has an error too: P" in told


def test_holds(small: Path, capsys: Capture) -> None:
    assert run(["model.onnx", "holds.vnnlib"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("HOLDS     model x holds   lower bound +0.5   ")
    assert err == ""


def test_violated(small: Path, capsys: Capture) -> None:
    assert run(["model.onnx", "violated.vnnlib", "--counterexample", "cex.txt"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("VIOLATED  model x violated   counterexample replayed   ")
    assert lines[1].startswith("  input    X = [")
    assert lines[-1] == "  replay   verify replay model.onnx violated.vnnlib cex.txt"
    x0, x1, y = (float(line.strip(" ()").split()[1]) for line in (small / "cex.txt").read_text().splitlines())
    assert 0 <= x0 <= 1 and 0 <= x1 <= 1 and y >= 1.5
    assert run(["replay", "model.onnx", "violated.vnnlib", "cex.txt"]) == 1
    assert run(["replay", "model.onnx", "holds.vnnlib", "cex.txt"]) == 3


def test_counterexample_as_arrays(small: Path, capsys: Capture) -> None:
    assert run(["model.onnx", "violated.vnnlib", "--counterexample", "cex.npz"]) == 1
    with np.load("cex.npz") as arrays:
        assert arrays["X"].shape == (1, 2) and arrays["X"].dtype == np.float32
        assert arrays["X"].sum() == pytest.approx(arrays["Y"][0, 0])
    assert run(["replay", "model.onnx", "violated.vnnlib", "cex.npz"]) == 1
    assert capsys.readouterr().out.count("VIOLATED") == 2


def test_json(small: Path, capsys: Capture) -> None:
    assert run(["model.onnx", "violated.vnnlib", "--json", "r.json", "--format", "json"]) == 1
    record = json.loads((small / "r.json").read_text())
    assert record == json.loads(capsys.readouterr().out)
    assert (record["schema"], record["verdict"], record["model"]) == (1, "violated", "model.onnx")
    assert record["counterexample"]["inputs"]["X"]["shape"] == [1, 2]


@pytest.mark.parametrize(("name", "code", "word"), [("holds", 0, "unsat"), ("violated", 1, "sat")])
def test_words_of_the_competition(name: str, code: int, word: str, small: Path, capsys: Capture) -> None:
    assert run(["model.onnx", f"{name}.vnnlib", "--format", "vnncomp"]) == code
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == word
    assert [line.strip(" ()").split()[0] for line in rest] == (["X_0", "X_1", "Y_0"] if rest else [])


def test_quiet(small: Path, capsys: Capture) -> None:
    assert run(["model.onnx", "violated.vnnlib", "--quiet"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_time_of_nothing(small: Path, capsys: Capture) -> None:
    """The time can be over before the search begins; what is known so far may be everything."""
    assert run(["model.onnx", "holds.vnnlib", "--timeout", "1e-9"]) in (0, 4)
    assert capsys.readouterr().out.startswith(("TIMEOUT", "HOLDS"))


def test_interrupted(small: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C within the search: what is known is printed, and the exit code is 130."""
    from verif.verify import Run

    def interrupt(self: Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_decide", interrupt)
    assert run(["model.onnx", "holds.vnnlib"]) == 130
    out = capsys.readouterr().out
    assert out.startswith("UNKNOWN   model x holds")
    assert "\n  because  interrupted\n" in out


def test_progress(small: Path, capsys: Capture) -> None:
    from cli.options import Options
    from cli.progress import line, watching
    from verif.bab import Progress

    event = Progress(open=12480, done=96210, worst=-0.0213, proved_share=0.25, boxes_per_second=3200.0, seconds=87.0)
    expected = "worst bound -0.0213   proved 25.0%   open 12,480   done 96,210   3,200 boxes/s   01:27/02:00   p"
    assert line(event, "p", 120) == expected
    with watching(Options(), "p") as watch:
        assert watch is None  # stderr is no terminal here
    with watching(Options(verbose=True, timeout=120), "p") as watch:
        assert watch is not None
        watch(event)
        watch(event)  # within the ten seconds: not shown
    assert capsys.readouterr().err == expected + "\n"


def test_a_list(small: Path, capsys: Capture) -> None:
    """The ordinary command takes a list to the same store as `verify batch`."""
    (small / "instances.csv").write_text("model.onnx,holds.vnnlib,60\nmodel.onnx,violated.vnnlib,60\n")
    assert run(["instances.csv", "--results", "r.db", "--timeout", "30"]) == 1
    out, err = capsys.readouterr()
    assert (sorted(line.split()[0] for line in out.splitlines()), err) == (["1", "HOLDS", "VIOLATED"], "")
    assert run(["batch", "instances.csv", "--results", "r.db", "--timeout", "30", "--csv", "r.csv"]) == 1
    assert capsys.readouterr() == ("1 holds, 1 violated\n", "2 of 2 instances are decided already\n")
    rows = [line.split(",") for line in (small / "r.csv").read_text().splitlines()]
    assert [row[:5] for row in rows] == [
        [small.name, "model.onnx", "holds.vnnlib", "0.0", "unsat"],
        [small.name, "model.onnx", "violated.vnnlib", "0.0", "sat"],
    ]
    assert all(float(row[5]) >= 0 for row in rows)


SECOND = """(vnnlib-version <2.0>)
(declare-network f
  (declare-input X float32 [1,2])
  (declare-output Y float32 [1,1])
)
(assert (and (<= X[0,0] 1.0) (>= X[0,0] 0.0) (<= X[0,1] 1.0) (>= X[0,1] 0.0)))
(assert (>= Y[0,0] 2.5))
"""
UNBOUNDED = """(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(assert (and (>= X_0 0) (<= X_0 1) (>= X_1 0)))
(assert (>= Y_0 2.5))
"""


@pytest.fixture
def bad(small: Path) -> Path:
    """The folder with everything that can be wrong with a file."""
    raw = (small / "model.onnx").read_bytes()
    (small / "half.onnx").write_bytes(raw[: len(raw) // 2])
    (small / "nothing.onnx").write_bytes(b"")
    (small / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    model(small / "odd.onnx", op="Hardmax")
    model(small / "nan.onnx", bias=float("nan"))
    (small / "two.vnnlib").write_text(property_text("(assert (>= Y_1 2.5))", outputs=2))
    (small / "syntax.vnnlib").write_text(property_text("(assert (>= Y_0 )"))
    (small / "unbounded.vnnlib").write_text(UNBOUNDED)
    (small / "second.vnnlib").write_text(SECOND)
    (small / "double.vnnlib").write_text(SECOND.replace("float32", "float64"))
    (small / "wide.vnnlib").write_text(SECOND.replace("X float32 [1,2]", "X float32 [1,3]"))
    (small / "typo.vnnlib").write_text(SECOND.replace("(assert (>=", "(asert (>="))
    return small


BAD = {
    "no device": (
        "model.onnx holds.vnnlib --device abacus",
        "error[C112]: torch cannot use the device 'abacus'\n  note: ",
    ),
    "truncated model": (
        "half.onnx holds.vnnlib",
        "error[G102]: the file is not an ONNX model, or it is truncated\n  --> half.onnx\n  note: it has 104 bytes\n"
        "  help: export or download the model again\n",
    ),
    "empty model": (
        "nothing.onnx holds.vnnlib",
        "error[G102]: the model file is empty\n  --> nothing.onnx\n  help: export or download the model again\n",
    ),
    "git-lfs pointer": (
        "pointer.onnx holds.vnnlib",
        "error[G103]: this is a git-lfs pointer, not a model\n  --> pointer.onnx\n"
        "  note: oid sha256:00\n  note: size 12\n"
        "  help: fetch the real file with `git lfs pull`\n",
    ),
    "operator without a meaning": (
        "odd.onnx holds.vnnlib",
        "error[G203]: no converter for operator 'Hardmax'\n  --> odd.onnx, node '/act' (Hardmax, opset 17)\n"
        "  note: operators with similar names: ArgMax\n"
        "  help: export it again with standard operators: torch.onnx.export(model, x, 'model.onnx', opset_version=17); "
        "or add a converter (docs/add-an-op.md)\n",
    ),
    "NaN weights": (
        "nan.onnx holds.vnnlib",
        "error[G104]: tensor 'offset' holds NaN or infinite numbers\n  --> nan.onnx, initializer 'offset'\n"
        "  note: 1 of its 1 numbers, shape [1]\n"
        "  help: train or export the model again; no bound exists for such weights\n",
    ),
    "sizes differ": (
        "model.onnx two.vnnlib",
        "error[P104]: the property declares 2 outputs (Y_0 ...), the network has 1\n  --> two.vnnlib\n  note: ",
    ),
    "shapes differ": (
        "model.onnx wide.vnnlib",
        "error[P104]: 'X' is declared as [1, 3], the network's input 'x' is [1, 2]\n  --> wide.vnnlib\n",
    ),
    "types differ": (
        "model.onnx double.vnnlib",
        "error[P105]: 'X' is declared as float64, the network's input 'x' is float32\n  --> double.vnnlib\n",
    ),
    "syntax": (
        "model.onnx syntax.vnnlib",
        "error[P101]: expected a number, a variable or an arithmetic term, found ')'\n  --> syntax.vnnlib:8:17\n",
    ),
    "syntax of 2.0": ("model.onnx typo.vnnlib", "error[P101]: syntax error: unexpected '('\n  --> typo.vnnlib:7:1\n"),
    "unbounded input": (
        "model.onnx unbounded.vnnlib",
        "error[P106]: the input X_1 has no upper bound\n  --> unbounded.vnnlib\n  note: 1 of 2 inputs lack a bound\n"
        "  help: (assert (<= X_1 1.0))\n",
    ),
    "a name that is not declared": (
        "second.vnnlib --network g=model.onnx",
        "error[C113]: the query declares no network 'g'\n  note: declared: f\n  help: --network NAME=FILE\n",
    ),
    "a network too many": (
        "second.vnnlib --network f=model.onnx --network g=model.onnx",
        "error[P109]: the query declares no network 'g'\n  --> second.vnnlib\n  note: declared: f\n",
    ),
    "two networks for one": (
        "holds.vnnlib --network f=model.onnx --network g=model.onnx",
        "error[P109]: a VNN-LIB 1.0 property is about one network, 2 are given\n"
        "  --> holds.vnnlib\n  note: given: f, g\n",
    ),
    "no counterexample": (
        "replay model.onnx holds.vnnlib holds.vnnlib",
        "error[P111]: this is no counterexample: it gives no X_0\n  --> holds.vnnlib\n",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, bad: Path, capsys: Capture) -> None:
    """The message is as it should be, stdout stays empty, nothing is written; exit code 2."""
    line, message = BAD[name]
    before = {path.name: path.read_bytes() for path in bad.iterdir()}
    command = line.split()
    assert run(command if command[0] == "replay" else [*command, "--json", "out.json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert {path.name: path.read_bytes() for path in bad.iterdir()} == before


def test_an_empty_input_set_is_no_error(small: Path, capsys: Capture) -> None:
    (small / "empty.vnnlib").write_text(property_text("(assert (>= X_0 2.0))\n(assert (>= Y_0 0.0))"))
    assert run(["model.onnx", "empty.vnnlib"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("HOLDS     model x empty   ")
    assert second == "  warning  the input set is empty: X_0 >= 2.0 and X_0 <= 1.0"
