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
    """The mean over space."""
    return ctx.emit("mean", x, axes=tuple(range(2, len(x.shape))), keepdims=True)


@converter("GlobalMaxPool")
def global_max_pool(ctx: Context, x: Value) -> Value:
    """The maximum over space."""
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
    """Padding that differs before and after is given as all begins, then all ends."""
    kernel, stride, dilation, _, (before, reached) = _geometry(ctx, x)
    after = [max(n, 0) for n in reached]
    padding = before if before == after else [*before, *after]
    settings = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return ctx.emit("max_pool", x, **{name: tuple(value) for name, value in settings.items()})


@converter("AveragePool", since=7)
def average_pool(ctx: Context, x: Value) -> Value:
    """The sum over each window (zeros around), over how many entries of it count."""
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
