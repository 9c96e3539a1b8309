"""Every converter against onnxruntime: as a node on variables, and folded on constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from graphs.onnx import load
from tests.graphs.models import TYPES, assert_agrees, evaluate, model, one_node, runtime, samples

RNG = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X = (1, 3, 6, 5)
POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2]},
    {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]},
    {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 0, 0, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "VALID"},
    {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
]
ROWS: list[tuple[str, dict[str, Any], list[Any], int]] = [
    *[(op, {}, [(2, 3)], 17) for op in ("Relu", "Sigmoid", "Tanh", "Exp", "Abs", "Neg", "Sign", "Floor", "Ceil")],
    *[
        (op, {}, [(2, 3)], 17)
        for op in ("Round", "Sin", "Cos", "Tan", "Atan", "Erf", "Softplus", "Softsign", "Identity", "Sinh", "Cosh")
    ],
    *[(op, {}, [(2, 3)], 18) for op in ("HardSwish", "Mish")],
    ("Clip", {"min": -0.5, "max": 0.5}, [(2, 3)], 8),
    ("Clip", {}, [(2, 3)], 10),
    ("Clip", {}, [(2, 3), np.float32(-0.5), np.float32(0.25)], 13),
    ("Clip", {}, [(2, 3), None, np.float32(0.25)], 13),
    ("Clip", {}, [(2, 3), np.float32(-np.inf), np.float32(0.25)], 13),
    ("LeakyRelu", {"alpha": 0.2}, [(2, 3)], 9),
    ("LeakyRelu", {}, [(2, 3)], 16),
    ("PRelu", {}, [(1, 3, 4), f(3, 1)], 9),
    ("PRelu", {}, [(1, 3, 4), (3, 1)], 16),
    ("ThresholdedRelu", {"alpha": 0.3}, [(2, 3)], 10),
    ("Elu", {"alpha": 0.7}, [(2, 3)], 9),
    ("Celu", {"alpha": 0.7}, [(2, 3)], 12),
    ("Selu", {}, [(2, 3)], 9),
    ("HardSigmoid", {"alpha": 0.3}, [(2, 3)], 9),
    ("Shrink", {"bias": 0.4, "lambd": 0.4}, [(2, 3)], 9),
    ("Gelu", {}, [(2, 3)], 20),
    ("Gelu", {"approximate": "tanh"}, [(2, 3)], 20),
    ("Cast", {"to": 1}, [(2, 3)], 13),
    ("Cast", {"to": 7}, [(2, 3)], 13),
    ("Cast", {"to": 11}, [(2, 3)], 9),
    ("Dropout", {}, [(2, 3)], 7),
    ("Dropout", {}, [(2, 3), np.float32(0.4)], 13),
    *[(op, {}, [(2, 3), (3,)], 14) for op in ("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean")],
    *[(op, {}, [(2, 1, 3), f(4, 3)], 7) for op in ("Add", "Sub", "Mul", "Div")],
    *[(op, {}, [f(2, 3), (4, 2, 1)], 14) for op in ("Add", "Sub", "Mul", "Max", "Min")],
    *[(op, {}, [(3,), f(2, 3)], 14) for op in ("Add", "Sub", "Mul", "Max", "Min")],
    ("Max", {}, [(2, 3), np.float32(0.25)], 13),
    ("Max", {}, [(2, 3), np.float32(0), (1, 3)], 13),
    ("Min", {}, [(2, 3), np.full((4, 1, 1), 0.25, np.float32)], 13),
    ("Pow", {}, [(2, 3), np.float32(2)], 13),
    ("Pow", {}, [(2, 3), np.float32(3)], 13),
    ("Pow", {}, [(2, 3), np.full((4, 1, 1), 1, np.float32)], 13),
    ("Pow", {}, [np.float32(1.5), (2, 3)], 13),
    ("Pow", {}, [(2, 3), ints(2)], 13),
    ("Mod", {"fmod": 1}, [(2, 3), np.float32(0.7)], 13),
    ("CumSum", {}, [(2, 3), np.int64(1)], 14),
    ("CumSum", {"reverse": 1}, [(2, 3), np.int64(-2)], 14),
    ("CumSum", {"exclusive": 1, "reverse": 1}, [(2, 3), np.int64(1)], 14),
    *[(op, {}, [(2, 3), f(1, 3)], 16) for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")],
    ("MatMul", {}, [(2, 3), f(3, 4)], 9),
    ("MatMul", {}, [f(2, 3), (3, 4)], 13),
    ("MatMul", {}, [(2, 3), (3, 4)], 13),
    ("MatMul", {}, [(3,), f(3, 4)], 13),
    ("MatMul", {}, [(3,), (3, 4)], 13),
    ("MatMul", {}, [(3,), (3,)], 13),
    ("MatMul", {}, [(2, 3), f(3)], 13),
    ("MatMul", {}, [f(4, 3), (3,)], 13),
    ("MatMul", {}, [(5, 2, 3), f(3, 4)], 13),
    ("MatMul", {}, [(2, 3), f(5, 3, 4)], 13),
    ("MatMul", {}, [f(5, 2, 3), (3, 4)], 13),
    ("MatMul", {}, [(5, 1, 2, 3), (6, 3, 4)], 13),
    ("MatMul", {}, [f(5, 2, 3), (3,)], 13),
    ("Gemm", {}, [(1, 3), f(3, 4), f(4)], 7),
    ("Gemm", {"transB": 1, "alpha": 0.5, "beta": 2.0}, [(1, 3), f(4, 3), f(1, 4)], 9),
    ("Gemm", {"transA": 1}, [(3, 2), f(3, 4)], 11),
    ("Gemm", {"transB": 1, "beta": 0.5}, [f(2, 3), (4, 3), (2, 1)], 13),
    ("Gemm", {"alpha": 0.5}, [(2, 3), (3, 4), np.float32(1)], 13),
    ("Einsum", {"equation": "bij,bjk->bik"}, [(2, 3, 4), (2, 4, 5)], 12),
    ("Einsum", {"equation": "bij,jk->bik"}, [(2, 3, 4), f(4, 5)], 12),
    ("Einsum", {"equation": "bhqd,bhkd->bhqk"}, [(1, 2, 3, 4), (1, 2, 5, 4)], 12),
    ("Einsum", {"equation": "ij->ji"}, [(2, 3)], 12),
    ("Einsum", {"equation": "ij->i"}, [(2, 3)], 12),
    ("Einsum", {"equation": "i,j->ij"}, [(2,), (3,)], 12),
    ("Einsum", {"equation": "...ij,...jk"}, [(2, 3, 4), (2, 4, 5)], 12),
    ("Conv", {}, [X, f(4, 3, 3, 3), f(4)], 8),
    ("Conv", {"pads": [1, 0, 1, 0], "strides": [2, 1]}, [X, f(4, 3, 3, 3)], 11),
    ("Conv", {"pads": [1, 0, 2, 1], "dilations": [2, 1]}, [X, f(4, 3, 3, 2), f(4)], 11),
    ("Conv", {"group": 3, "auto_pad": "SAME_UPPER", "strides": [2, 2]}, [X, f(6, 1, 3, 2)], 11),
    ("Conv", {"auto_pad": "SAME_LOWER"}, [X, f(2, 3, 2, 2), f(2)], 11),
    ("Conv", {"auto_pad": "VALID"}, [X, f(2, 3, 2, 2), (2,)], 11),
    ("Conv", {"pads": [2, 0]}, [(1, 3, 7), f(4, 3, 3), f(4)], 11),
    ("Conv", {}, [(2, 1, 3, 3, 3), f(2, 1, 2, 2, 2)], 11),
    ("ConvTranspose", {}, [X, f(3, 2, 3, 3), f(2)], 9),
    (
        "ConvTranspose",
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        [X, f(3, 2, 3, 3), f(2)],
        11,
    ),
    ("ConvTranspose", {"strides": [2, 3], "pads": [0, 1, 1, 0], "dilations": [2, 1]}, [X, f(3, 2, 3, 3), f(2)], 11),
    ("ConvTranspose", {"group": 3, "strides": [2, 2]}, [X, f(3, 2, 3, 3), f(6)], 11),
    ("ConvTranspose", {"output_shape": [11, 10], "strides": [2, 2]}, [X, f(3, 2, 2, 3)], 11),
    ("ConvTranspose", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [X, f(3, 2, 3, 3)], 11),
    *[(op, attrs, [X], 11) for attrs in POOLS for op in ("MaxPool", "AveragePool")],
    *[("AveragePool", {**attrs, "count_include_pad": 1}, [X], 19) for attrs in POOLS[:6]],
    ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, [X], 19),
    ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2], "pads": [1, 1, 1, 1]}, [X], 12),
    ("MaxPool", {"kernel_shape": [3], "strides": [2]}, [(1, 2, 8)], 8),
    ("GlobalAveragePool", {}, [X], 9),
    ("GlobalMaxPool", {}, [X], 9),
    ("BatchNormalization", {"epsilon": 1e-3}, [X, f(3), f(3), f(3), abs(f(3))], 9),
    ("BatchNormalization", {}, [(1, 4), f(4), f(4), f(4), abs(f(4))], 15),
    ("InstanceNormalization", {}, [X, f(3), f(3)], 9),
    ("GroupNormalization", {"num_groups": 2}, [(1, 4, 3, 2), f(4), f(4)], 21),
    ("LayerNormalization", {}, [(2, 3, 4), f(4), f(4)], 17),
    ("LayerNormalization", {"axis": 1, "epsilon": 1e-3}, [(2, 3, 4), f(3, 4)], 17),
    ("LpNormalization", {"axis": 1}, [(2, 3)], 11),
    ("LpNormalization", {"axis": 1, "p": 1}, [(2, 3)], 11),
    *[(op, {}, [(2, 3, 4)], opset) for op in ("Softmax", "LogSoftmax") for opset in (9, 13)],
    *[(op, {"axis": 2}, [(2, 3, 4)], opset) for op in ("Softmax", "LogSoftmax") for opset in (9, 13)],
    ("Softmax", {"axis": -1}, [(2, 3, 4)], 11),
    *[
        (f"Reduce{kind}", {"axes": [1], "keepdims": keep}, [(2, 3, 4)], 11)
        for kind in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp")
        for keep in (0, 1)
    ],
    ("ReduceSum", {}, [(2, 3)], 11),
    ("ReduceSum", {"keepdims": 0}, [(2, 3, 4), ints(-1, 0)], 13),
    ("ReduceSum", {"noop_with_empty_axes": 1}, [(2, 3)], 13),
    ("ReduceMean", {}, [(2, 3, 4), ints(1)], 18),
    ("ReduceMax", {"keepdims": 0}, [(2, 3, 4)], 18),
    ("ReduceProd", {"axes": [0], "keepdims": 1}, [(7, 2)], 11),
    *[(op, {"axis": 1, "keepdims": k}, [(2, 4)], 13) for op in ("ArgMax", "ArgMin") for k in (0, 1)],
    ("Shape", {}, [(2, 3)], 13),
    ("Shape", {"start": 1}, [(2, 3)], 15),
    ("Size", {}, [(2, 3)], 13),
    ("Reshape", {}, [(2, 6), ints(0, 2, -1)], 9),
    ("Reshape", {}, [(2, 6), ints(-1)], 14),
    ("Flatten", {}, [(2, 3, 4)], 9),
    ("Flatten", {"axis": 0}, [(2, 3, 4)], 9),
    ("Flatten", {"axis": -1}, [(2, 3, 4)], 13),
    ("Transpose", {}, [(2, 3, 4)], 9),
    ("Transpose", {"perm": [0, 2, 1]}, [(2, 3, 4)], 13),
    ("Squeeze", {}, [(1, 3, 1)], 9),
    ("Squeeze", {"axes": [0]}, [(1, 3, 1)], 11),
    ("Squeeze", {}, [(1, 3, 1), ints(-1)], 13),
    ("Unsqueeze", {"axes": [0, 3]}, [(2, 3)], 11),
    ("Unsqueeze", {}, [(2, 3), ints(-1, 0)], 13),
    ("Expand", {}, [(3, 1), ints(2, 1, 4)], 13),
    ("Tile", {}, [(2, 3), ints(2, 1)], 13),
    ("DepthToSpace", {"blocksize": 2}, [(1, 8, 2, 3)], 13),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, [(1, 8, 2, 3)], 13),
    ("SpaceToDepth", {"blocksize": 2}, [(1, 2, 4, 6)], 13),
    ("Trilu", {"upper": 0}, [(3, 3)], 14),
    ("Trilu", {}, [(3, 4), np.int64(1)], 14),
    ("Concat", {"axis": 1}, [(2, 3), (2, 1)], 11),
    ("Concat", {"axis": -1}, [(2, 3), f(2, 2), (2, 1), f(2, 1)], 13),
    ("Slice", {"starts": [1], "ends": [100], "axes": [1]}, [(2, 5)], 9),
    ("Slice", {}, [(4, 5), ints(0, -3), ints(2, 2**31 - 1)], 11),
    ("Slice", {}, [(4, 5), ints(-1, 1), ints(-5, 5), ints(0, 1), ints(-2, 2)], 13),
    ("Gather", {"axis": 1}, [(2, 5), ints(-1, 0, 3)], 11),
    ("Gather", {"axis": 1}, [(2, 5), np.int64(2)], 13),
    ("Gather", {}, [(5, 2), np.array([[0, 1], [4, 4]])], 13),
    ("GatherElements", {"axis": 1}, [(2, 3), np.array([[0, -1], [2, 0]])], 13),
    ("GatherND", {}, [(2, 3, 4), np.array([[0, 1], [1, -1]])], 13),
    ("GatherND", {"batch_dims": 1}, [(2, 3, 4), np.array([[1], [2]])], 13),
    ("Compress", {"axis": 1}, [(2, 3), np.array([True, False, True])], 11),
    ("ScatterND", {}, [(4, 3), np.array([[2], [0]]), (2, 3)], 16),
    ("ScatterND", {}, [(4, 3), np.array([[2, 1], [0, 0]]), f(2)], 11),
    ("ScatterND", {}, [f(2, 2), np.array([[1], [0]]), (2, 2)], 11),
    ("ScatterElements", {"axis": 1}, [(2, 3), np.array([[1], [0]]), (2, 1)], 16),
    ("Scatter", {"axis": 0}, [(2, 3), np.array([[1, 0, 1]]), f(1, 3)], 9),
    ("Pad", {"pads": [0, 1, 0, 2], "value": 0.5}, [(2, 3)], 9),
    ("Pad", {}, [(2, 3), ints(1, 0, 0, -1)], 13),
    ("Pad", {}, [(2, 3), ints(1, 2), np.float32(0.5), ints(-1)], 18),
    ("Pad", {"mode": "reflect"}, [(2, 5), ints(1, 2, 0, 1)], 13),
    ("Pad", {"mode": "edge"}, [(2, 5), ints(1, 2, 0, 1)], 13),
    ("Pad", {"mode": "wrap"}, [(2, 5), ints(1, 2, 0, 1)], 19),
    ("Upsample", {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "nearest"}, [X], 8),
    ("Upsample", {"mode": "nearest"}, [X, np.array([1, 1, 2, 3], np.float32)], 9),
    ("Upsample", {"mode": "linear"}, [X, np.array([1, 1, 2, 3], np.float32)], 9),
    ("Resize", {"mode": "nearest"}, [X, np.array([1, 1, 1.5, 0.6], np.float32)], 10),
    ("Resize", {}, [X, None, np.array([1, 1, 2, 2], np.float32)], 13),
    *[
        (
            "Resize",
            {"mode": mode, "coordinate_transformation_mode": how},
            [X, None, None, ints(1, 3, 9, 4)],
            19,
        )
        for mode in ("nearest", "linear", "cubic")
        for how in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
    ],
    *[
        ("Resize", {"nearest_mode": mode}, [X, None, np.array([1, 1, 1.5, 0.5], np.float32)], 13)
        for mode in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ],
    ("Resize", {"mode": "cubic", "exclude_outside": 1}, [X, None, np.array([1, 1, 2, 1.5], np.float32)], 13),
    ("OneHot", {}, [ints(0, 2, -1), np.int64(3), f(2)], 11),
    ("Where", {}, [np.array([[True], [False]]), (2, 3), (1, 3)], 9),
    ("Where", {}, [np.array([[True], [False]]), (1, 3), np.float32(0.5)], 16),
    ("Where", {}, [np.array([True, False, True]), np.float32(0.5), (2, 1)], 16),
]
POSITIVE: list[tuple[str, dict[str, Any], list[Any], int]] = [
    *[(op, {}, [(2, 3)], 13) for op in ("Log", "Sqrt", "Reciprocal")],
    ("Div", {}, [(2, 3), (2, 1)], 14),
    ("Div", {}, [np.float32(2), (2, 1)], 14),
    ("Pow", {}, [(2, 3), np.float32(0.5)], 13),
    ("Pow", {}, [(2, 3), np.float32(-1)], 13),
    ("Pow", {}, [(2, 3), np.float32(1.7)], 13),
    ("ReduceLogSum", {"axes": [1]}, [(2, 3)], 13),
]


@pytest.mark.parametrize("op", ["Acos", "Asin", "Atanh"])
def test_functions_of_a_bounded_number(op: str) -> None:
    nodes = [helper.make_node("Tanh", ["x"], ["t"]), helper.make_node(op, ["t"], ["y"])]
    assert_agrees(model(nodes, {"x": (2, 3)}, ["y"], {}, 17))


def label(row: tuple[Any, ...]) -> str:
    op, attrs, inputs, opset = row
    shapes = ",".join("-" if v is None else str(tuple(v) if isinstance(v, tuple) else v.shape) for v in inputs)
    return f"{op}-{opset}-{shapes}-{','.join(f'{k}={v}' for k, v in attrs.items())}".replace(" ", "")


ALL = [(row, -2.0) for row in ROWS] + [(row, 0.1) for row in POSITIVE]


@pytest.mark.parametrize(("row", "low"), ALL, ids=[label(row) for row, _ in ALL])
def test_agrees_with_onnxruntime(row: tuple[Any, ...], low: float) -> None:
    op, attrs, inputs, opset = row
    if any(isinstance(v, tuple) for v in inputs):
        assert_agrees(one_node(op, attrs, inputs, opset), low=low)


@pytest.mark.parametrize(("row", "low"), ALL, ids=[label(row) for row, _ in ALL])
def test_folds_constants(row: tuple[Any, ...], low: float) -> None:
    """The same node on constants only: it is folded, and added to (or compared with) nothing else."""
    op, attrs, inputs, opset = row
    known = [RNG.uniform(low, 2, v).astype(np.float32) if isinstance(v, tuple) else v for v in inputs]
    names = ["" if v is None else f"c{i}" for i, v in enumerate(known)]
    constants = {n: v for n, v in zip(names, known, strict=True) if n}
    nodes = [helper.make_node("Identity", ["x"], ["z"]), helper.make_node(op, names, ["y"], **attrs)]
    proto = model(nodes, {"x": (2,)}, ["z", "y"], constants, opset)
    graph = load(proto.SerializeToString())
    assert {node.op for node in graph} <= {"input", "reshape", "slice", "scale", "expand", "shift"}
    xs = samples(graph, 1)
    expected = runtime(proto, {"x": xs["x"][0]})[1]
    y = evaluate(graph, xs)[1][0]
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected.astype(np.float64), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
@pytest.mark.parametrize("constant", [False, True])
def test_logic(op: str, constant: bool) -> None:
    other = "known" if constant else "b"
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["a"]),
        helper.make_node("Less", ["x", "y"], ["b"]),
        helper.make_node(op, ["a", other], ["c"]),
        helper.make_node("Not", ["c"], ["d"]),
        helper.make_node("Where", ["d", "x", "y"], ["e"]),
        helper.make_node("Where", ["d", "one", "zero"], ["f"]),
        helper.make_node("Cast", ["d"], ["g"], to=TYPES["float32"]),
    ]
    constants = {"zero": np.float32(0), "one": f(3), "known": np.array([True, False, True])}
    assert_agrees(model(nodes, {"x": (2, 3), "y": (1, 3)}, ["e", "f", "g"], constants))


@pytest.mark.parametrize("divisor", [3, -7, 49])
def test_integers_divide_towards_zero(divisor: int) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TYPES["int64"]),
        helper.make_node("Div", ["i", "d"], ["q"]),
        helper.make_node("Div", ["a", "d"], ["known"]),
        helper.make_node("Add", ["q", "known"], ["y"]),
    ]
    constants = {"d": np.int64(divisor), "a": ints(-50, 50, 49)}
    assert_agrees(model(nodes, {"x": (200, 1)}, ["y"], constants), low=-500, high=500)


def test_split_in_all_its_forms() -> None:
    for opset, attrs, sizes in [(11, {"split": [1, 4]}, None), (13, {}, ints(2, 3)), (18, {"num_outputs": 2}, None)]:
        inputs = [(2, 5)] if sizes is None else [(2, 5), sizes]
        assert_agrees(one_node("Split", {"axis": 1, **attrs}, inputs, opset, outputs=2))


def test_top_1() -> None:
    for largest in (0, 1):
        attrs = {"axis": 1, "largest": largest}
        assert_agrees(one_node("TopK", attrs, [(2, 5), ints(1)], 11, outputs=2))


def test_top_3_values() -> None:
    for largest in (0, 1):
        top = helper.make_node("TopK", ["x", "k"], ["y", "places"], axis=1, largest=largest)
        assert_agrees(model([top], {"x": (2, 5)}, ["y"], {"k": ints(3)}))


RNNS = [
    (kind, attrs)
    for kind in ("RNN", "GRU", "LSTM")
    for attrs in ({}, {"direction": "reverse"}, {"direction": "bidirectional"})
]


@pytest.mark.parametrize(
    ("kind", "attrs"),
    [*RNNS, ("GRU", {"linear_before_reset": 1}), ("RNN", {"activations": ["Relu"]})],
    ids=str,
)
def test_recurrent_networks(kind: str, attrs: dict[str, Any]) -> None:
    gates, directions, size = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind], 1 + ("bidirectional" in attrs.values()), 3
    weights = [f(directions, gates * size, 2), f(directions, gates * size, size), f(directions, 2 * gates * size)]
    states = [f(directions, 1, size)] * (1 + (kind == "LSTM"))
    for extra in ([], [None, *states]):
        row = one_node(kind, {"hidden_size": size, **attrs}, [(4, 1, 2), *weights, *extra], 14, 2 + (kind == "LSTM"))
        assert_agrees(row)


def test_functions_of_the_model() -> None:
    inner = helper.make_function(
        "own",
        "Half",
        ["a"],
        ["b"],
        [helper.make_node("Constant", [], ["h"], value_float=0.5), helper.make_node("Mul", ["a", "h"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    leaky = helper.make_node("LeakyRelu", ["t"], ["r"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=1)
    outer = helper.make_function(
        "own",
        "HalfLeaky",
        ["a"],
        ["r"],
        [helper.make_node("Half", ["a"], ["t"], domain="own"), leaky],
        [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
        ["slope"],
    )
    nodes = [
        helper.make_node("HalfLeaky", ["x"], ["p"], domain="own", name="first", slope=0.25),
        helper.make_node("HalfLeaky", ["p"], ["y"], domain="own", slope=0.125),
    ]
    proto = model(nodes, {"x": (2, 3)}, ["y"])
    proto.functions.extend([inner, outer])
    proto.opset_import.append(helper.make_opsetid("own", 1))
    graph = assert_agrees(proto)
    assert [node.op for node in graph] == ["input", "scale", "leaky_relu", "scale", "leaky_relu"]
    assert graph["p"].origin == "first/LeakyRelu"


def test_gather_at_a_computed_place() -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["i"], axis=0, keepdims=0),
        helper.make_node("Gather", ["x", "i"], ["y"], axis=0),
        helper.make_node("Gather", ["table", "i"], ["z"], axis=1),
        helper.make_node("Unsqueeze", ["i", "zero"], ["j"]),
        helper.make_node("OneHot", ["j", "depth", "values"], ["o"]),
    ]
    constants = {"table": f(3, 5), "depth": np.int64(5), "values": f(2), "zero": ints(0)}
    assert_agrees(model(nodes, {"x": (5,)}, ["y", "z", "o"], constants))


def test_one_hot_counts_from_the_end() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TYPES["int64"]),
        helper.make_node("OneHot", ["i", "depth", "values"], ["y"], axis=0),
    ]
    assert_agrees(model(nodes, {"x": (20,)}, ["y"], {"depth": np.int64(4), "values": f(2)}), low=-4, high=4)


def test_shape_chain_folds_to_a_reshape() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n"], ["n1"], axes=[0]),
        helper.make_node("Concat", ["n1", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
        helper.make_node("ConstantOfShape", ["s"], ["ones"], value=helper.make_tensor("v", 1, [1], [1.0])),
        helper.make_node("Expand", ["ones", "s"], ["e"]),
        helper.make_node("Range", ["zero", "n", "one"], ["r"]),
        helper.make_node("Mul", ["x", "e"], ["z"]),
    ]
    constants = {"first": np.int64(0), "minus": ints(-1), "zero": np.int64(0), "one": np.int64(1)}
    proto = model(nodes, {"x": ("batch", 3, 4)}, ["y", "z"], constants, opset=11)
    graph = load(proto.SerializeToString())
    assert [node.op for node in graph] == ["input", "reshape", "scale"]  # z is x times 1, under its own name
    assert graph["y"].shape == (1, 12)


def test_initializers_may_be_listed_as_inputs() -> None:
    proto = one_node("Gemm", {}, [(1, 3), f(3, 2)], 8)
    proto.graph.input.append(helper.make_tensor_value_info("x1", TYPES["float32"], [3, 2]))
    graph = load(proto.SerializeToString())
    assert graph.inputs == ("x0",)
    assert [node.op for node in graph] == ["input", "linear"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_stored_tensors_of_every_float_type(dtype: str) -> None:
    import onnx

    code = {"float16": 10, "bfloat16": 16, "float32": 1, "float64": 11}[dtype]
    for raw in (False, True):
        if raw and dtype == "bfloat16":
            stored = helper.make_tensor("w", code, [2], np.array([0x3F80, 0xC000], np.uint16).tobytes(), raw=True)
        elif raw:
            stored = helper.make_tensor("w", code, [2], np.array([1.0, -2.0], dtype).tobytes(), raw=True)
        else:
            stored = helper.make_tensor("w", code, [2], [1.0, -2.0])
        nodes = [helper.make_node("Cast", ["w"], ["c"], to=1), helper.make_node("Mul", ["x", "c"], ["y"])]
        proto = model(nodes, {"x": (2,)}, ["y"])
        proto.graph.initializer.append(onnx.TensorProto.FromString(stored.SerializeToString()))
        y = evaluate(load(proto.SerializeToString()), {"x": np.array([[3.0, 4.0]])})[0]
        assert y.tolist() == [[3.0, -8.0]]


def test_float64_models_agree_to_1e_10() -> None:
    constants = {"w": RNG.normal(size=(4, 5)), "b": RNG.normal(size=5)}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    proto = model(nodes, {"x": ("N", 4)}, ["y"], {**constants, "w2": RNG.normal(size=(5, 2))}, dtype="float64")
    graph = assert_agrees(proto, tol=1e-10)
    assert graph["x"].attrs["dtype"] == "float64"
