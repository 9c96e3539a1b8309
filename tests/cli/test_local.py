"""Local robustness from a file of samples."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cli.main import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """y = (x0, x1): the label is the larger input, and stays within |x0 - x1| / 2 in the maximum norm."""
    monkeypatch.chdir(tmp_path)
    identity = numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [identity],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "two.onnx")
    np.save("one.npy", np.array([0.75, 0.25], np.float32))
    np.save("both.npy", np.array([[0.75, 0.25], [0.0, 1.0]], np.float32))
    np.save("wide.npy", np.zeros(5, np.float32))
    np.savez("data.npz", x=np.load("both.npy"), y=np.array([0, 1]))
    np.savez("other.npz", x=np.load("both.npy"))
    np.save("words.npy", np.array(["a", "b"]))
    (tmp_path / "text.npy").write_text("0.5 0.5")
    return tmp_path


@pytest.mark.parametrize(("eps", "code", "word"), [("0.2", 0, "HOLDS"), ("0.3", 1, "VIOLATED")])
def test_one_sample(eps: str, code: int, word: str, two: Path, capsys: Capture) -> None:
    assert run(["two.onnx", "--input", "one.npy", "--eps", eps]) == code
    assert capsys.readouterr().out.startswith(f"{word:<8}  two x one (label 0), eps {eps}   ")


def test_several_samples(two: Path, capsys: Capture) -> None:
    assert run(["two.onnx", "--input", "both.npy", "--eps", "0.3", "--quiet"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("VIOLATED  two x both[0] (label 0), eps 0.3")
    assert second.startswith("HOLDS     two x both[1] (label 1), eps 0.3")


def test_a_given_label(two: Path, capsys: Capture) -> None:
    assert run(["two.onnx", "--input", "one.npy", "--eps", "0.1", "--label", "1"]) == 1
    assert capsys.readouterr().out.startswith("VIOLATED  two x one (label 1)")


def test_a_sample_of_a_dataset_has_its_label(two: Path, capsys: Capture) -> None:
    assert run(["two.onnx", "--input", "data.npz[1]", "--eps", "0.4"]) == 0
    assert capsys.readouterr().out.startswith("HOLDS     two x data[1] (label 1), eps 0.4")


def test_a_range_of_the_inputs(two: Path, capsys: Capture) -> None:
    line = ["two.onnx", "--input", "data.npz[1]", "--eps", "0.6"]
    assert run(line) == 1 and run([*line, "--least", "-5", "--most", "0.5"]) == 1
    assert run([*line, "--least", "0.9"]) == 2
    assert "error[P112]: sample 0 is farther than eps from the range" in capsys.readouterr().err


def test_radius(two: Path, capsys: Capture) -> None:
    assert run(["two.onnx", "--input", "both.npy", "--timeout", "20"]) == 0
    rows = [re.split(r" {3,}", line.replace("RADIUS    ", "")) for line in capsys.readouterr().out.splitlines()]
    for (title, certified, broken, _), radius in zip(rows, (0.25, 0.5), strict=True):
        assert title.startswith("two x both[")
        assert radius * 0.97 <= float(certified.split()[1]) <= radius
        assert radius <= float(broken.split()[2]) <= radius * 1.03


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--input wide.npy --eps 1", "error[P104]: the input has the shape [5], the network takes 2 numbers\n"),
        ("--input text.npy --eps 1", "error[C111]: this is no numpy array of numbers (.npy)\n  --> text.npy\n"),
        ("--input data.npz[2] --eps 1", "error[C111]: there is no sample 2; the first one is 0\n  --> data.npz\n"),
        ("--input other.npz[0] --eps 1", "error[C111]: a dataset has arrays x and y (.npz)\n  --> other.npz\n"),
        (
            "--input data.npz --eps 1",
            "error[C111]: this is no numpy array of numbers (.npy)\n  --> data.npz\n  help: --input 'data.npz[0]' is",
        ),
        ("--input one.npy --least 0", "error[C104]: the search for a radius takes no range\n"),
        ("--input one.npy --eps 1 --least 1 --most 0", "error[C103]: --least has to be below --most, "),
        ("--input words.npy --eps 1", "error[C111]: this is no numpy array of numbers (.npy)\n  --> words.npy\n"),
        ("--input gone.npy --eps 1", "error[C107]: no such file\n  --> gone.npy\n"),
        ("--input one.npy --eps 1 --label 2", "error[P112]: label 2 is not one of the network's 2 outputs\n"),
        ("--input both.npy --eps 1 --json r.json", "error[C104]: --json and --counterexample take one sample, "),
        ("p.vnnlib --input one.npy", "error[C104]: a property and --input exclude each other\n"),
        ("--input one.npy --json r.json", "error[C104]: the search for a radius has text output only\n"),
    ],
)
def test_bad_input(line: str, message: str, two: Path, capsys: Capture) -> None:
    before = {path.name for path in two.iterdir()}
    assert run(["two.onnx", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert {path.name for path in two.iterdir()} == before
