"""Every network of the shared benchmark folder imports and agrees with onnxruntime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from graphs import Graph
from graphs.check import check
from graphs.onnx import load
from tests.graphs.models import evaluate, runtime, samples

SHARED = Path(os.environ.get("VERIF_SHARED", Path(__file__).resolve().parents[3] / "shared"))
NETWORKS = sorted(SHARED.glob("vnncomp/*/onnx/*.onnx"))

if not NETWORKS:
    pytest.skip("the shared benchmark networks are not there (set VERIF_SHARED)", allow_module_level=True)


def label(path: Path) -> str:
    return f"{path.parts[-3]}/{path.stem}"


def points(path: Path, graph: Graph, batch: int) -> dict[str, np.ndarray]:
    """Random inputs in [0, 1]; the patch detector's last inputs are a place in the picture, a class and a box."""
    xs = samples(graph, batch, 0.0, 1.0, seed=batch)
    if "cctsdb" in str(path):
        x = xs[graph.inputs[0]]
        x[:, 12288:12290] *= 62  # where the patch lies
        x[::2, 12288] /= 31
        x[:, 12290], x[:, 12291] = 0, np.arange(batch) % 3
        x[:, 12294:] += 1.0
    return xs


def error(y: np.ndarray, z: np.ndarray) -> float:
    """Largest difference, relative to the largest number."""
    assert y.shape == z.shape
    return float(abs(y.astype(np.float64) - z).max() / max(abs(z).max(), 1e-30)) if z.any() or y.any() else 0.0


@pytest.mark.parametrize("path", NETWORKS, ids=label)
@pytest.mark.parametrize("batch", [1, 7])
def test_network_agrees_with_onnxruntime(path: Path, batch: int) -> None:
    proto = onnx.load(path)
    keep = ["463", "461", "508"] if "cctsdb" in str(path) else []  # its output is 0 unless the class is right
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in keep)
    graph = load(path, keep=keep)
    check(graph)
    xs = points(path, graph, batch)
    singles = [runtime(proto, {name: x[b] for name, x in xs.items()}) for b in range(batch)]
    expected = [np.stack(zs) for zs in zip(*singles, strict=True)]
    double = graph[graph.inputs[0]].attrs["dtype"] == "float64"
    ours, exact = evaluate(graph, xs, torch.float64 if double else torch.float32), evaluate(graph, xs, torch.float64)
    for y, z, true in zip(ours, expected, exact, strict=True):
        assert error(y, z) <= (1e-10 if double else 1e-5 + error(z, true))  # the runtime rounds too


def doubled(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with float64 numbers instead of float32."""
    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
    tensors = list(proto.graph.initializer)
    for node in proto.graph.node:
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == single:
                attribute.i = double
    for tensor in tensors:
        if tensor.data_type == single:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
            )
    for info in [*proto.graph.input, *proto.graph.output]:
        if info.type.tensor_type.elem_type == single:
            info.type.tensor_type.elem_type = double
    del proto.graph.value_info[:]
    return proto


@pytest.mark.parametrize("path", NETWORKS, ids=label)
def test_network_in_double_precision(path: Path) -> None:
    """Without the runtime's own rounding: the importer and its passes are exact."""
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, NotImplemented

    proto = doubled(onnx.load(path))
    graph = load(proto.SerializeToString())
    xs = points(path, graph, 3)
    try:
        singles = [runtime(proto, {name: x[b] for name, x in xs.items()}) for b in range(3)]
    except (InvalidGraph, NotImplemented):
        pytest.skip("onnxruntime has no float64 kernel for one of its operators")
    for y, z in zip(evaluate(graph, xs), map(np.stack, zip(*singles, strict=True)), strict=True):
        assert error(y, z) <= 1e-10


def has_batch(path: Path) -> bool:
    graph = onnx.load(path).graph
    known = {init.name for init in graph.initializer}
    info = next(info for info in graph.input if info.name not in known)
    return bool(info.type.tensor_type.shape.dim[0].dim_param)


@pytest.mark.parametrize("path", [path for path in NETWORKS if has_batch(path)], ids=label)
def test_symbolic_batch_of_7(path: Path) -> None:
    """The runtime's own batch axis against ours."""
    proto = onnx.load(path)
    graph = load(path)
    xs = samples(graph, 7, 0.0, 1.0)
    expected = runtime(proto, {name: x[:, 0] for name, x in xs.items()})
    for y, z in zip(evaluate(graph, xs, torch.float32), expected, strict=True):
        assert error(y[:, 0], z) <= 1e-5
