"""Every bad model gives one clear error: code, sentence, the user's own node, notes, help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from graphs import GraphError, UnsupportedError
from graphs.onnx import load
from tests.graphs.models import model, one_node

FLOAT = onnx.TensorProto.FLOAT


def message(source: Any, kind: type[GraphError] = GraphError) -> str:
    with pytest.raises(kind) as caught:
        load(source, name="" if isinstance(source, Path) else "model.onnx")
    return str(caught.value)


def unsupported(proto: onnx.ModelProto) -> str:
    return message(proto.SerializeToString(), UnsupportedError)


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    assert message(path) == f"error[G101]: there is no such model file\n  --> {path}\n  help: check the path"


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    assert message(tmp_path) == f"error[G101]: the model file cannot be read: Is a directory\n  --> {tmp_path}"


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    expected = "error[G102]: the model file is empty\n  --> {}\n  help: export or download the model again"
    assert message(path) == expected.format(path)


def test_truncated_file(tmp_path: Path) -> None:
    data = one_node("Gemm", {}, [(1, 3), np.ones((3, 200), np.float32)], 13).SerializeToString()
    path = tmp_path / "half.onnx"
    path.write_bytes(data[: len(data) // 2])
    assert message(path) == (
        f"error[G102]: the file is not an ONNX model, or it is truncated\n  --> {path}\n"
        f"  note: it has {len(data) // 2} bytes\n  help: export or download the model again"
    )


@pytest.mark.parametrize("data", [b"hello, world", b"\x08\x07", b"(assert true)", bytes(100)])
def test_other_files(data: bytes) -> None:
    assert message(data) == (
        "error[G102]: the file is not an ONNX model, or it is truncated\n  --> model.onnx\n"
        f"  note: it has {len(data)} bytes\n  help: export or download the model again"
    )


def test_git_lfs_pointer() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1052\n"
    assert message(pointer) == (
        "error[G103]: this is a git-lfs pointer, not a model\n  --> model.onnx\n"
        "  note: oid sha256:0123\n  note: size 1052\n  help: fetch the real file with `git lfs pull`"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    weight = np.ones((3, 2), np.float32)
    weight[1, 1] = value
    where = "initializer 'x1'" if np.isnan(value) else "node 'the_node' (Gemm, opset 13)"
    assert message(one_node("Gemm", {}, [(1, 3), weight], 13).SerializeToString()) == (
        f"error[G104]: tensor 'x1' holds NaN or infinite numbers\n  --> model.onnx, {where}\n"
        "  note: 1 of its 6 numbers, shape [3, 2]\n"
        "  help: train or export the model again; no bound exists for such weights"
    )


def test_division_by_a_constant_zero() -> None:
    proto = one_node("Div", {}, [(1, 3), np.zeros(3, np.float32)], 13)
    assert "error[G104]: tensor 'the_node' holds NaN or infinite numbers" in message(proto.SerializeToString())


def external(path: Path, data: bytes | None, length: int = 24) -> None:
    proto = one_node("Gemm", {}, [(1, 3), np.ones((3, 2), np.float32)], 13)
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", "offset": "8", "length": str(length)}.items():
        weight.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
    if data is not None:
        (path.parent / "w.bin").write_bytes(data)


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    external(path, bytes(8) + np.arange(6, dtype=np.float32).tobytes())
    graph = load(path)
    assert graph.params(graph["y0"])["weight"].T.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_external_data_missing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    external(path, None)
    assert message(path) == (
        f"error[G105]: the external data of tensor 'x1' is missing\n  --> {path}, initializer 'x1'\n"
        "  note: the model stores it in 'w.bin', beside the model file\n"
        "  help: put 'w.bin' next to the model, or save the model in one file"
    )


def test_external_data_truncated(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    external(path, bytes(20))
    assert message(path) == (
        f"error[G105]: the external data of tensor 'x1' is truncated\n  --> {path}, initializer 'x1'\n"
        "  note: 'w.bin' has 12 of 24 bytes from position 8\n  help: copy 'w.bin' again"
    )


def test_external_data_outside_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(32))
    path = tmp_path / "sub" / "m.onnx"
    path.parent.mkdir()
    external(path, None)
    proto = onnx.ModelProto.FromString(path.read_bytes())
    proto.graph.initializer[0].external_data[0].value = "../w.bin"
    path.write_bytes(proto.SerializeToString())
    assert "error[G105]: the external data of tensor 'x1' is missing" in message(path)


def test_old_opset() -> None:
    assert unsupported(one_node("Relu", {}, [(2,)], 6)) == (
        "error[G201]: opset 6 is too old\n  --> model.onnx\n  note: opsets from 7 on are supported\n"
        "  help: convert it with onnx.version_converter, or export the model again"
    )


@pytest.mark.parametrize("op", ["If", "Loop", "Scan"])
def test_control_flow(op: str) -> None:
    assert unsupported(one_node(op, {}, [(2,)], 13)) == (
        f"error[G202]: control-flow operator {op} is not supported\n"
        f"  --> model.onnx, node 'the_node' ({op}, opset 13)\n"
        "  help: export the model with the branch taken, or the loop unrolled"
    )


EXPORT = (
    "export it again with standard operators: torch.onnx.export(model, x, 'model.onnx', opset_version=17); "
    "or add a converter (docs/add-an-op.md)"
)


def test_unknown_operator() -> None:
    assert unsupported(one_node("Wavelet", {}, [(2,)], 13)) == (
        "error[G203]: no converter for operator 'Wavelet'\n  --> model.onnx, node 'the_node' (Wavelet, opset 13)\n"
        f"  help: {EXPORT}"
    )


def test_operator_of_another_domain() -> None:
    proto = one_node("Relu", {}, [(2,)], 13)
    proto.graph.node[0].domain = "com.example"
    proto.graph.node[0].name = ""
    assert unsupported(proto) == (
        "error[G203]: no converter for operator 'com.example.Relu'\n  --> model.onnx, node 'y0' (Relu, opset 13)\n"
        "  note: 'com.example' is not a domain of ONNX: a runtime or a library added the operator\n"
        f"  help: {EXPORT}"
    )


def test_misspelt_operator() -> None:
    assert "\n  note: operators with similar names: Softmax, " in unsupported(one_node("SoftMaxx", {}, [(2,)], 13))


def test_operator_newer_than_the_opset() -> None:
    assert "\n  note: it is known from opset 20 on\n" in unsupported(one_node("Gelu", {}, [(2,)], 17))


def test_dynamic_inner_dimension() -> None:
    assert unsupported(model([], {"x": ("batch", 3, "width")}, ["x"])) == (
        "error[G204]: the input has a dynamic inner dimension\n  --> model.onnx, input 'x'\n"
        "  note: shape [batch, 3, width]; only the first dimension, the batch, may be symbolic\n"
        "  help: export the model with fixed inner dimensions"
    )


def test_shape_that_depends_on_data() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["s"], to=onnx.TensorProto.INT64),
        helper.make_node("Reshape", ["x", "s"], ["y"], name="reshape_1"),
    ]
    assert unsupported(model(nodes, {"x": (2,)}, ["y"])) == (
        "error[G204]: the shape of Reshape depends on the network's input\n"
        "  --> model.onnx, node 'reshape_1' (Reshape, opset 17)\n"
        "  note: value 's' is computed from an input; shapes and structure must be constants\n"
        "  help: export the model with fixed shapes (only the first axis, the batch, may be symbolic)"
    )


def test_slice_of_a_variable_at_a_computed_place() -> None:
    nodes = [
        helper.make_node("Cast", ["i"], ["s"], to=onnx.TensorProto.INT64),
        helper.make_node("Add", ["s", "one"], ["e"]),
        helper.make_node("Slice", ["x", "s", "e"], ["y"]),
    ]
    proto = model(nodes, {"x": (5,), "i": (1,)}, ["y"], {"one": np.array([1])})
    assert "error[G204]: the start of Slice depends on the network's input" in unsupported(proto)


def test_unsupported_attribute() -> None:
    proto = one_node("Shrink", {"bias": 0.5, "lambd": 1.5}, [(2,)], 13)
    assert unsupported(proto) == (
        "error[G205]: Shrink is supported only with bias = lambd\n"
        "  --> model.onnx, node 'the_node' (Shrink, opset 13)\n  note: bias 0.5, lambd 1.5"
    )


def test_integers_that_wrap_around() -> None:
    proto = one_node("Add", {}, [(2,), np.ones(2, np.uint8)], 14)
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    assert "error[G205]: arithmetic on uint8 may wrap around\n" in unsupported(proto)
    assert "error[G205]: a float is cast to int8, whose range is not modelled" in unsupported(
        one_node("Cast", {"to": onnx.TensorProto.INT8}, [(2,)], 13)
    )


def test_unsupported_output() -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["y", "where"], name="pool", kernel_shape=[2]),
        helper.make_node("Cast", ["where"], ["z"], to=FLOAT),
    ]
    assert unsupported(model(nodes, {"x": (1, 1, 4)}, ["z"])) == (
        "error[G205]: output 'where' of operator MaxPool is not supported\n"
        "  --> model.onnx, node 'pool' (MaxPool, opset 17)\n  note: input 'x' has shape [1, 1, 4]"
    )


@pytest.mark.parametrize(("code", "name"), [(8, "string"), (14, "complex64"), (17, "float8e4m3fn")])
def test_unsupported_element_type(code: int, name: str) -> None:
    proto = model([helper.make_node("Identity", ["x"], ["y"])], {"x": (2,)}, ["y"])
    proto.graph.input[0].type.tensor_type.elem_type = code
    assert unsupported(proto) == (
        f"error[G206]: element type {name} is not supported\n  --> model.onnx, input 'x'\n"
        "  help: export the model with float32 or float64 values"
    )


def test_quantized() -> None:
    inputs = [(2,), np.float32(0.5), np.uint8(0)]
    assert unsupported(one_node("QuantizeLinear", {}, inputs, 13)) == (
        "error[G207]: quantized operator QuantizeLinear is not supported\n"
        "  --> model.onnx, node 'the_node' (QuantizeLinear, opset 13)\n"
        "  help: verify the float model that was quantized"
    )


def test_shapes_that_do_not_fit() -> None:
    proto = one_node("Add", {}, [(2, 3), np.ones((2, 4), np.float32)], 13)
    assert message(proto.SerializeToString()).startswith(
        "error[G106]: operator Add cannot be computed\n  --> model.onnx, node 'the_node' (Add, opset 13)\n"
        "  note: input 'x0' has shape [2, 3]\n  note: input 'x1' has shape [2, 4]\n  note: The size of tensor"
    )


def test_value_used_before_it_is_computed() -> None:
    nodes = [helper.make_node("Relu", ["h"], ["y"], name="act"), helper.make_node("Neg", ["x"], ["h"])]
    assert message(model(nodes, {"x": (2,)}, ["y"]).SerializeToString()) == (
        "error[G106]: value 'h' is used before it is computed\n  --> model.onnx, node 'act' (Relu, opset 17)\n"
        "  help: export the model again"
    )


def test_value_computed_twice() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"], name="again")]
    assert message(model(nodes, {"x": (2,)}, ["y"]).SerializeToString()) == (
        "error[G106]: value 'y' is computed twice\n  --> model.onnx, node 'again' (Neg, opset 17)\n"
        "  note: input 'x' has shape [2]\n  help: export the model again"
    )


def test_output_that_does_not_exist() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    assert message(model(nodes, {"x": (2,)}, ["z"]).SerializeToString()) == (
        "error[G106]: there is no value 'z'\n  --> model.onnx\n  help: export the model again"
    )


def test_model_without_input() -> None:
    nodes = [helper.make_node("Relu", ["c"], ["y"])]
    assert "error[G106]: the model has no input" in message(
        model(nodes, {}, ["y"], {"c": np.ones(2, np.float32)}).SerializeToString()
    )


def test_tensor_with_too_few_numbers() -> None:
    proto = one_node("Add", {}, [(4,), np.ones(4, np.float32)], 13)
    proto.graph.initializer[0].dims[0] = 5
    assert message(proto.SerializeToString()) == (
        "error[G106]: tensor 'x1' has 4 numbers but its shape needs 5\n  --> model.onnx, initializer 'x1'\n"
        "  note: shape [5]\n  help: the file is damaged: export the model again"
    )


def test_unknown_hidden_value() -> None:
    proto = one_node("Relu", {}, [(2,)], 13)
    with pytest.raises(GraphError, match="there is no value 'hidden'"):
        load(proto.SerializeToString(), keep=["hidden"])


def masked(*nodes: onnx.NodeProto, mask: np.ndarray) -> bytes:
    add = helper.make_node("Add", ["x", "m"], ["a"], name="mask")
    return model([add, *nodes], {"x": (1, 2)}, ["y"], {"m": mask}, 17).SerializeToString()


def test_a_mask_before_something_else_than_softmax() -> None:
    relu = helper.make_node("Relu", ["a"], ["y"], name="act")
    assert message(masked(relu, mask=np.array([[0, -np.inf]], np.float32))) == (
        "error[G104]: value 'a' is -inf where a mask leaves entries out\n"
        "  --> model.onnx, node 'act' (Relu, opset 17)\n  note: 1 of its 2 entries; Softmax alone can read them\n"
        "  help: apply the mask right before the Softmax, or export it with a large negative number"
    )


def test_a_mask_that_keeps_nothing() -> None:
    softmax = helper.make_node("Softmax", ["a"], ["y"], name="attention")
    found = message(masked(softmax, mask=np.full((1, 2), -np.inf, np.float32)))
    assert found.startswith("error[G106]: a mask leaves out every entry of a row, whose Softmax is NaN")


def test_is_nan_of_something_else_than_a_softmax() -> None:
    found = unsupported(one_node("IsNaN", {}, [(1, 2)], 17))
    assert found.startswith("error[G205]: IsNaN can be read behind a Softmax only")


def gate(*after: onnx.NodeProto) -> onnx.ModelProto:
    top = helper.make_node("TopK", ["x", "k"], ["values", "places"], name="top", axis=1)
    constants = {"k": np.array([2]), "zeros": np.zeros((1, 4), np.float32), "ones": np.ones((1, 4), np.float32)}
    return model([top, *after], {"x": (1, 4)}, ["y"], constants, 17)


def test_places_of_a_top_k_are_read_by_a_gate_alone() -> None:
    cast = helper.make_node("Cast", ["places"], ["y"], name="cast", to=FLOAT)
    assert unsupported(gate(cast)) == (
        "error[G205]: places of the 2 largest entries of a variable are not supported here\n"
        "  --> model.onnx, node 'cast' (Cast, opset 17)\n"
        "  note: TopK is supported with k = 1, for its values, and as a gate (verif.nn.TopKGate)"
    )
    softmax = helper.make_node("Softmax", ["values"], ["p"], axis=1)
    sentence = "error[G205]: places of a TopK are read only where the Softmax of its values is written among zeros"
    for base, written in (("ones", "p"), ("zeros", "values")):
        scatter = helper.make_node("ScatterElements", [base, "places", written], ["y"], axis=1)
        assert unsupported(gate(softmax, scatter)).startswith(sentence)
