"""A working folder with small models and properties whose verdicts are plain to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

HOLDS = "(assert (>= Y_0 2.5))"
VIOLATED = "(assert (>= Y_0 1.5))"


def model(path: Path, op: str = "Relu", bias: float = 0.0) -> Path:
    """y = op(x0 + x1 + bias), x of shape [1, 2]."""
    weight = numpy_helper.from_array(np.ones((2, 1), np.float32), "weight")
    offset = numpy_helper.from_array(np.full(1, bias, np.float32), "offset")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"], "/fc/MatMul"),
        helper.make_node("Add", ["product", "offset"], ["sum"], "/fc/Add"),
        helper.make_node(op, ["sum"], ["y"], "/act"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [weight, offset],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def property_text(unsafe: str, outputs: int = 1) -> str:
    """VNN-LIB 1.0: 0 <= x_i <= 1 and the unsafe outputs."""
    names = ["X_0", "X_1", *(f"Y_{index}" for index in range(outputs))]
    declared = "\n".join(f"(declare-const {name} Real)" for name in names)
    box = "\n".join(f"(assert (>= X_{i} 0.0))\n(assert (<= X_{i} 1.0))" for i in range(2))
    return f"{declared}\n{box}\n{unsafe}\n"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, which is also the working directory."""
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "model.onnx")
    (tmp_path / "holds.vnnlib").write_text(property_text(HOLDS))
    (tmp_path / "violated.vnnlib").write_text(property_text(VIOLATED))
    return tmp_path
