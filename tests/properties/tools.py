"""Small networks, and the meaning of a compiled property at a point, spelled out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from graphs import Graph, GraphBuilder
from verif.errors import PropertyError
from verif.query import Property

TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def network(inputs: Sequence[int] = (2,), outputs: Sequence[int] = (2,), dtype: str = "float32") -> Graph:
    """A linear network; properties only look at its shapes."""
    builder = GraphBuilder()
    flat = builder.add("reshape", [builder.input("x", inputs, dtype)], attrs={"shape": (int(np.prod(inputs)),)})
    weight = torch.ones(int(np.prod(outputs)), int(np.prod(inputs)), dtype=torch.float64)
    y = builder.add("linear", [flat], {"weight": weight}, name="flat")
    return builder.build([builder.add("reshape", [y], attrs={"shape": tuple(outputs)}, name="y")])


def onnx_model(path: Path, weight: np.ndarray, dtype: str = "float32", batch: int | str = 1) -> Path:
    """y = relu(x W) - relu(-x W) computed by named nodes; x (batch, n), W (n, m)."""
    constant = numpy_helper.from_array(weight.astype(dtype), "weight")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"], "/fc"),
        helper.make_node("Relu", ["product"], ["plus"], "/plus"),
        helper.make_node("Neg", ["product"], ["negative"], "/neg"),
        helper.make_node("Relu", ["negative"], ["minus"], "/minus"),
        helper.make_node("Sub", ["plus", "minus"], ["y"], "/sub"),
    ]
    values = [
        helper.make_tensor_value_info(name, TYPES[dtype], [batch, size])
        for name, size in (("x", weight.shape[0]), ("y", weight.shape[1]))
    ]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def declarations(inputs: int = 2, outputs: int = 2) -> str:
    """VNN-LIB 1.0 declarations, one a line."""
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{i}" for i in range(outputs)]
    return "".join(f"(declare-const {name} Real)\n" for name in names)


def box(inputs: int = 2, lower: float = 0.0, upper: float = 1.0) -> str:
    """VNN-LIB 1.0 bounds."""
    return "".join(f"(assert (>= X_{i} {lower}))\n(assert (<= X_{i} {upper}))\n" for i in range(inputs))


def unsafe(property: Property, z: Sequence[float], values: Mapping[str, np.ndarray]) -> bool:
    """Whether a point z with these values (by key) is unsafe: the definition in `Property`'s docstring."""
    point = torch.tensor(z, dtype=torch.float64)
    read = {name: torch.as_tensor(values[name], dtype=torch.float64)[None] for name in property.atoms.inputs}
    atoms = property.atoms(*read.values())[0][0].tolist()
    table = property.clauses
    for d in range(len(property.lower)):
        inside = bool(((point >= property.lower[d]) & (point <= property.upper[d])).all())
        if property.open_lower is not None:
            inside &= not bool((property.open_lower[d] & (point == property.lower[d])).any())
        if property.open_upper is not None:
            inside &= not bool((property.open_upper[d] & (point == property.upper[d])).any())
        if inside and all(
            any(_satisfied(table, c, atoms) for c in range(start, stop)) for start, stop in property.spans[d].tolist()
        ):
            return True
    return False


def _satisfied(table, clause: int, atoms: list[float]) -> bool:  # type: ignore[no-untyped-def]
    for atom, threshold, strict in zip(
        table.atoms[clause], table.thresholds[clause], table.strict[clause], strict=True
    ):
        if int(atom) >= 0 and not (atoms[atom] < threshold if strict else atoms[atom] <= threshold):
            return False
    return True


def message(error: PropertyError, file: Path | str = "") -> str:
    """The whole text of an error, with the file called FILE."""
    return str(error).replace(str(file), "FILE") if file else str(error)
