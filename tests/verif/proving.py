"""Small ONNX files and properties for tests of proofs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


@dataclass
class Files:
    """A model and a property in a folder."""

    model: Path
    property: Path


def save(path: Path, nodes: list[Any], constants: dict[str, Array], shape: list[int], outputs: int) -> Path:
    """A model from x of `shape` to y (1, outputs); 0 outputs: as many as there are."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs or None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def mlp(path: Path, weights: list[Array], biases: list[Array]) -> Path:
    """Gemm and ReLU in turn; weights (outputs, inputs)."""
    nodes, constants, held = [], {}, "x"
    for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        last = place == len(weights) - 1
        constants |= {f"w{place}": weight.astype(np.float32), f"b{place}": bias.astype(np.float32)}
        out = "y" if last else f"z{place}"
        nodes.append(helper.make_node("Gemm", [held, f"w{place}", f"b{place}"], [out], transB=1))
        if not last:
            held = f"h{place}"
            nodes.append(helper.make_node("Relu", [out], [held]))
    return save(path, nodes, constants, [1, weights[0].shape[1]], len(weights[-1]))


def random_mlp(path: Path, seed: int, sizes: tuple[int, ...] = (2, 6, 6, 2)) -> Path:
    """Random weights, of magnitudes that differ widely for odd seeds."""
    generator = np.random.default_rng(seed)
    weights, biases = [], []
    for inputs, outputs in pairwise(sizes):
        spread = 10.0 ** generator.integers(-6, 7, (outputs, inputs)) if seed % 2 else 1.0
        weights.append(generator.normal(size=(outputs, inputs)) * spread)
        biases.append(generator.normal(size=outputs))
    return mlp(path, weights, biases)


def property_file(path: Path, box: list[tuple[str, str]], outputs: int, unsafe: str) -> Path:
    """VNN-LIB 1.0."""
    names = [f"X_{i}" for i in range(len(box))] + [f"Y_{i}" for i in range(outputs)]
    lines = [f"(declare-const {name} Real)" for name in names]
    lines += [f"(assert (>= X_{i} {low}))\n(assert (<= X_{i} {high}))" for i, (low, high) in enumerate(box)]
    path.write_text("\n".join([*lines, f"(assert {unsafe})"]) + "\n")
    return path
