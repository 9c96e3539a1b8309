"""Small random networks with one flat input, as graphs."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from graphs import Graph, GraphBuilder

PLAIN = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
STRIDED = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1)}


def weights(seed: int, *shape: int) -> Tensor:
    """Gaussian weights of variance 2 / fan-in."""
    generator = torch.Generator().manual_seed(seed)
    fan_in = torch.Size(shape[1:]).numel() or 1
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * (2 / fan_in) ** 0.5


def mlp(seed: int = 0, sizes: tuple[int, ...] = (4, 12, 12, 3), act: str = "relu") -> Graph:
    """A multi-layer perceptron."""
    builder = GraphBuilder()
    x = builder.input("x", (sizes[0],))
    for layer, (n, m) in enumerate(pairwise(sizes)):
        params = {"weight": weights(seed + layer, m, n), "bias": weights(seed + 50 + layer, m, 1).flatten() * 0.2}
        x = builder.add("linear", [x], params)
        if layer < len(sizes) - 2:
            x = builder.add(act, [x])
    return builder.build([x])


def residual(seed: int = 0, size: int = 8) -> Graph:
    """Convolutions with two skip connections (one of them strided), then a linear head."""
    builder = GraphBuilder()
    x = builder.input("x", (size * size,))
    x = builder.add("reshape", [x], attrs={"shape": (1, 1, size, size)})

    def conv(x: str, channels: tuple[int, int], kernel: int, attrs: dict[str, tuple[int, int]], number: int) -> str:
        weight = weights(seed + number, channels[1], channels[0], kernel, kernel)
        bias = weights(seed + 50 + number, channels[1], 1).flatten() * 0.1
        return builder.add("conv", [x], {"weight": weight, "bias": bias}, attrs)

    stem = builder.add("relu", [conv(x, (1, 3), 3, PLAIN, 0)])
    inner = builder.add("relu", [conv(stem, (3, 3), 3, PLAIN, 1)])
    joined = builder.add("relu", [builder.add("add", [conv(inner, (3, 3), 3, PLAIN, 2), stem])])
    shortcut = conv(joined, (3, 4), 1, {"stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}, 3)
    joined = builder.add("relu", [builder.add("add", [conv(joined, (3, 4), 3, STRIDED, 4), shortcut])])
    flat = builder.add("reshape", [joined], attrs={"shape": (builder.nodes[joined].size,)})
    return builder.build([builder.add("linear", [flat], {"weight": weights(seed + 9, 3, builder.nodes[flat].size)})])


def pendulum(steps: int = 2) -> Graph:
    """A controller in a loop: angle and speed, sine dynamics, a small tanh controller, a product of variables."""
    builder = GraphBuilder()
    state = builder.input("x", (2,))
    for step in range(steps):
        hidden = builder.add("tanh", [builder.add("linear", [state], {"weight": weights(7, 6, 2)})])
        force = builder.add("linear", [hidden], {"weight": weights(8, 1, 6) * 0.3})
        angle = builder.add("slice", [state], attrs={"axis": 0, "start": 0, "stop": 1})
        speed = builder.add("slice", [state], attrs={"axis": 0, "start": 1, "stop": 2})
        drag = builder.add("mul", [speed, builder.add("abs", [speed])])
        push = builder.add("sub", [builder.add("add", [builder.add("sin", [angle]), force]), drag])
        factor = torch.tensor([0.1], dtype=torch.float64)
        angle = builder.add("add", [angle, builder.add("scale", [speed], {"factor": factor})])
        speed = builder.add("add", [speed, builder.add("scale", [push], {"factor": factor})])
        state = builder.add("concat", [angle, speed], attrs={"axis": 0}, name=f"state{step}")
    return builder.build([state])


def attention(tokens: int = 3, size: int = 4, heads: int = 2) -> Graph:
    """A transformer block: attention and a two-layer perceptron, each with its skip, then the mean of all numbers."""
    builder = GraphBuilder()
    x = builder.add("reshape", [builder.input("x", (tokens * size,))], attrs={"shape": (1, tokens, size)})

    def dense(x: str, number: int, n: int, m: int) -> str:
        params = {"weight": weights(number, m, n), "bias": weights(50 + number, m, 1).flatten() * 0.2}
        return builder.add("linear", [x], params)

    split, swap = {"shape": (1, tokens, heads, size // heads)}, {"perm": (0, 2, 1, 3)}
    q, k, v = (
        builder.add("transpose", [builder.add("reshape", [dense(x, n, size, size)], attrs=split)], attrs=swap)
        for n in range(3)
    )
    scores = builder.add("matmul", [q, builder.add("transpose", [k], attrs={"perm": (0, 1, 3, 2)})])
    mixed = builder.add("matmul", [builder.add("softmax", [scores], attrs={"axis": 3}), v])
    joined = builder.add("reshape", [builder.add("transpose", [mixed], attrs=swap)], attrs={"shape": (1, tokens, size)})
    x = builder.add("add", [x, dense(joined, 3, size, size)])
    hidden = builder.add("relu", [dense(x, 4, size, 2 * size)])
    x = builder.add("add", [x, dense(hidden, 5, 2 * size, size)])
    return builder.build([builder.add("mean", [x], attrs={"axes": (0, 1)})])
