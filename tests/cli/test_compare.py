"""`verify compare`: contradictions first, exit codes of a gate, and JUnit's file in which only regressions fail."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cli import compare
from cli.compare import changes
from cli.main import run
from cli.results import Row, Run
from verif.verdict import Verdict

Capture = pytest.CaptureFixture[str]


def write(path: Path, **words: str) -> None:
    path.write_text("".join(f"f,a.onnx,{name}.vnnlib,0.0,{word}\n" for name, word in words.items()), encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "after", "kind", "code"),
    [
        ("unsat,1", "unsat,1.5", "", 0),
        ("unsat,1", "timeout,60", "regression", 1),
        ("unsat,1", "error,1", "regression", 1),
        ("timeout,60", "sat,1", "regression", 1),
        ("sat,1", "error,1", "regression", 1),
        ("timeout,60", "unknown,3", "", 0),
        ("sat,1", "timeout,60", "better", 0),
        ("timeout,60", "unsat,1", "better", 0),
        ("unsat,1", "sat,1", "contradiction", 1),
        ("sat,1", "unsat,1", "contradiction", 1),
        ("unsat,1", "unsat,2", "slower", 0),
        ("sat,9", "sat,3", "faster", 0),
        ("unsat,0.1", "unsat,0.9", "", 0),
        ("timeout,20", "timeout,60", "", 0),
    ],
)
def test_kinds(
    before: str, after: str, kind: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "old.csv", p=before)
    write(tmp_path / "new.csv", p=after)
    assert run(["compare", "old.csv", "new.csv", "--junit", "j.xml"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{0 if kind else 1} of 1 unchanged, {code} failed"
    assert [line.split(" ")[0] for line in lines[:-1] if not line.startswith(" ")] == ([kind] if kind else [])
    (case,) = ElementTree.parse(tmp_path / "j.xml").getroot()
    held = after.startswith("unsat")
    assert [child.tag for child in case] == (["failure"] if code else [] if held else ["skipped"])


def test_order_new_and_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "old.csv", lost="unsat,1", worse="unsat,1", wrong="unsat,1")
    write(tmp_path / "new.csv", worse="timeout,60", wrong="sat,1", fresh="unsat,1", open="unknown,1")
    assert run(["compare", "old.csv", "new.csv"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "contradiction (holds and violated: one of the two is wrong, unless the files changed): 1",
        "  f a.onnx wrong.vnnlib: holds, then violated",
        "regression (worse than before): 2",
        "  f a.onnx worse.vnnlib: holds, then timeout",
        "  f a.onnx open.vnnlib: new, then unknown",
        "missing (in the first run only): 1",
        "  f a.onnx lost.vnnlib: holds, then not there",
        "1 of 5 unchanged, 4 failed",
    ]


def test_other_files_do_not_contradict() -> None:
    """Where the files are known to differ, two verdicts are of two things."""
    before, after = (Row("f", "m", "p", verdict, 1.0, verdict.label) for verdict in (Verdict.HOLDS, Verdict.VIOLATED))
    (change,) = changes(Run("old", (before,)), Run("new", (after,)), 2.0)
    assert change.kind == "regression"


def test_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "old.csv", p="unsat,1")
    (tmp_path / "empty.csv").touch()
    assert run(["compare", "old.csv", "none.csv"]) == 2
    assert run(["compare", "old.csv", "empty.csv"]) == 2
    assert run(["compare", "old.csv", "old.csv", "--factor", "1"]) == 2
    shown = capsys.readouterr().err
    assert "no such file" in shown and "there are no results to compare" in shown and "--factor takes" in shown


def test_the_workflow_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The commands of the workflow that docs/how-to/ci.md shows, beside two baselines."""
    root = Path(__file__).resolve().parent.parent.parent
    text = (root / "docs/how-to/ci.md").read_text()
    workflow = text.split("```yaml\n")[1].split("```")[0]
    commands = [shlex.split(line) for line in re.findall(r"verify (.*?)(?: \|\| true)?$", workflow, re.MULTILINE)]
    assert [command[0] for command in commands] == ["batch", "compare", "report"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "_LEAST", 1e9)  # times are not what is tested
    shutil.copytree(root / "cases" / "digits", tmp_path / "properties")
    rows = [("image0_eps0.04.vnnlib", "unsat"), ("image4_eps0.2.vnnlib", "sat")]
    (tmp_path / "properties/instances.csv").write_text("".join(f"model.onnx,{name},60\n" for name, _ in rows))
    good = "".join(f"properties,model.onnx,{name},0.0,{word},0.5\n" for name, word in rows)
    (tmp_path / "properties/baseline.csv").write_text(good)
    assert [run(command) for command in commands] == [1, 0, 0], capsys.readouterr().err
    assert "2 of 2 unchanged, 0 failed" in capsys.readouterr().out
    assert (tmp_path / "junit.xml").is_file() and (tmp_path / "report.html").is_file()
    (tmp_path / "properties/baseline.csv").write_text(good.replace(",sat,", ",unsat,"))
    assert run(commands[1]) == 1


def test_names_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ["c,{}m.onnx,{}p1.vnnlib,0,unsat,1\n", "c,{}m.onnx,{}p2.vnnlib,0,sat,1\n"]
    (tmp_path / "list.csv").write_text("".join(row.format("", "") for row in rows))
    (tmp_path / "work.csv").write_text("".join(row.format("a/b/", "a/b/") for row in reversed(rows)))
    for pair in (["list.csv", "work.csv"], ["work.csv", "list.csv"]):
        assert run(["compare", *pair]) == 0
        assert capsys.readouterr().out == "2 of 2 unchanged, 0 failed\n"
        assert run(["report", *pair, "--html", "r.html"]) == 0
        assert (
            capsys.readouterr().out.endswith("- no contradiction\n") and "<circle" in (tmp_path / "r.html").read_text()
        )
