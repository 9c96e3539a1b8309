"""Networks and bound problems for the comparisons: each as a torch module (what a peer takes) and as a graph (ours)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.transformer import Attention, MeanOfTokens
from graphs import Graph, GraphBuilder
from graphs.onnx import load

_SCALAR = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
ReLU, Flatten = nn.ReLU, nn.Flatten


class Residual(nn.Module):
    """body(x) + skip(x); without `skip`, body(x) + x."""

    def __init__(self, body: nn.Sequential, skip: nn.Sequential | None = None) -> None:
        super().__init__()
        self.body, self.skip = body, skip

    def forward(self, x: Tensor) -> Tensor:
        """The sum, in the order of the exported model."""
        return self.body(x) + (x if self.skip is None else self.skip(x))


@dataclass(frozen=True)
class Problem:
    """Bounds to find: rows (B, S, M) of a network's output over boxes (B, *N); `stored` are a peer's bounds (B, S).

    The network is a torch module, or the path of an ONNX file (then there is nothing that a peer could take).
    """

    name: str
    network: nn.Module | Path
    lower: Tensor
    upper: Tensor
    rows: Tensor
    stored: Mapping[str, Tensor]

    @property
    def module(self) -> nn.Module | None:
        """The network as a peer takes it."""
        return self.network if isinstance(self.network, nn.Module) else None

    @property
    def graph(self) -> Graph:
        """The network with one flat input, in float32."""
        if isinstance(self.network, nn.Module):
            return to_graph(self.network, self.lower.shape[1:]).to(torch.float32)
        return flat(load(self.network)).to(torch.float32)


def to_graph(module: nn.Sequential, shape: Sequence[int]) -> Graph:
    """The graph of a module for inputs of this shape (without the batch), which it takes flat; weights in float64."""
    builder = GraphBuilder()
    x = builder.input("x", (prod(shape),))
    x = builder.add("reshape", [x], attrs={"shape": (1, *shape)})
    x = _add(builder, module, x, "")
    return builder.build([builder.add("reshape", [x], attrs={"shape": builder.nodes[x].shape[1:]})])


def flat(graph: Graph) -> Graph:
    """The same graph with its one input and its output flat."""
    builder = GraphBuilder(constants=dict(graph.constants))
    (source,), (output,) = graph.inputs, graph.outputs
    x = builder.input(f"flat {source}", (graph[source].size,))
    builder.add("reshape", [x], attrs={"shape": graph[source].shape}, name=source)
    builder.nodes.update((node.name, node) for node in graph if node.name != source)
    return builder.build([builder.add("reshape", [output], attrs={"shape": (graph[output].size,)})])


def _add(builder: GraphBuilder, layer: nn.Module, x: str, name: str) -> str:
    match layer:
        case nn.Sequential():
            for key, child in layer.named_children():
                x = _add(builder, child, x, f"{name}.{key}".strip("."))
            return x
        case Residual():
            skip = x if layer.skip is None else _add(builder, layer.skip, x, f"{name}.skip")
            return builder.add("add", [_add(builder, layer.body, x, f"{name}.body"), skip], name=name)
        case Attention():
            return layer.add(builder, x, lambda key, value: _add(builder, getattr(layer, key), value, f"{name}.{key}"))
        case MeanOfTokens():
            return layer.add(builder, x)
        case nn.Linear():
            return builder.add("linear", [x], _weights(layer), name=name)
        case nn.Conv2d():
            attrs = {
                "stride": layer.stride,
                "padding": layer.padding,
                "dilation": layer.dilation,
                "groups": layer.groups,
            }
            return builder.add("conv", [x], _weights(layer), attrs, name=name)
        case nn.MaxPool2d(kernel_size=k):
            attrs = {"kernel": (k, k), "stride": (k, k), "padding": (0, 0), "dilation": (1, 1)}
            return builder.add("max_pool", [x], attrs=attrs, name=name)
        case nn.Flatten():
            return builder.add("reshape", [x], attrs={"shape": (1, builder.nodes[x].size)}, name=name)
        case _:
            return builder.add(_SCALAR[type(layer)], [x], name=name)


def _weights(layer: nn.Linear | nn.Conv2d) -> dict[str, Tensor]:
    return {"weight": layer.weight.detach().double(), "bias": layer.bias.detach().double()}


def dense(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with these weights."""
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    return _fill(layer, weight, bias)


def convolution(weight: Tensor, bias: Tensor, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """A convolution with these weights."""
    size = (weight.shape[2], weight.shape[3])
    layer = nn.utils.skip_init(nn.Conv2d, weight.shape[1], weight.shape[0], size, stride=stride, padding=padding)
    return _fill(layer, weight, bias)


def _fill(layer: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


Weights = list[tuple[Tensor, Tensor]]


def mlp(weights: Weights) -> nn.Sequential:
    """Linear layers with ReLU between."""
    layers = [layer for pair in weights for layer in (dense(*pair), ReLU())]
    return nn.Sequential(Flatten(), *layers[:-1])


def convolutional(weights: Weights, geometry: Sequence[tuple[int, int]]) -> nn.Sequential:
    """Convolutions of (stride, padding), then linear layers, with ReLU between."""
    head, tail = weights[: len(geometry)], weights[len(geometry) :]
    layers = [
        layer for pair, place in zip(head, geometry, strict=True) for layer in (convolution(*pair, *place), ReLU())
    ]
    return nn.Sequential(*layers, *mlp(tail))


def resnet_2b(weights: Weights) -> nn.Sequential:
    """resnet_2b of VNN-COMP: two residual blocks, the first with a shortcut of 1x1."""
    stem, a1, a2, short, b1, b2, *linear = weights
    first = nn.Sequential(convolution(*a1, 2, 1), ReLU(), convolution(*a2, 1, 1))
    second = nn.Sequential(convolution(*b1, 1, 1), ReLU(), convolution(*b2, 1, 1))
    blocks = [Residual(first, nn.Sequential(convolution(*short, 2, 0))), ReLU(), Residual(second), ReLU()]
    return nn.Sequential(convolution(*stem, 2, 1), ReLU(), *blocks, *mlp(linear))


def transformer_block(weights: Weights, heads: int = 2) -> nn.Sequential:
    """Attention and a ReLU layer, each with a residual; the mean over tokens; a linear layer. No layer norm."""
    q, k, v, o, wide, narrow, last = (dense(*pair) for pair in weights)
    body = Residual(nn.Sequential(wide, ReLU(), narrow))
    return nn.Sequential(Residual(nn.Sequential(Attention(q, k, v, o, heads))), body, MeanOfTokens(), last)


def onnx_weights(path: Path) -> Weights:
    """Weights and biases of the Conv, Gemm and MatMul-Add layers of an ONNX file; a leading Sub is folded in."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    stored = {i.name: torch.tensor(numpy_helper.to_array(i)).double() for i in graph.initializer}
    mean, weights, pairs = torch.zeros(()).double(), [], []
    for node in graph.node:
        held = [stored[name] for name in node.input if name in stored]
        match node.op_type:
            case "Sub":
                mean = held[0].flatten()
            case "Conv" | "Gemm":
                pairs.append((held[0], held[1]))
            case "MatMul":
                weights.append(held[0].T)
            case "Add" if held:
                pairs.append((weights[-1], held[0]))
    if mean.ndim:
        pairs[0] = (pairs[0][0], pairs[0][1] - pairs[0][0] @ mean)
    return pairs


def stored_problems(folder: Path, only: str = "") -> list[Problem]:
    """The problems of a folder of .npz files (lo, hi, C, w0, b0, ..., lb_*), whose ONNX files are in ../vnncomp.

    `only`: those whose names have this part.
    """
    onnx = folder.resolve().parent / "vnncomp"
    build: Mapping[str, Callable[[Weights], nn.Module | Path]] = {
        "mlp784_256x6": mlp,
        "cifar_convsmall": lambda weights: convolutional(weights, [(2, 0), (2, 0)]),
        "mnist_convbig": lambda weights: convolutional(weights, [(1, 1), (2, 1), (1, 1), (2, 1)]),
        "resnet2b": lambda _: resnet_2b(onnx_weights(onnx / "cifar10_resnet/onnx/resnet_2b.onnx")),
        "acas1_1": lambda _: mlp(onnx_weights(onnx / "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx")),
        "transformer_block": transformer_block,
        "vit_pgd_2_3_16": lambda _: onnx / "vit/onnx/pgd_2_3_16.onnx",
    }
    problems = []
    for path in sorted(p for p in folder.glob("*.npz") if only in p.stem):
        kind = next((name for name in build if path.stem.startswith(name)), None)
        if kind is None:
            continue
        data = {key: torch.tensor(value) for key, value in np.load(path).items()}
        weights = [(data[f"w{i}"], data[f"b{i}"]) for i in range(len(data)) if f"w{i}" in data]
        stored = {key.removeprefix("lb_"): value for key, value in data.items() if key.startswith("lb_")}
        problems.append(Problem(path.stem, build[kind](weights), data["lo"], data["hi"], data["C"], stored))
    return problems


def random_problems(seed: int = 0) -> list[Problem]:
    """Networks of the same kinds with random weights, for where no folder is at hand."""
    torch.manual_seed(seed)

    def linear(*sizes: int) -> Weights:
        return [(torch.randn(b, a) * (2 / a) ** 0.5, torch.randn(b) * 0.1) for a, b in pairwise(sizes)]

    def conv(*shapes: tuple[int, int, int]) -> Weights:
        return [(torch.randn(o, i, k, k) * (2 / (i * k * k)) ** 0.5, torch.randn(o) * 0.1) for o, i, k in shapes]

    small, small_dense = conv((16, 3, 4), (32, 16, 4)), linear(1152, 100, 10)
    block = [*(linear(32, 32)[0] for _ in range(4)), *linear(32, 64, 32), *linear(32, 10)]
    residual = conv((8, 3, 3), (16, 8, 3), (16, 16, 3), (16, 8, 1), (16, 16, 3), (16, 16, 3))
    return [
        _around("random_mlp784_256x6", mlp(linear(784, *[256] * 6, 10)), (1, 784), 0.005),
        _around("random_convsmall", convolutional([*small, *small_dense], [(2, 0), (2, 0)]), (8, 3, 32, 32), 0.005),
        _around("random_resnet2b", resnet_2b([*residual, *linear(1024, 100, 10)]), (1, 3, 32, 32), 0.005),
        _around("random_acas", mlp(linear(5, *[50] * 6, 5)), (1024, 5), 0.02),
        _around("random_transformer", transformer_block(block), (1, 16, 32), 0.005),
    ]


def _around(name: str, module: nn.Sequential, shape: tuple[int, ...], radius: float) -> Problem:
    """A box of this radius around random points, and the margins of the largest output over the others as rows."""
    center = torch.rand(shape)
    with torch.no_grad():
        y = module(center)
    eye = torch.eye(y.shape[1])
    rows = [torch.stack([eye[t] - eye[k] for k in range(len(eye)) if k != t]) for t in y.argmax(1).tolist()]
    return Problem(name, module, center - radius, center + radius, torch.stack(rows), {})
