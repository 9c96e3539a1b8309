"""Rewriting passes: what they find, what they leave alone, and that values and names stay the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from graphs import Graph, GraphBuilder
from graphs.check import check
from graphs.onnx import load
from graphs.passes import simplify
from graphs.passes.dead import drop_dead
from graphs.passes.merge import merge_equal
from graphs.passes.rewrite import rename
from tests.graphs.models import evaluate, model, samples

RNG = np.random.default_rng(1)
Step = tuple[str, Sequence[str], str]


def f(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def build(steps: Sequence[tuple], shape: Sequence[int], constants: dict, opset: int = 17, outputs=("y",)) -> Graph:
    """Steps (op, inputs, output, attrs): imported with and without passes, both the same function."""
    nodes = [helper.make_node(op, ins, [out], **(rest[0] if rest else {})) for op, ins, out, *rest in steps]
    data = model(nodes, {"x": shape}, outputs, constants, opset).SerializeToString()
    plain, graph = load(data, simplified=False), load(data)
    check(plain)
    check(graph)
    xs = samples(plain, 7, -3, 3)
    for a, b in zip(evaluate(plain, xs), evaluate(graph, xs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    assert graph.outputs == tuple(outputs)
    return graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph if node.op != "input"]


C = {
    "half": np.float32(0.5),
    "one": np.float32(1),
    "two": np.float32(2),
    "three": np.float32(3),
    "six": np.float32(6),
    "zero": np.float32(0),
    "root2": np.float32(np.sqrt(2)),
    "cubic": np.float32(0.044715),
    "pi": np.float32(np.sqrt(2 / np.pi)),
    "eps": np.float32(1e-5),
    "quick": np.float32(1.702),
    "tiny": np.float32(1e-13),
}
GELU = [("Div", ["x", "root2"], "a"), ("Erf", ["a"], "b"), ("Add", ["b", "one"], "c")]
TANH = [
    ("Pow", ["x", "three"], "a"),
    ("Mul", ["a", "cubic"], "b"),
    ("Add", ["x", "b"], "c"),
    ("Mul", ["c", "pi"], "d"),
    ("Tanh", ["d"], "e"),
    ("Add", ["e", "one"], "f"),
]
FUNCTIONS = {
    "gelu: x (1 + erf) / 2": ([*GELU, ("Mul", ["x", "c"], "d"), ("Mul", ["d", "half"], "y")], ["gelu"]),
    "gelu: (x / 2) (1 + erf)": ([*GELU, ("Mul", ["x", "half"], "d"), ("Mul", ["d", "c"], "y")], ["gelu"]),
    "gelu: x ((1 + erf) / 2)": ([*GELU, ("Mul", ["c", "half"], "d"), ("Mul", ["d", "x"], "y")], ["gelu"]),
    "gelu, doubled": ([*GELU, ("Mul", ["x", "c"], "y")], ["gelu", "scale"]),
    "gelu_tanh": ([*TANH, ("Mul", ["x", "f"], "g"), ("Mul", ["g", "half"], "y")], ["gelu_tanh"]),
    "silu": ([("Sigmoid", ["x"], "a"), ("Mul", ["x", "a"], "y")], ["silu"]),
    "silu of 1.702 x": (
        [("Mul", ["x", "quick"], "a"), ("Sigmoid", ["a"], "b"), ("Mul", ["x", "b"], "y")],
        ["scale", "silu", "scale"],
    ),
    "hard_swish": (
        [
            ("Add", ["x", "three"], "a"),
            ("Clip", ["a", "zero", "six"], "b"),
            ("Mul", ["x", "b"], "c"),
            ("Div", ["c", "six"], "y"),
        ],
        ["hard_swish"],
    ),
    "mish": ([("Softplus", ["x"], "a"), ("Tanh", ["a"], "b"), ("Mul", ["x", "b"], "y")], ["mish"]),
    "softplus": ([("Exp", ["x"], "a"), ("Add", ["a", "one"], "b"), ("Log", ["b"], "y")], ["softplus"]),
    "softsign": ([("Abs", ["x"], "a"), ("Add", ["a", "one"], "b"), ("Div", ["x", "b"], "y")], ["softsign"]),
    "not gelu: erf(x / 2)": (
        [("Div", ["x", "two"], "a"), *GELU[1:], ("Mul", ["x", "c"], "d"), ("Mul", ["d", "half"], "y")],
        ["scale", "gelu", "scale"],
    ),
    "not silu: 2 + sigmoid": (
        [("Sigmoid", ["x"], "a"), ("Add", ["a", "two"], "b"), ("Mul", ["x", "b"], "y")],
        ["sigmoid", "shift", "mul"],
    ),
    "not silu: x^2 sigmoid(x)": (
        [("Sigmoid", ["x"], "a"), ("Mul", ["x", "x"], "b"), ("Mul", ["b", "a"], "y")],
        ["sigmoid", "square", "mul"],
    ),
    "not silu: x sigmoid(x) and a little more far away": (
        [
            ("Sigmoid", ["x"], "a"),
            ("Mul", ["x", "x"], "b"),
            ("Mul", ["b", "tiny"], "c"),
            ("Add", ["a", "c"], "d"),
            ("Mul", ["x", "d"], "y"),
        ],
        ["sigmoid", "square", "scale", "add", "mul"],
    ),
    "not hard_swish: clipped at 5": (
        [
            ("Add", ["x", "two"], "a"),
            ("Clip", ["a", "zero", "six"], "b"),
            ("Mul", ["x", "b"], "y"),
        ],
        ["shift", "clip", "mul"],
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_one_number(name: str) -> None:
    steps, expected = FUNCTIONS[name]
    assert ops(build(steps, (1, 4), C)) == expected


AXES = {"axes": [-1], "keepdims": 1}
CENTRED = [("ReduceMean", ["x"], "m", AXES), ("Sub", ["x", "m"], "d")]
NORM = [("ReduceMean", ["s"], "v", AXES), ("Add", ["v", "eps"], "w"), ("Sqrt", ["w"], "r")]
NEVER = np.float32(-np.inf)
MASKS = {
    "mask": np.array([[0, NEVER, 0, 0], [NEVER, 0, NEVER, NEVER]], np.float32),
    "bias": np.array([[1, NEVER, -2, 0.5], [0.25, 0, NEVER, 3]], np.float32),
    "keep": np.array([[True, False, True, True], [True, True, False, True]]),
    "never": NEVER,
}
STABLE = [
    ("Less", ["x", "zero"], "c"),
    ("Sub", ["one", "x"], "a"),
    ("Div", ["one", "a"], "b"),
    ("Add", ["x", "one"], "d"),
    ("Where", ["c", "b", "d"], "s"),
]
STABLE_CLIPPED = [
    ("GreaterOrEqual", ["x", "zero"], "c"),
    ("Clip", ["x", "", "zero"], "x0"),
    ("Sub", ["one", "x0"], "a"),
    ("Reciprocal", ["a"], "b"),
    ("Add", ["x", "one"], "d"),
    ("Where", ["c", "d", "b"], "s"),
]
SIGNED_LOG = [
    ("Sign", ["x"], "sign"),
    ("Abs", ["x"], "abs"),
    ("Add", ["abs", "one"], "a"),
    ("Log", ["a"], "log"),
    ("Mul", ["sign", "log"], "h"),
]
NORMS = {
    "layer_norm: Pow, Div": ([*CENTRED, ("Pow", ["d", "two"], "s"), *NORM, ("Div", ["d", "r"], "y")], ["layer_norm"]),
    "layer_norm: Mul, Reciprocal, the mean taken twice": (
        [
            *CENTRED,
            ("ReduceMean", ["x"], "m2", AXES),
            ("Sub", ["x", "m2"], "d2"),
            ("Mul", ["d2", "d2"], "s"),
            *NORM,
            ("Reciprocal", ["r"], "i"),
            ("Mul", ["d", "i"], "y"),
        ],
        ["layer_norm"],
    ),
    "rms_norm": ([("Mul", ["x", "x"], "s"), *NORM, ("Div", ["x", "r"], "y")], ["rms_norm"]),
    "softmax": (
        [("Exp", ["x"], "e"), ("ReduceSum", ["e", "last"], "t"), ("Div", ["e", "t"], "y")],
        ["softmax"],
    ),
    "softmax of x - max": (
        [
            ("ReduceMax", ["x"], "m", AXES),
            ("Sub", ["x", "m"], "d"),
            ("Exp", ["d"], "e"),
            ("ReduceSum", ["e", "last"], "t"),
            ("Div", ["e", "t"], "y"),
        ],
        ["softmax"],
    ),
    "log_softmax: log of softmax": ([("Softmax", ["x"], "s", {"axis": 1}), ("Log", ["s"], "y")], ["log_softmax"]),
    "log_softmax: x - logsumexp": (
        [("ReduceLogSumExp", ["x"], "t", AXES), ("Sub", ["x", "t"], "y")],
        ["log_softmax"],
    ),
    "logsumexp": ([("Exp", ["x"], "e"), ("ReduceSum", ["e", "last"], "t"), ("Log", ["t"], "y")], ["logsumexp"]),
    "stablemax": ([*STABLE, ("ReduceSum", ["s", "last"], "t"), ("Div", ["s", "t"], "y")], ["stablemax"]),
    "stablemax, with a clip": (
        [*STABLE_CLIPPED, ("ReduceSum", ["s", "last"], "t"), ("Div", ["s", "t"], "y")],
        ["stablemax"],
    ),
    "log_stablemax: log of stablemax": (
        [*STABLE, ("ReduceSum", ["s", "last"], "t"), ("Div", ["s", "t"], "p"), ("Log", ["p"], "y")],
        ["log_stablemax"],
    ),
    "log_stablemax: log_softmax of sign(x) log(1 + |x|)": (
        [*SIGNED_LOG, ("LogSoftmax", ["h"], "y", {"axis": 1})],
        ["log_stablemax"],
    ),
    "stablemax: softmax of sign(x) log(1 + |x|)": ([*SIGNED_LOG, ("Softmax", ["h"], "y", {"axis": 1})], ["stablemax"]),
    "no stablemax: 1 / (2 - x) on the left": (
        [
            ("Less", ["x", "zero"], "c"),
            ("Sub", ["two", "x"], "a"),
            ("Reciprocal", ["a"], "b"),
            ("Add", ["x", "one"], "d"),
            ("Where", ["c", "b", "d"], "y"),
        ],
        ["neg", "step", "shift", "reciprocal", "shift", "where"],
    ),
    "softplus shares": (
        [("Softplus", ["x"], "s"), ("ReduceSum", ["s", "last"], "t"), ("Div", ["s", "t"], "y")],
        ["log_softplus", "softmax"],
    ),
    "masked softmax: plus -inf": ([("Add", ["x", "mask"], "a"), ("Softmax", ["a"], "y", {"axis": 1})], ["softmax"]),
    "masked softmax: plus -inf and numbers": (
        [("Add", ["bias", "x"], "a"), ("Softmax", ["a"], "y", {"axis": 1})],
        ["shift", "softmax"],
    ),
    "masked softmax: chosen, and NaN replaced": (
        [
            ("Where", ["keep", "x", "never"], "a"),
            ("Identity", ["a"], "i"),
            ("Softmax", ["i"], "p", {"axis": 1}),
            ("IsNaN", ["p"], "n"),
            ("Where", ["n", "zero", "p"], "y"),
        ],
        ["softmax"],
    ),
    "no softmax: the sum over another axis": (
        [("Exp", ["x"], "e"), ("ReduceSum", ["e", "both"], "t"), ("Div", ["e", "t"], "y")],
        ["exp", "sum", "div"],
    ),
    "no layer_norm: another mean": (
        [
            ("ReduceMean", ["x"], "m", {"axes": [0, 1], "keepdims": 1}),
            ("Sub", ["x", "m"], "d"),
            ("Pow", ["d", "two"], "s"),
            *NORM,
            ("Div", ["d", "r"], "y"),
        ],
        ["mean", "sub", "rms_norm"],
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_and_softmax(name: str) -> None:
    steps, expected = NORMS[name]
    constants = {**C, **MASKS, "last": np.array([-1]), "both": np.array([0, 1])}
    assert ops(build(steps, (2, 4), constants)) == expected


W = {
    "w": f(4, 4),
    "w2": f(4, 4),
    "b": f(4),
    "row": f(1, 4),
    "full": f(2, 4),
    "k": f(3, 3, 2, 2),
    "kb": f(3),
    "channel": f(3, 1, 1),
    "kt": f(3, 2, 2, 2),
    "flat": np.array([1, -1]),
    "square": np.array([1, 2, 2]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "uneven": np.array([0, 0, 1, 0, 0, 0, 1, 1]),
    "two": np.float32(2),
    "one": np.float32(1),
}
CONV = ("Conv", ["h", "k", "kb"], "y")
FUSIONS = {
    "linear, bias, factor, linear": (
        [
            ("MatMul", ["x", "w"], "a"),
            ("Add", ["a", "b"], "c"),
            ("Mul", ["c", "row"], "d"),
            ("MatMul", ["d", "w2"], "y"),
        ],
        (1, 4),
        ["linear"],
    ),
    "input normalised": (
        [("Sub", ["x", "row"], "a"), ("Div", ["a", "b"], "c"), ("Gemm", ["c", "w", "b"], "y")],
        (1, 4),
        ["linear"],
    ),
    "an offset per row stays": (
        [("MatMul", ["x", "w"], "a"), ("Add", ["a", "full"], "y")],
        (2, 4),
        ["linear", "shift"],
    ),
    "a value with two readers stays": (
        [("MatMul", ["x", "w"], "a"), ("Mul", ["a", "row"], "c"), ("Add", ["a", "c"], "y")],
        (1, 4),
        ["linear", "scale", "add"],
    ),
    "past a reshape": (
        [("Sub", ["x", "channel"], "a"), ("Reshape", ["a", "flat"], "c"), ("MatMul", ["c", "wide"], "y")],
        (1, 3, 2, 2),
        ["reshape", "linear"],
    ),
    "linear, reshape, batch norm": (
        [("MatMul", ["x", "w"], "a"), ("Reshape", ["a", "square"], "c"), ("Mul", ["c", "half"], "y")],
        (1, 4),
        ["linear", "reshape"],
    ),
    "conv, factor, offset": (
        [("Conv", ["x", "k"], "a"), ("Mul", ["a", "channel"], "c"), ("Add", ["c", "channel"], "y")],
        (1, 3, 4, 4),
        ["conv"],
    ),
    "factor, offset, conv": (
        [("Mul", ["x", "channel"], "a"), ("Add", ["a", "channel"], "h"), CONV],
        (1, 3, 4, 4),
        ["conv"],
    ),
    "an offset before a padded conv stays": (
        [("Mul", ["x", "channel"], "a"), ("Add", ["a", "channel"], "h"), (*CONV, {"pads": [1, 1, 1, 1]})],
        (1, 3, 4, 4),
        ["scale", "shift", "conv"],
    ),
    "transposed conv, factor": (
        [("ConvTranspose", ["x", "kt"], "a", {"strides": [2, 2]}), ("Mul", ["a", "two"], "y")],
        (1, 3, 4, 4),
        ["conv_transpose"],
    ),
    "pad, conv": ([("Pad", ["x", "pads"], "h"), CONV], (1, 3, 4, 4), ["conv"]),
    "an uneven pad stays": ([("Pad", ["x", "uneven"], "h"), CONV], (1, 3, 4, 4), ["pad", "conv"]),
    "a pad with ones stays": ([("Pad", ["x", "pads", "one"], "h"), CONV], (1, 3, 4, 4), ["pad", "conv"]),
    "factors and offsets": (
        [("Add", ["x", "row"], "a"), ("Mul", ["a", "two"], "c"), ("Add", ["c", "b"], "d"), ("Mul", ["d", "row"], "y")],
        (1, 4),
        ["scale", "shift"],
    ),
    "a product from the left between transposes": (
        [
            ("Transpose", ["x"], "a", {"perm": [1, 0]}),
            ("MatMul", ["w", "a"], "c"),
            ("Transpose", ["c"], "y", {"perm": [1, 0]}),
        ],
        (2, 4),
        ["linear"],
    ),
    "factor and offset between transposes": (
        [
            ("Transpose", ["x"], "a", {"perm": [0, 2, 1]}),
            ("Mul", ["a", "column"], "c"),
            ("Add", ["c", "column"], "d"),
            ("Transpose", ["d"], "e", {"perm": [0, 2, 1]}),
            ("MatMul", ["e", "w"], "y"),
        ],
        (1, 3, 4),
        ["linear"],
    ),
    "linear, negated": (
        [("MatMul", ["x", "w"], "a"), ("Neg", ["a"], "c"), ("Add", ["c", "b"], "y")],
        (1, 4),
        ["linear"],
    ),
    "reshapes and transposes": (
        [
            ("Transpose", ["x"], "a", {"perm": [1, 0]}),
            ("Transpose", ["a"], "c", {"perm": [1, 0]}),
            ("Reshape", ["c", "square"], "d"),
            ("Reshape", ["d", "flat"], "e"),
            ("Neg", ["e"], "g"),
            ("Neg", ["g"], "h"),
            ("Relu", ["h"], "y"),
        ],
        (1, 4),
        ["relu"],
    ),
}


@pytest.mark.parametrize("name", FUSIONS)
def test_affine_fusion(name: str) -> None:
    steps, shape, expected = FUSIONS[name]
    assert ops(build(steps, shape, {**W, "wide": f(12, 2), "half": f(2, 1), "column": f(4, 1)})) == expected


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_fusion_of_grouped_convolutions(op: str, groups: int) -> None:
    kernel = f(6, 3 // groups, 2, 2) if op == "Conv" else f(3, 6 // groups, 2, 2)
    steps = [
        ("Mul", ["x", "before"], "a"),
        ("Add", ["a", "before"], "b"),
        (op, ["b", "kernel"], "c", {"group": groups}),
        ("Mul", ["c", "after"], "d"),
        ("Add", ["d", "after"], "y"),
    ]
    constants = {"before": f(3, 1, 1), "after": f(1, 6, 1, 1), "kernel": kernel}
    expected = ["conv"] if op == "Conv" else ["scale", "shift", "conv_transpose"]
    assert ops(build(steps, (1, 3, 4, 4), constants)) == expected


def test_origins_survive_fusion() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="/fc/MatMul"),
        helper.make_node("Add", ["a", "b"], ["c"], name="/fc/Add"),
        helper.make_node("Relu", ["c"], ["y"], name="/act"),
    ]
    graph = load(model(nodes, {"x": (1, 4)}, ["y"], W).SerializeToString())
    assert [(node.name, node.origin) for node in graph] == [("x", "x"), ("c", "/fc/MatMul"), ("y", "/act")]


def test_outputs_keep_order_and_names() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Identity", ["x"], ["c"]),
        helper.make_node("Neg", ["a"], ["d"]),
        helper.make_node("Identity", ["d"], ["e"]),
        helper.make_node("Dropout", ["two"], ["f"]),
    ]
    outputs = ["e", "a", "b", "c", "f"]
    graph = load(model(nodes, {"x": (2,)}, outputs, {"two": np.full(2, 2, np.float32)}).SerializeToString())
    assert graph.outputs == tuple(outputs)
    values = [y.tolist() for y in graph(torch.tensor([[-1.0, 3.0]]).double())]
    assert values == [[[0, -3]], [[0, 3]], [[0, 3]], [[-1, 3]], [[2, 2]]]


def test_hidden_values_can_be_kept() -> None:
    steps = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    data = model(steps, {"x": (1, 4)}, ["y"], W).SerializeToString()
    graph = load(data, keep=["h"])
    assert graph.outputs == ("y", "h")
    assert [node.op for node in graph] == ["input", "linear", "shift"]


def test_dead_nodes_and_constants_go_but_inputs_stay() -> None:
    builder = GraphBuilder()
    x, y = builder.input("x", (2,)), builder.input("y", (2,))
    kept = builder.add("scale", [x], {"factor": torch.ones(2).double()}, name="kept")
    builder.add("shift", [y], {"offset": torch.ones(2).double()}, name="dead")
    graph = drop_dead(builder.build([kept]))
    assert list(graph.nodes) == ["x", "y", "kept"]
    assert list(graph.constants) == ["kept.factor"]


def test_equal_nodes_become_one() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (2,))
    one, same, other = (
        builder.add("scale", [x], {"factor": torch.full((2,), value).double()}) for value in (2.0, 2.0, 3.0)
    )
    a, b = builder.add("add", [one, same]), builder.add("add", [one, other])
    graph = drop_dead(merge_equal(builder.build([a, b])))
    assert len(graph) == 5
    assert [y.tolist() for y in graph(torch.ones(1, 2).double())] == [[[4, 4]], [[5, 5]]]


def test_rename() -> None:
    builder = GraphBuilder()
    graph = builder.build([builder.add("relu", [builder.input("x", (2,))], name="y")])
    renamed = rename(graph, {"x": "in", "y": "out"})
    check(renamed)
    assert (renamed.inputs, renamed.outputs, renamed["out"].inputs) == (("in",), ("out",), ("in",))


def test_simplify_leaves_a_plain_network_alone() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 3))
    h = builder.add("relu", [builder.add("linear", [x], {"weight": torch.ones(2, 3).double()})])
    graph = builder.build([h])
    assert simplify(graph).nodes == graph.nodes


def test_operators_are_listed() -> None:
    from graphs.onnx import supported

    table = supported()
    assert table["Squeeze"] == [1, 13]
    assert table["Gemm"] == [7]
    assert len(table) >= 120
    assert not set(table) - {schema.name for schema in onnx.defs.get_all_schemas()}


def test_one_converter_per_operator_and_opset() -> None:
    from graphs.onnx.registry import converter, find

    with pytest.raises(ValueError, match="operator 'Gemm' has two converters since opset 7"):
        converter("Gemm", since=7)(lambda ctx: None)
    assert find("Squeeze", 12) is not find("Squeeze", 13)
    assert find("Gelu", 19) is None
