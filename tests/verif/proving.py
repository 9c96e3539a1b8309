"""Small ONNX files and properties for tests of proofs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from verif.checker import stream

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
LEAF = -1


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


def unpack(path: Path) -> tuple[dict[str, Any], Arrays]:
    """The manifest of a proof of one region and its arrays, nodes one by one: a node, its second half, its first."""
    manifest, records = stream.read(path)
    parts: dict[str, list[tuple[Array, ...]]] = {}
    rows: list[Array] = []
    for kind, arrays in records:
        if kind == "S":
            rows.append(arrays[0])
            parts["neurons.0"] = [arrays[1:]]
        else:
            parts.setdefault({"B": "boxes", "P": "point"}.get(kind, str(len(rows) - 1)), []).append(arrays)
    found = {"row.0": np.concatenate(rows)} if rows else {}
    for name, held in parts.items():
        joined = [np.concatenate(each) for each in zip(*held, strict=True)]
        if len(joined) == 1:
            found[name] = joined[0]
            continue
        counts, nodes, *rest = joined
        order = lifo(counts, nodes)
        if name == "boxes":
            found |= {"axis.0": nodes[order], "cut.0": rest[0][order]}
        else:
            size = len(parts["neurons.0"][0][0])
            leaf = np.cumsum(nodes == LEAF)[order][nodes[order] == LEAF] - 1
            slopes, multipliers = (array.reshape(-1, size)[leaf].ravel() for array in rest)
            found |= {f"tree.0.{name}": nodes[order], f"slopes.0.{name}": slopes, f"multipliers.0.{name}": multipliers}
    return manifest, found


def lifo(counts: Array, nodes: Array) -> Array:
    """The order in which nodes that were taken in batches are taken one by one."""
    stack, taken, halves, first = [0], {}, {}, 0
    for count in counts.tolist():
        batch = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        for slot in batch:
            taken[slot] = first
            if nodes[first] != LEAF:
                slots = 1 + 2 * len(halves)
                halves[slot] = (slots, slots + 1)
                stack += halves[slot]
            first += 1
    order, stack = [], [0]
    while stack:
        slot = stack.pop()
        order.append(taken[slot])
        stack += halves.get(slot, ())
    return np.array(order)


def pack(path: Path, manifest: dict[str, Any], arrays: Arrays) -> None:
    """A proof of these arrays, sealed; what is missing is empty."""
    none = np.empty(0)
    with path.open("wb") as file:
        writer = stream.Writer(file)
        writer.begin(manifest)
        if "point" in arrays:
            writer.add("P", arrays["point"])
        if "axis.0" in arrays:
            writer.add("B", np.ones(len(arrays["axis.0"])), arrays["axis.0"], arrays["cut.0"])
        for clause, row in enumerate(arrays.get("row.0", none).tolist()):
            writer.add("S", np.array([row]), arrays.get("neurons.0", none))
            tree, *rest = (arrays.get(f"{name}.0.{clause}", none) for name in ("tree", "slopes", "multipliers"))
            writer.add("C", np.ones(len(tree)), tree, *rest)
