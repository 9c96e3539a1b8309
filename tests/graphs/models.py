"""Small ONNX models for the tests, and their values in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from graphs import Graph
from graphs.onnx import load

TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}


def tensor(value: Any, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
    dtype: str = "float32",
) -> onnx.ModelProto:
    """A model of these nodes; inputs by name and shape (a string is a symbolic dimension)."""
    infos = [helper.make_tensor_value_info(name, TYPES[dtype], shape) for name, shape in inputs.items()]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    init = [tensor(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "test", infos, results, init)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 20 else 10)


def one_node(
    op: str,
    attrs: Mapping[str, Any],
    inputs: Sequence[Any],
    opset: int,
    outputs: int = 1,
    dtype: str = "float32",
) -> onnx.ModelProto:
    """A model of one node. An input is a shape (a variable), an array (an initializer) or None (left out)."""
    names = ["" if v is None else f"x{i}" for i, v in enumerate(inputs)]
    variables = {n: v for n, v in zip(names, inputs, strict=True) if isinstance(v, tuple)}
    constants = {n: v for n, v in zip(names, inputs, strict=True) if isinstance(v, np.ndarray | np.generic)}
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name="the_node", **attrs)
    return model([node], variables, results, constants, opset, dtype)


def runtime(proto: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))


def samples(graph: Graph, batch: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs (B, *shape) in the model's own element types."""
    rng = np.random.default_rng(seed)
    shapes = {name: (batch, *graph[name].shape) for name in graph.inputs}
    return {n: rng.uniform(low, high, s).astype(graph[n].attrs["dtype"]) for n, s in shapes.items()}


def evaluate(graph: Graph, xs: Mapping[str, np.ndarray], dtype: torch.dtype = torch.float64) -> list[np.ndarray]:
    """The outputs of a graph for batched inputs."""
    values = {name: torch.from_numpy(x).to(dtype) for name, x in xs.items()}
    with torch.no_grad():
        return [y.numpy() for y in graph.to(dtype).evaluate(values).values()]


def assert_agrees(proto: onnx.ModelProto, *, low: float = -2.0, high: float = 2.0, tol: float = 2e-6) -> Graph:
    """Import the model and compare it with onnxruntime, sample by sample, for a batch of 1 and of 7."""
    graph = load(proto.SerializeToString())
    for batch in (1, 7):
        xs = samples(graph, batch, low, high, seed=batch)
        ys = evaluate(graph, xs)
        for b in range(batch):
            expected = runtime(proto, {name: x[b] for name, x in xs.items()})
            for y, z in zip(ys, expected, strict=True):
                assert y[b].shape == z.shape
                np.testing.assert_allclose(
                    y[b], z.astype(np.float64), rtol=tol, atol=tol * max(1.0, abs(z).max(initial=0))
                )
    return graph
