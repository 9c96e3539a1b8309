"""Normalisations and softmax."""

from __future__ import annotations

import math

import torch

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Masked, Value


@converter("BatchNormalization", since=7)
def batch_norm(ctx: Context, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Value:
    """Per channel (axis 1): (x - mean) / sqrt(variance + epsilon) * scale + bias, as one scale and one shift."""
    if ctx.attr("training_mode", 0) or (len(ctx.node.output) > 1 and any(ctx.node.output[1:])):
        raise ctx.unsupported("BatchNormalization in training mode depends on the batch")
    g, b, m, v = (ctx.known(value, "a parameter of BatchNormalization") for value in (scale, bias, mean, variance))
    factor = g / (v + float(ctx.attr("epsilon", 1e-5))).sqrt()
    return _affine(ctx, x, Constant(factor, x.dtype), Constant(b - m * factor, x.dtype))


def _affine(ctx: Context, x: Value, factor: Value, offset: Value | None) -> Value:
    """Scale and shift per channel (axis 1)."""
    trailing = (1,) * max(len(x.shape) - 2, 0)
    y = algebra.mul(ctx, x, algebra.reshape(ctx, factor, (*factor.shape, *trailing)))
    return y if offset is None else algebra.add(ctx, y, algebra.reshape(ctx, offset, (*offset.shape, *trailing)))


@converter("InstanceNormalization", since=6)
def instance_norm(ctx: Context, x: Value, scale: Value, bias: Value) -> Value:
    """Each channel of each sample normalised over its space, then scaled and shifted."""
    axes = tuple(range(2, len(x.shape)))
    y = ctx.emit("layer_norm", x, axes=axes, eps=float(ctx.attr("epsilon", 1e-5)))
    return _affine(ctx, y, scale, bias)


@converter("GroupNormalization", since=18)
def group_norm(ctx: Context, x: Value, scale: Value, bias: Value) -> Value:
    """Scale and bias per group (opset 18) or per channel (opset 21)."""
    groups, channels = int(ctx.attr("num_groups")), x.shape[1]
    split = algebra.reshape(ctx, x, (x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    normed = ctx.emit("layer_norm", split, axes=(2,), eps=float(ctx.attr("epsilon", 1e-5)))
    if ctx.opset < 21:
        index = torch.arange(groups).repeat_interleave(channels // groups)
        scale, bias = (ctx.emit("gather", v, index=index, axis=0) for v in (scale, bias))
    return _affine(ctx, algebra.reshape(ctx, normed, x.shape), scale, bias)


@converter("LayerNormalization", since=17)
def layer_norm(ctx: Context, x: Value, scale: Value, bias: Value | None = None) -> Value:
    """Normalised over the axes from `axis` on, then scaled and shifted."""
    axes = tuple(range(ctx.axis("axis", -1, len(x.shape)), len(x.shape)))
    y = algebra.mul(ctx, ctx.emit("layer_norm", x, axes=axes, eps=float(ctx.attr("epsilon", 1e-5))), scale)
    return y if bias is None else algebra.add(ctx, y, bias)


@converter("RMSNormalization", since=23)
def rms_norm(ctx: Context, x: Value, scale: Value) -> Value:
    """x over its root mean square over the axes from `axis` on, then scaled."""
    axes = tuple(range(ctx.axis("axis", -1, len(x.shape)), len(x.shape)))
    return algebra.mul(ctx, ctx.emit("rms_norm", x, axes=axes, eps=float(ctx.attr("epsilon", 1e-5))), scale)


@converter("LpNormalization")
def lp_norm(ctx: Context, x: Value) -> Value:
    """x over its norm along an axis."""
    axes = (ctx.axis("axis", -1, len(x.shape)),)
    if ctx.attr("p", 2) == 1:
        norm = ctx.emit("sum", ctx.emit("abs", x), axes=axes, keepdims=True)
    else:
        norm = ctx.emit("sqrt", ctx.emit("sum", ctx.emit("square", x), axes=axes, keepdims=True))
    return algebra.div(ctx, x, norm)


@converter("Softmax", since=13)
def softmax(ctx: Context, x: Value) -> Value:
    """Along one axis, over the entries that a mask of -inf keeps."""
    axis = ctx.axis("axis", -1, len(x.shape))
    mask = x.kept.double() if isinstance(x, Masked) else None
    if mask is not None and not bool(mask.sum(axis).all()):
        raise ctx.malformed("a mask leaves out every entry of a row, whose Softmax is NaN")
    return ctx.emit("softmax", x, axis=axis, mask=mask)


@converter("LogSoftmax", since=13)
def log_softmax(ctx: Context, x: Value) -> Value:
    """Along one axis."""
    return ctx.emit("log_softmax", x, axis=ctx.axis("axis", -1, len(x.shape)))


@converter("Softmax")
def softmax_flattened(ctx: Context, x: Value) -> Value:
    """Before opset 13: along all axes from `axis` on."""
    axis = ctx.axis("axis", 1, len(x.shape))
    if isinstance(x, Masked) and math.prod(x.shape[axis + 1 :]) != 1:
        raise ctx.unsupported(
            "a Softmax over several axes cannot read a mask of -inf", help="export with opset 13 or newer"
        )
    if isinstance(x, Masked):
        return ctx.emit("softmax", x, axis=axis, mask=x.kept.double())
    return _flattened(ctx, x, "softmax")


@converter("LogSoftmax")
def log_softmax_flattened(ctx: Context, x: Value) -> Value:
    """Before opset 13: along all axes from `axis` on."""
    return _flattened(ctx, x, "log_softmax")


def _flattened(ctx: Context, x: Value, op: str) -> Value:
    """Before opset 13 all axes from `axis` on are one."""
    axis = ctx.axis("axis", 1, len(x.shape))
    if math.prod(x.shape[axis + 1 :]) == 1:
        return ctx.emit(op, x, axis=axis)
    flat = algebra.reshape(ctx, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
    return algebra.reshape(ctx, ctx.emit(op, flat, axis=1), x.shape)
