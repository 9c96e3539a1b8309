"""Bad command lines: the exact message on stderr, nothing on stdout, exit code 2, no file touched, no torch needed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.main import run

HELP = "verify --help lists the flags"
SUFFIXES = "has none of the suffixes .onnx, .vnnlib, .csv"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and a property (whose content no test here reads)."""
    monkeypatch.chdir(tmp_path)
    for name in ("model.onnx", "property.vnnlib", "x.npy", "instances.csv"):
        (tmp_path / name).write_text("untouched")
    (tmp_path / "folder").mkdir()
    return tmp_path


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


CASES = {
    "unknown flag": (
        "model.onnx property.vnnlib --timeot 3",
        "error[C101]: unknown option: --timeot\n  help: did you mean '--timeout'?",
    ),
    "no number": (
        "model.onnx property.vnnlib --timeout soon",
        f"error[C102]: invalid value for --timeout: unable to convert 'soon' into float\n  help: {HELP}",
    ),
    "no choice": (
        "model.onnx --input x.npy --norm 3",
        f"error[C102]: invalid value '3' for --norm. Choose from: 'inf', '2', '1'\n  help: {HELP}",
    ),
    "too many": (
        "model.onnx property.vnnlib third.vnnlib",
        f"error[C102]: too many arguments: third.vnnlib\n  help: {HELP}",
    ),
    "timeout": (
        "model.onnx property.vnnlib --timeout 0",
        "error[C103]: --timeout takes a number of seconds above 0, not 0",
    ),
    "memory": (
        "model.onnx property.vnnlib --memory lots",
        "error[C103]: --memory takes a size such as 2GB or 512MB, not 'lots'",
    ),
    "eps": (
        "model.onnx --input x.npy --eps -1",
        "error[C103]: --eps takes a radius of at least 0, not -1",
    ),
    "eps without input": (
        "model.onnx --eps 1",
        "error[C104]: --eps needs --input\n  help: --input x.npy gives the samples to verify around",
    ),
    "suffix": (
        "model.pt",
        f"error[C104]: the first file decides what to do, and 'model.pt' {SUFFIXES}\n"
        "  help: torch.onnx.export(model, x, 'model.onnx') writes the file that verify reads",
    ),
    "exported program": (
        "model.pt2 property.vnnlib",
        "error[C104]: 'model.pt2' is not read: torch unpickles such files, which can run code (docs/trust.md)\n"
        "  help: for a file of yours: torch.onnx.export(torch.export.load('model.pt2').module(), x, 'model.onnx')",
    ),
    "array first": (
        "x.npy model.onnx",
        f"error[C104]: the first file decides what to do, and 'x.npy' {SUFFIXES}\n"
        "  help: the model comes first: verify model.onnx x.npy",
    ),
    "unknown command": (
        "repot results.db",
        f"error[C104]: the first file decides what to do, and 'repot' {SUFFIXES}\n  help: did you mean verify report?",
    ),
    "array as property": (
        "model.onnx x.npy",
        "error[C104]: 'x.npy' is no property (.vnnlib)\n  help: verify model.onnx --input x.npy --eps 0.01",
    ),
    "two models": (
        "model.onnx other.onnx",
        "error[C104]: 'other.onnx' is no property (.vnnlib)\n"
        "  help: verify QUERY.vnnlib --network f=model.onnx --network g=other.onnx",
    ),
    "decimal comma": (
        "model.onnx --input x.npy --eps 0,1",
        "error[C102]: invalid value for --eps: unable to convert '0,1' into float\n  help: decimals have a point: 0.1",
    ),
    "command without its file": (
        "report",
        "error[C102]: verify report needs RESULTS\n  help: verify report --help lists the flags",
    ),
    "command without its flag": (
        "accuracy model.onnx",
        "error[C102]: verify accuracy needs --data\n  help: verify accuracy --help lists the flags",
    ),
    "flag without its value": (
        "model.onnx --timeout",
        "error[C102]: --timeout needs a value\n  help: verify --help lists the flags",
    ),
    "missing model": (
        "modle.onnx property.vnnlib",
        "error[C107]: no such file\n  --> modle.onnx\n  help: did you mean model.onnx?",
    ),
    "missing property": (
        "model.onnx nothing.here",
        "error[C107]: no such file\n  --> nothing.here",
    ),
    "missing model alone": (
        "modle.onnx",
        "error[C107]: no such file\n  --> modle.onnx\n  help: did you mean model.onnx?",
    ),
    "a folder": (
        "folder/ property.vnnlib",
        f"error[C104]: the first file decides what to do, and 'folder' {SUFFIXES}\n"
        "  help: verify batch folder asks every model in it with every property",
    ),
    "network malformed": (
        "property.vnnlib --network model.onnx",
        "error[C105]: --network takes NAME=FILE, not 'model.onnx'\n  help: for example --network f=model.onnx",
    ),
    "network twice": (
        "property.vnnlib --network f=model.onnx --network f=other.onnx",
        "error[C106]: network 'f' is given twice\n  note: first model.onnx, then other.onnx",
    ),
    "network missing": (
        "property.vnnlib",
        "error[C104]: a query needs its networks\n  --> property.vnnlib\n"
        "  help: verify property.vnnlib --network NAME=MODEL.onnx",
    ),
    "wrong order": (
        "property.vnnlib model.onnx",
        "error[C104]: the model comes first, then the property\n  help: verify model.onnx property.vnnlib",
    ),
    "output in a missing folder": (
        "model.onnx property.vnnlib --json nowhere/out.json",
        "error[C108]: cannot write here: the folder does not exist\n  --> nowhere/out.json",
    ),
    "output is a folder": (
        "model.onnx property.vnnlib --counterexample folder",
        "error[C108]: cannot write here: this is a folder\n  --> folder",
    ),
    "results of one": (
        "model.onnx property.vnnlib --results r.csv",
        "error[C104]: --results has no meaning here\n"
        "  help: it belongs to a batch: verify batch instances.csv --results results.db",
    ),
    "instances": (
        "instances.csv",
        "error[C109]: a row has three columns (onnx, vnnlib, timeout), not 1\n  --> instances.csv:1",
    ),
    "results of a list": (
        "instances.csv --results r.csv",
        "error[C103]: --results takes a store (.db), not 'r.csv'\n"
        "  help: verify batch INSTANCES.csv --csv r.csv writes the verdicts at the end",
    ),
    "batch flag": (
        "instances.csv --json out.json",
        "error[C104]: --json has no meaning here\n"
        "  help: verify report writes what a batch found: --json, --csv, --html",
    ),
    "capability": (
        "supports --onnx-operator",
        "error[C101]: unknown capability '--onnx-operator'\n  help: did you mean '--onnx-operators'?",
    ),
    "standard, network twice": (
        "verify property.vnnlib --network f=model.onnx --network f=model.onnx",
        "error[C106]: network 'f' is given twice\n  note: first model.onnx, then model.onnx",
    ),
    "replay": (
        "replay model.onnx property.vnnlib gone.txt",
        "error[C107]: no such file\n  --> gone.txt",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_command_line(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line, message = CASES[name]
    before = files(folder)
    assert run(line.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", message + "\n")
    assert files(folder) == before


def test_read_only_output(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "out.json").write_text("old")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "out.json")
    assert run(["model.onnx", "property.vnnlib", "--json", "out.json"]) == 2
    assert capsys.readouterr().err == "error[C108]: cannot write here: the file is read-only\n  --> out.json\n"
    assert (folder / "out.json").read_text() == "old"


def test_flags_from_file_and_environment(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag wins over the environment, the environment over verify.toml."""
    (folder / "verify.toml").write_text("timeout = -1\n")
    line = ["model.onnx", "property.vnnlib"]
    assert run(line) == 2
    assert "not -1" in capsys.readouterr().err
    monkeypatch.setenv("VERIF_TIMEOUT", "-2")
    assert run(line) == 2
    assert "not -2" in capsys.readouterr().err
    assert run([*line, "--timeout", "-3"]) == 2
    assert "not -3" in capsys.readouterr().err


def test_unknown_key_in_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "verify.toml").write_text("timeot = 1\n")
    assert run(["model.onnx", "property.vnnlib"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error[C101]: unknown option: '[timeot]' from ")
    assert err.endswith("verify.toml\n  help: did you mean '--timeout'?\n")


def test_internal_error(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("cli.decide.decide_property", fail)
    message = (
        "error[V900]: internal error, no verdict: ZeroDivisionError: first line\n"
        "  help: run it again with --verbose for the traceback, and please report it with the files\n"
    )
    assert run(["model.onnx", "property.vnnlib"]) == 2
    assert capsys.readouterr() == ("", message)
    assert run(["model.onnx", "property.vnnlib", "--verbose"]) == 2
    assert capsys.readouterr().err.startswith("Traceback (most recent call last)")


def test_ctrl_c(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.decide.decide_property", interrupt)
    assert run(["model.onnx", "property.vnnlib"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize(("line", "expected"), [(["--version"], "0.1.0\n"), (["--name"], "verif\n")])
def test_quick_answers(line: list[str], expected: str) -> None:
    """A process of its own: no torch, so well under a second even on a loaded machine."""
    started = time.perf_counter()
    code = "from cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, check=True)
    assert done.stdout == expected
    assert time.perf_counter() - started < 1.0


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "--counterexample" in shown and "verify batch FOLDER" in shown and "verify.toml" in shown
    assert run(["batch", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "[default: results.db]" in shown and "verify.toml" not in shown


@pytest.mark.parametrize(
    "command",
    [
        "replay model.onnx violated.vnnlib cex.txt",
        "check p.bin --model model.onnx --property violated.vnnlib",
        "report r.csv --html r.html",
        "compare r.csv r.csv --junit r.xml",
    ],
)
def test_ctrl_c_ends_a_reader_with_130(
    command: str, small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.files.require", interrupt)
    assert run(command.split()) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize("before", [None, "old"])
def test_ctrl_c_leaves_a_file_as_it_was(before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cli import files

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "out.html"
    if before is not None:
        file.write_text(before)
    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write(file, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == ({"out.html": before} if before else {})
