"""Models that the checker could take for others than what onnxruntime runs: refused, or read alike."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.verif.proving import Array
from verif.checker import Refused, exact, model
from verif.checker.wire import message

POINT = np.array([0.5, -2.0, 3.0])


def built(nodes: list[onnx.NodeProto], **constants: Array) -> onnx.ModelProto:
    """From x (1, 3) to y."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def op(name: str, given: str, out: str = "y", **attributes: object) -> onnx.NodeProto:
    """A node; `given` are names, one letter each."""
    return helper.make_node(name, [*given], [*out], **attributes)


def graphs_merged() -> bytes:
    """The model's graph in two pieces, which protocol buffers merge: -relu(x), of which the last piece is -x."""
    whole = built([op("Relu", "x", "r"), op("Neg", "r")])
    first, last = onnx.ModelProto(), onnx.ModelProto()
    last.CopyFrom(whole)
    first.graph.node.append(whole.graph.node[0])
    del last.graph.node[0]
    last.graph.node[0].input[0] = "x"
    assert message(last.SerializeToString())
    return first.SerializeToString() + last.SerializeToString()


def axes_of_no_entries() -> bytes:
    """Sums along no axes of an attribute are sums along all; not along the first."""
    node = op("ReduceMean", "x", keepdims=0)
    node.attribute.append(AttributeProto(name="axes", type=AttributeProto.INTS))
    return built([node]).SerializeToString()


def powers_that_repeat() -> bytes:
    """Squares of one number, three times."""
    nodes = [op("ReduceMean", "x", "m", axes=[1]), op("Pow", "mp", "q"), op("ReduceSum", "qa")]
    return built(nodes, p=np.full(3, 2, np.float32), a=np.array([1])).SerializeToString()


def integers_that_wrap() -> bytes:
    """2^32 + 1 as a 32-bit integer is 1."""
    nodes = [op("Cast", "n", "s", to=TensorProto.INT32), op("Gather", "xs", axis=1)]
    return built(nodes, n=np.array([2**32 + 1])).SerializeToString()


def an_op_of_the_models_own() -> bytes:
    """A function that the model calls Relu."""
    found = built([op("Relu", "x")])
    body = helper.make_function("", "Relu", ["a"], ["b"], [op("Neg", "a", "b")], [helper.make_opsetid("", 17)])
    found.functions.append(body)
    return found.SerializeToString()


def names_that_are_there_twice() -> bytes:
    """Two values of one name."""
    return built([op("Relu", "x", "r"), op("Neg", "x", "r"), op("Neg", "r")]).SerializeToString()


def attributes_that_are_there_twice() -> bytes:
    """Two slopes of a leaky ReLU."""
    node = op("LeakyRelu", "x", alpha=0.5)
    node.attribute.append(helper.make_attribute("alpha", 0.25))
    return built([node]).SerializeToString()


CASES: dict[Callable[[], bytes], str] = {
    graphs_merged: "twice",
    axes_of_no_entries: "axes given",
    powers_that_repeat: "no more than numbers",
    integers_that_wrap: "",
    an_op_of_the_models_own: "own",
    names_that_are_there_twice: "two values",
    attributes_that_are_there_twice: "two attributes",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_read_alike_or_refused(case: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(case())
    if CASES[case]:
        with pytest.raises(Refused, match=CASES[case]):
            model.read(path)
        return
    found = exact.evaluate(model.read(path), [Fraction(x) for x in POINT.tolist()])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ran = session.run(None, {"x": POINT.astype(np.float32)[None]})[0]
    assert np.allclose([float(value) for value in found], ran.ravel())


def test_what_onnxruntime_makes_of_merged_graphs(tmp_path: Path) -> None:
    """The attack is real: it runs both pieces."""
    path = tmp_path / "net.onnx"
    path.write_bytes(graphs_merged())
    merged = onnx.load(path).graph
    assert [node.op_type for node in merged.node] == ["Relu", "Neg"]
