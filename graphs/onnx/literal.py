"""Which models are imported op for op, so that the graph's sums are those of a program that runs the model."""

from __future__ import annotations

from pathlib import Path

from graphs.onnx import proto
from graphs.onnx.functions import written_out

MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather", "Concat", "Split", "Flatten"}
MOVES |= {"Expand", "Constant", "ConstantOfShape", "Shape", "Dropout", "Pad", "Tile"}
COMPUTED = {"Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Neg", "Sum", "Relu", "LeakyRelu", "Abs", "Conv"}
COMPUTED |= {"ConvTranspose", "AveragePool", "GlobalAveragePool", "ReduceSum", "ReduceMean"}
COMPUTED |= {"Sigmoid", "Tanh", "Exp", "Erf", "Sin", "Cos", "MaxPool", "Max", "Min"}


def altered(path: Path) -> list[str]:
    """The model's operators that the import may compute in another way than a program does, each once: all but
    sums, products, maxima, curves and moves, and those that compute constants (the import does that once, in float64).
    """
    model = proto.read(path, str(path))
    known = {tensor.name for tensor in model.graph.initializer}
    found = []
    for node in written_out(model):
        constant = all(name in known or not name for name in node.input)
        if constant or node.op_type == "Shape":
            known.update(node.output)
        if node.op_type not in MOVES and (constant or node.op_type not in COMPUTED):
            found.append(f"{node.op_type} of constants" if constant and node.op_type in COMPUTED else node.op_type)
    return list(dict.fromkeys(found))
