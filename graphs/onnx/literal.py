"""Which models are imported op for op, so that the graph's sums are those of a program that runs the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphs.onnx import proto
from graphs.onnx.functions import written_out

MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather", "Concat", "Split", "Flatten"}
MOVES |= {"Expand", "Constant", "ConstantOfShape", "Shape", "Dropout", "Pad", "Tile"}
COMPUTED = {"Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Neg", "Sum", "Relu", "LeakyRelu", "Abs", "Conv"}
COMPUTED |= {"ConvTranspose", "AveragePool", "GlobalAveragePool", "ReduceSum", "ReduceMean"}
COMPUTED |= {"Sigmoid", "Tanh", "Exp", "Erf", "Sin", "Cos", "Pow", "MaxPool", "Max", "Min", "Floor", "Ceil"}
INTEGRAL = {"Mul", "Add", "Sub", "Equal", "Where", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape"}
INTEGERS = {6, 7, 9}  # the types int32, int64 and bool of ONNX


def altered(path: Path) -> list[str]:
    """The model's operators that the import may compute in another way than a program does, each once: all but
    sums, products, maxima, curves and moves, and those that compute constants (the import does that once, in float64)
    other than integers.
    """
    model = proto.read(path, str(path))
    known = {tensor.name for tensor in model.graph.initializer}
    whole = {tensor.name for tensor in model.graph.initializer if tensor.data_type in INTEGERS}
    found = []
    for node in written_out(model):
        constant = all(name in known or not name for name in node.input)
        if constant or node.op_type == "Shape":
            known.update(node.output)
        if node.op_type == "Shape" or (constant and _integers(node, whole)):
            whole.update(node.output)
        elif node.op_type not in MOVES and (constant or node.op_type not in COMPUTED):
            found.append(f"{node.op_type} of constants" if constant and node.op_type in COMPUTED else node.op_type)
    return list(dict.fromkeys(found))


def _integers(node: Any, whole: set[str]) -> bool:
    """Whether a node of constants has integers only, and computes them from such."""
    if node.op_type in ("Constant", "ConstantOfShape"):
        return any(a.t.data_type in INTEGERS or a.name in ("value_int", "value_ints") for a in node.attribute)
    return node.op_type in INTEGRAL and all(name in whole for name in node.input)
