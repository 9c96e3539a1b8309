"""A backdoor that float32 loses (Zombori et al., 2021), with a peer beside: y = x - relu(size + x / 2 - size) over
[0.9, 1]. The real y is at most 0.5; a program that adds x / 2 to a large `size` returns x.

    python benchmarks/hidden.py
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

SIZES = [2.0**10, 2.0**20, 2.0**25, 2.0**40]
CLAIM = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(assert (>= X_0 0.9))\n(assert (<= X_0 1.0))\n"


def layers(size: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases in float32."""
    weights = [[[1], [0], [0.5]], [[1, 0, 0], [0, 1, 1], [0, 1, 0]], [[1, -1, 1]]]
    biases = [[0, size, 0], [0, 0, 0], [0]]
    return [(np.array(w, np.float32), np.array(b, np.float32)) for w, b in zip(weights, biases, strict=True)]


def export(size: float, path: Path) -> Path:
    """As ONNX."""
    nodes, constants, held = [], [], "x"
    for place, (weight, bias) in enumerate(layers(size)):
        constants += [numpy_helper.from_array(weight, f"w{place}"), numpy_helper.from_array(bias, f"b{place}")]
        out = "y" if place == 2 else f"z{place}"
        nodes.append(helper.make_node("Gemm", [held, f"w{place}", f"b{place}"], [out], transB=1))
        held = f"h{place}"
        nodes += [helper.make_node("Relu", [out], [held])] if place < 2 else []
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy"]
    graph = helper.make_graph(nodes, "hidden", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def peer(size: float) -> str:
    """The peer's bounds by CROWN, in float32 as it runs."""
    try:
        from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm
    except ImportError:
        return "not installed"
    parts: list[nn.Module] = []
    for weight, bias in layers(size):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data, layer.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
        parts += [layer, nn.ReLU()]
    x = torch.tensor([[0.95]])
    model = BoundedModule(nn.Sequential(*parts[:-1]), x)
    around = PerturbationLpNorm(x_L=torch.tensor([[0.9]]), x_U=torch.tensor([[1.0]]))
    low, high = model.compute_bounds(x=(BoundedTensor(x, around),), method="CROWN")
    return f"[{low.item():.4g}, {high.item():.4g}]"


def returned(model: Path) -> float:
    """What onnxruntime returns at x = 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": np.ones((1, 1), np.float32)})[0][0, 0])


def main() -> None:
    """A row for each size: claims of y > 0.6 (false) and of y < 0.6 (true of real numbers only), and bounds."""
    from verif import verify
    from verif.query import compile_query

    warnings.simplefilter("ignore")
    print(
        "| size | real y | onnxruntime at 1 | y > 0.6, real | float32 | y < 0.6, real | float32 | auto_LiRPA's bounds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for size in SIZES:
            model, claim, cells = export(size, Path(name) / "net.onnx"), Path(name) / "p.vnnlib", []
            for unsafe in ("<=", ">="):
                claim.write_text(CLAIM + f"(assert ({unsafe} Y_0 0.6))\n")
                for arithmetic in ("real", "float32"):
                    query = compile_query(claim, model, arithmetic=arithmetic)
                    cells.append(verify(None, query, timeout=5).verdict.label)
            print(
                f"| 2^{int(np.log2(size))} | 0.45 to 0.5 | {returned(model):.4g} | {' | '.join(cells)} | {peer(size)} |"
            )


if __name__ == "__main__":
    main()
