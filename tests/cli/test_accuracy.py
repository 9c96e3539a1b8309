"""`verify accuracy`: the figures, results that go on, the picture, and bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cli.main import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    weight = numpy_helper.from_array(np.array([[1, -1], [-1, 1]], np.float32), "weight")
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    graph = helper.make_graph([node], "small", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "model.onnx")
    random = np.random.default_rng(0)
    x = random.random((70, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] < x[:, 1]).astype(np.int64))
    return tmp_path


def test_figures_results_and_picture(here: Path, capsys: Capture) -> None:
    line = [
        "accuracy",
        "model.onnx",
        "--data",
        "data.npz",
        "--eps",
        "0.1,0,0.02",
        "--results",
        "r.json",
        "--picture",
        "p.svg",
    ]
    assert run(line) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in lines[2:]] == ["0", "0.02", "0.1"]
    kept = json.loads((here / "r.json").read_text())
    found = {own["radius"]: own for own in kept["radii"]}
    for own in found.values():
        assert own["certified"] <= own["attacked"] <= own["natural"] and own["count"] == 70
    assert found[0]["certified"] == found[0]["natural"] > found[0.1]["certified"]
    assert len(ElementTree.parse(here / "p.svg").getroot().findall(".//{*}polyline")) == 3
    found[0.1]["states"] = "x" * 70  # what is in the file is not computed again
    (here / "r.json").write_text(json.dumps(kept))
    assert run([*line, "--timeout", "1", "--verbose"]) == 0
    assert capsys.readouterr().out.splitlines()[4].split()[3] == "0.0"


def test_progress(here: Path, capsys: Capture) -> None:
    assert run(["accuracy", "model.onnx", "--data", "data.npz", "--eps", "0.02", "--verbose"]) == 0
    assert "of 70 samples to go" in capsys.readouterr().err


def test_an_interruption_leaves_the_picture_of_what_is_known(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verif import training

    def two(*_: object, **__: object) -> Iterator[training.Accuracy]:
        yield training.Accuracy(0.1, 70, 1.0, 0.75, 0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr("verif.training.evaluate", two)
    line = ["accuracy", "model.onnx", "--data", "data.npz", "--eps", "0.1,0.2", "--picture", "p.svg"]
    assert run(line) == 130
    assert "interrupted: with --results FILE.json the same command goes on\n" in capsys.readouterr().err
    assert (here / "p.svg").is_file()


def test_results_of_another_model_are_refused(here: Path, capsys: Capture) -> None:
    line = ["accuracy", "model.onnx", "--data", "data.npz", "--eps", "0", "--results", "r.json"]
    assert run(line) == 0
    assert run([*line, "--norm", "2"]) == 2
    (here / "r.json").write_text("[]")
    assert run(line) == 2
    said = capsys.readouterr().err
    assert "error[P121]: 'r.json' holds results of another model" in said
    assert "error[P121]: 'r.json' is not a file of results" in said


@pytest.mark.parametrize(
    ("eps", "data", "message"),
    [
        ("-0.1", "data.npz", "error[C103]: --eps takes radii"),
        ("0.1,x", "data.npz", "error[C103]: --eps takes radii"),
        ("0.1", "none.npz", "error["),
        ("0.1", "array.npy", "error[C104]: 'array.npy' has no arrays x and y"),
        ("0.1", "nan.npz", "error[C104]: sample 1 of 'nan.npz' holds NaN or infinite numbers"),
        ("0.1", "wrong.npz", "error[C104]: 'wrong.npz' has no arrays x and y"),
        ("0.1", "sizes.npz", "error[C104]: the model takes 2 numbers a sample"),
        ("0.1", "labels.npz", "error[P116]: labels must lie between 0 and 1"),
    ],
)
def test_bad_input(here: Path, eps: str, data: str, message: str, capsys: Capture) -> None:
    np.savez(here / "wrong.npz", a=np.zeros(3))
    np.savez(here / "sizes.npz", x=np.zeros((3, 3)), y=np.zeros(3, np.int64))
    np.savez(here / "labels.npz", x=np.zeros((3, 2)), y=np.full(3, 2))
    np.save(here / "array.npy", np.zeros((3, 2)))
    np.savez(here / "nan.npz", x=np.array([[0.0, 0.0], [0.0, np.nan]]), y=np.zeros(2, np.int64))
    assert run(["accuracy", "model.onnx", "--data", data, f"--eps={eps}"]) == 2
    assert capsys.readouterr().err.startswith(message)
