"""Pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.converters.convolution import Pads, padded, windows
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value


@converter("GlobalAveragePool")
def global_average_pool(ctx: Context, x: Value) -> Value:
    return ctx.emit("mean", x, axes=tuple(range(2, len(x.shape))), keepdims=True)


@converter("GlobalMaxPool")
def global_max_pool(ctx: Context, x: Value) -> Value:
    return ctx.emit("reduce_max", x, axes=tuple(range(2, len(x.shape))), keepdims=True)


def _geometry(ctx: Context, x: Value) -> tuple[list[int], list[int], list[int], Pads, Pads]:
    """Kernel, stride, dilation, the padding that is given, and the padding that reaches the end of the last window."""
    kernel = [int(v) for v in ctx.attr("kernel_shape")]
    if len(x.shape) != len(kernel) + 2 or not 1 <= len(kernel) <= 3:
        raise ctx.unsupported(f"{ctx.node.op_type} is supported in 1 to 3 dimensions")
    stride, dilation, (before, after) = windows(ctx, kernel, x.shape[2:])
    ceil = bool(ctx.attr("ceil_mode", 0)) and str(ctx.attr("auto_pad", "NOTSET")) == "NOTSET"
    reached = []
    for n, k, s, d, low, high in zip(x.shape[2:], kernel, stride, dilation, before, after, strict=True):
        reach = (k - 1) * d + 1
        steps = n + low + high - reach
        count = (-(-steps // s) if ceil else steps // s) + 1
        if ceil and (count - 1) * s >= n + low:  # no window may start in the padding behind
            count -= 1
        reached.append((count - 1) * s + reach - n - low)
    return kernel, stride, dilation, (before, after), (before, reached)


@converter("MaxPool")
def max_pool(ctx: Context, x: Value) -> Value:
    kernel, stride, dilation, (before, after), reached = _geometry(ctx, x)
    even = before == after and all(0 <= 2 * p <= k for p, k in zip(before, kernel, strict=True))
    even = even and all(high <= low for low, high in zip(*reached, strict=True))
    if not even:
        x = _repeat_border(ctx, x, dilation, reached)
    return ctx.emit(
        "max_pool",
        x,
        kernel=tuple(kernel),
        stride=tuple(stride),
        padding=tuple(before) if even else (0,) * len(kernel),
        dilation=tuple(dilation),
    )


def _repeat_border(ctx: Context, x: Value, dilation: Sequence[int], pads: Pads) -> Value:
    """Padding with copies of entries that every window touching them holds anyway, so that no maximum changes."""
    for axis, (d, low, high) in enumerate(zip(dilation, *pads, strict=True), start=2):
        n = x.shape[axis]
        if n < d:
            raise ctx.unsupported("a dilation is larger than the value")
        index = torch.arange(-low, n + high)
        index = torch.where(index < 0, index % d, index)
        index = torch.where(index >= n, n - 1 - (n - 1 - index) % d, index)
        if low or high:
            x = ctx.emit("gather", x, index=index, axis=axis)
    return x


@converter("AveragePool", since=7)
def average_pool(ctx: Context, x: Value) -> Value:
    kernel, stride, dilation, given, reached = _geometry(ctx, x)
    include = bool(ctx.attr("count_include_pad", 0))
    counts = _counts(x.shape[2:], (kernel, stride, dilation), given if include else ([0] * len(kernel),) * 2, reached)
    plain = bool((counts == math.prod(kernel)).all())
    even = reached[0] == given[0] == given[1] and min(given[0]) >= 0
    even = even and all(2 * p <= k for p, k in zip(given[0], kernel, strict=True))
    padding = given[0] if plain and even else [0] * len(kernel)
    x = x if plain and even else padded(ctx, x, reached)
    if set(dilation) == {1}:
        y = ctx.emit("avg_pool", x, kernel=tuple(kernel), stride=tuple(stride), padding=tuple(padding))
    else:
        y = _dilated(ctx, x, kernel, stride, padding, dilation)
    return y if plain else algebra.mul(ctx, y, Constant(math.prod(kernel) / counts, x.dtype))


def _dilated(
    ctx: Context, x: Value, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Value:
    weight = torch.full((x.shape[1], 1, *kernel), 1.0 / math.prod(kernel), dtype=torch.float64)
    settings = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation)}
    return ctx.emit("conv", x, weight=weight, groups=x.shape[1], **settings)


def _counts(space: Sequence[int], window: tuple[list[int], ...], counted: Pads, reached: Pads) -> Tensor:
    """For each window the number of entries that the average is over; `counted` padding is among them."""
    total = torch.ones(())
    for axis, (n, k, s, d) in enumerate(zip(space, *window, strict=True)):
        low, high = reached[0][axis], reached[1][axis]
        position = torch.arange(-low, n + high)
        valid = (position >= -counted[0][axis]) & (position < n + counted[1][axis])
        per_window = valid.double().unfold(0, (k - 1) * d + 1, s)[:, ::d].sum(1)
        total = total[..., None] * per_window
    return total
