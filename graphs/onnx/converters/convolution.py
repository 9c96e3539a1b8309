"""Convolutions. Padding that is not the same on both sides becomes a `pad` node of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value

Pads = tuple[list[int], list[int]]


def windows(ctx: Context, kernel: Sequence[int], space: Sequence[int]) -> tuple[list[int], list[int], Pads]:
    """Stride, dilation and padding (before, after) of the node's windows over the axes `space`."""
    rank = len(kernel)
    stride = [int(v) for v in ctx.attr("strides", [1] * rank)]
    dilation = [int(v) for v in ctx.attr("dilations", [1] * rank)]
    auto = str(ctx.attr("auto_pad", "NOTSET"))
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(space, stride, reach, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        return stride, dilation, (small, large) if auto == "SAME_UPPER" else (large, small)
    if auto not in ("NOTSET", "VALID", ""):
        raise ctx.unsupported(f"auto_pad = '{auto}' is not supported")
    pads = [0] * (2 * rank) if auto == "VALID" else [int(v) for v in ctx.attr("pads", [0] * (2 * rank))]
    return stride, dilation, (pads[:rank], pads[rank:])


def padded(ctx: Context, x: Value, pads: Pads, value: float = 0.0) -> Value:
    """x with its trailing axes surrounded by a constant."""
    before, after = pads
    if not any(before) and not any(after):
        return x
    lead = [0] * (len(x.shape) - len(before))
    return ctx.emit("pad", x, before=(*lead, *before), after=(*lead, *after), value=value)


@converter("Conv")
def conv(ctx: Context, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """Convolution by a constant kernel."""
    kernel = _weight(ctx, x, weight)
    stride, dilation, pads = windows(ctx, kernel.shape[2:], x.shape[2:])
    padding = pads[0] if pads[0] == pads[1] and min(pads[0]) >= 0 else [0] * len(pads[0])
    y = ctx.emit(
        "conv",
        x if padding == pads[0] == pads[1] else padded(ctx, x, pads),
        weight=kernel.double(),
        bias=bias.tensor.double() if isinstance(bias, Constant) else None,
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=int(ctx.attr("group", 1)),
    )
    return y if bias is None or isinstance(bias, Constant) else algebra.add(ctx, y, _per_channel(ctx, bias, y))


@converter("ConvTranspose")
def conv_transpose(ctx: Context, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """Transposed convolution by a constant kernel; what padding cuts off unevenly is cut by a `pad` node."""
    kernel = _weight(ctx, x, weight)
    space = kernel.dim() - 2
    stride = [int(v) for v in ctx.attr("strides", [1] * space)]
    dilation = [int(v) for v in ctx.attr("dilations", [1] * space)]
    full = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(x.shape[2:], stride, kernel.shape[2:], dilation, strict=True)
    ]
    before, after = _crops(ctx, full, x.shape[2:], stride)
    even = before == after and min(before) >= 0
    y = ctx.emit(
        "conv_transpose",
        x,
        weight=kernel.double(),
        bias=bias.tensor.double() if even and isinstance(bias, Constant) else None,
        stride=tuple(stride),
        padding=tuple(before) if even else (0,) * space,
        output_padding=(0,) * space,
        dilation=tuple(dilation),
        groups=int(ctx.attr("group", 1)),
    )
    if even and (bias is None or isinstance(bias, Constant)):
        return y
    y = y if even else padded(ctx, y, ([-n for n in before], [-n for n in after]))
    return y if bias is None else algebra.add(ctx, y, _per_channel(ctx, bias, y))


def _crops(ctx: Context, full: list[int], space: Sequence[int], stride: list[int]) -> Pads:
    """How much of the full result is cut off on each side (negative: zeros are added)."""
    extra = [int(v) for v in ctx.attr("output_padding", [0] * len(full))]
    auto = str(ctx.attr("auto_pad", "NOTSET"))
    shape = ctx.attr("output_shape")
    if shape is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        shape = [n * s for n, s in zip(space, stride, strict=True)]
    if shape is None:
        pads = [0] * (2 * len(full)) if auto == "VALID" else [int(v) for v in ctx.attr("pads", [0] * (2 * len(full)))]
        half = len(full)
        return pads[:half], [p - e for p, e in zip(pads[half:], extra, strict=True)]
    total = [f + e - int(n) for f, e, n in zip(full, extra, shape[-len(full) :], strict=True)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    return before, [a - e for a, e in zip(after, extra, strict=True)]


def _weight(ctx: Context, x: Value, weight: Value) -> torch.Tensor:
    if not isinstance(weight, Constant):
        raise ctx.unsupported(f"the weight of {ctx.node.op_type} depends on the network's input")
    if not 3 <= len(weight.shape) <= 5 or len(x.shape) != len(weight.shape):
        raise ctx.unsupported(f"{ctx.node.op_type} is supported in 1 to 3 dimensions")
    return weight.tensor


def _per_channel(ctx: Context, bias: Value, y: Value) -> Value:
    return algebra.reshape(ctx, bias, (*bias.shape, *(1,) * (len(y.shape) - 2)))
