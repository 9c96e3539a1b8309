"""A model alone: its description, its drawing, and every operator that has no meaning here."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from cli.main import run
from graphs.ops import OPS
from relaxations import RULES
from tests.cli.conftest import model

Capture = pytest.CaptureFixture[str]


def test_every_op_can_be_described() -> None:
    assert set(OPS) <= set(RULES)


def test_description(small: Path, capsys: Capture) -> None:
    assert run(["model.onnx"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[:3] == ["model.onnx", "  input     x [1, 2] float32", "  output    y [1, 1] float32"]
    assert lines[3].startswith("  size      2 nodes, ")
    assert lines[4] == "  memory    8 B per row and box, at the widest value 'x'"
    assert [line.split()[0] for line in lines[6:9]] == ["op", "linear", "relu"]
    assert lines[-2:] == [
        "  next      verify model.onnx PROPERTY.vnnlib --timeout 60",
        "            verify model.onnx --graph model.svg",
    ]


def test_explanation(small: Path, capsys: Capture) -> None:
    """W x + b (2 to 1, then a ReLU): two ends of 2 * 2 operations at least."""
    assert run(["model.onnx", "--explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["pass", "operations"])
    assert [line.split()[0] for line in lines[start + 1 : start + 3]] == ["interval", "CROWN"]
    assert int(lines[start + 1].split()[1]) >= 8
    assert lines[start + 4].startswith("  a row takes up to 8 B, a box ")
    assert lines[start + 5].startswith("  rows go ")


def test_drawing(small: Path) -> None:
    assert run(["model.onnx", "--graph", "model.svg"]) == 0
    assert ElementTree.parse("model.svg").getroot().tag.endswith("svg")


def test_all_that_is_missing(small: Path, capsys: Capture) -> None:
    model(small / "odd.onnx", op="Hardmax")
    assert run(["odd.onnx", "--graph", "odd.svg"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error[G203]: no converter for operator 'Hardmax'\n  --> odd.onnx, node '/act'")
    assert "\n  note: of 3 nodes these have no meaning here: Hardmax (1)\n" in err
    assert not (small / "odd.svg").exists()


@pytest.mark.parametrize("flags", ["--json r.json", "--format json", "--results r.csv", "--counterexample c.txt"])
def test_flags_of_verdicts(flags: str, small: Path, capsys: Capture) -> None:
    assert run(["model.onnx", *flags.split()]) == 2
    assert capsys.readouterr().err.startswith(f"error[C104]: {flags.split()[0]} has no meaning here\n")
