"""The standard interface of VNN-LIB 2.0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cli.main import run
from cli.standard import CAPABILITIES

Capture = pytest.CaptureFixture[str]
NETWORKS = ["--network", "f=model.onnx"]
QUERY = """(vnnlib-version <2.0>)
(declare-network f
  (declare-input A float32 [1,2])
  (declare-output Y float32 [1,1])
)
(declare-network g
  (equal-to f)
  (declare-input B float32 [1,2])
  (declare-output Z float32 [1,1])
)
(assert (and (<= A[0,0] 1.0) (>= A[0,0] 0.0) (<= A[0,1] 1.0) (>= A[0,1] 0.0)))
(assert (and (<= B[0,0] 1.0) (>= B[0,0] 0.0) (<= B[0,1] 1.0) (>= B[0,1] 0.0)))
(assert (>= (- Y[0,0] Z[0,0]) {threshold}))
"""


@pytest.fixture
def queries(small: Path) -> Path:
    (small / "unsat.vnnlib").write_text(QUERY.format(threshold="2.5"))
    (small / "sat.vnnlib").write_text(QUERY.format(threshold="1.5"))
    return small


def test_unsat(queries: Path, capsys: Capture) -> None:
    assert run(["verify", "unsat.vnnlib", *NETWORKS, "--timeout", "60"]) == 0
    assert capsys.readouterr() == ("unsat\n", "")


def test_assignments_in_the_order_of_declaration(queries: Path, capsys: Capture) -> None:
    assert run(["verify", "sat.vnnlib", *NETWORKS]) == 1
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "sat"
    headers = ["A float32 [1,2]", "Y float32 [1,1]", "B float32 [1,2]", "Z float32 [1,1]"]
    assert [line for line in lines if "[" in line] == headers
    assert float(lines[4]) - float(lines[-1]) >= 1.5


def test_assignments_as_text_and_again(queries: Path, capsys: Capture) -> None:
    assert run(["verify", "sat.vnnlib", *NETWORKS, "--assignments", "a.txt"]) == 1
    assert capsys.readouterr().out == "sat\n"
    assert run(["replay", "sat.vnnlib", "a.txt", *NETWORKS]) == 1
    assert run(["replay", "unsat.vnnlib", "a.txt", *NETWORKS]) == 3


def test_assignments_as_tensors(queries: Path, capsys: Capture) -> None:
    assert run(["verify", "sat.vnnlib", *NETWORKS, "--serialise-assignments", "out"]) == 1
    assert capsys.readouterr().out == "sat\n"
    values = {}
    for path in (queries / "out").iterdir():
        tensor = onnx.TensorProto()
        tensor.ParseFromString(path.read_bytes())
        values[path.stem] = numpy_helper.to_array(tensor)
    assert sorted(values) == ["A", "B", "Y", "Z"]
    assert values["A"].shape == (1, 2) and values["A"].dtype == np.float32
    assert values["Y"].item() == pytest.approx(values["A"].sum())


def test_errors_go_to_stderr(queries: Path, capsys: Capture) -> None:
    assert run(["verify", "sat.vnnlib"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error[P109]: ")
    assert run(["verify", "sat.vnnlib", *NETWORKS, "--serialise-assignments", "no/where"]) == 2
    assert capsys.readouterr() == ("", "error[C108]: cannot write here: the folder does not exist\n  --> no/where\n")


@pytest.mark.parametrize("flag", CAPABILITIES)
def test_capabilities(flag: str, capsys: Capture) -> None:
    assert run(["supports", flag]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(lines)
    if flag == "--onnx-operators":
        assert {"Conv", "Gemm", "Relu"} <= set(lines)
