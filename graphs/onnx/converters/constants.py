"""Operators whose result is always known."""

from __future__ import annotations

import torch

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.converters.dynamic import behind
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value


@converter("Constant")
def constant(ctx: Context) -> Value:
    """The value of the attribute."""
    kinds = {"value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64"}
    if ctx.has("value"):
        value = ctx.attr("value")
        assert isinstance(value, Constant)
        return value
    for name, dtype in kinds.items():
        if ctx.has(name):
            return ctx.constant(torch.tensor(ctx.attr(name), dtype=torch.float64 if "float" in dtype else None), dtype)
    raise ctx.unsupported("a Constant that is sparse or a string is not supported")


@converter("ConstantOfShape", since=9)
def constant_of_shape(ctx: Context, shape: Value) -> Value:
    """One number, repeated to a shape."""
    value = ctx.attr("value", Constant(torch.zeros(1, dtype=torch.float64), "float32"))
    return Constant(value.tensor.reshape(()).expand(ctx.ints(shape, "the shape of ConstantOfShape")), value.dtype)


@converter("Range", since=11)
def range_(ctx: Context, start: Value, limit: Value, delta: Value) -> Value:
    """start, start + delta, ... below the limit."""
    ends = [ctx.known(v, "an end of Range").reshape(()).item() for v in (start, limit, delta)]
    ctx.require_room(abs((ends[1] - ends[0]) / (ends[2] or 1)))
    return ctx.constant(torch.arange(*ends, dtype=torch.float64), start.dtype)


@converter("EyeLike", since=9)
def eye_like(ctx: Context, x: Value) -> Value:
    """Ones on a diagonal of a matrix of x's shape."""
    from graphs.onnx import proto

    rows, columns = x.shape
    dtype = proto.element_type(int(ctx.attr("dtype")), ctx.where) if ctx.has("dtype") else x.dtype
    ctx.require_room(rows * columns)
    diagonal = torch.arange(columns)[None] - torch.arange(rows)[:, None]
    return ctx.constant((diagonal == int(ctx.attr("k", 0))).double(), dtype)


@converter("NonZero", since=9)
def non_zero(ctx: Context, x: Value) -> Value:
    """Where a constant is not 0: one column of indices per entry."""
    return ctx.constant(ctx.known(x, "the shape of NonZero's result").nonzero().T, "int64")


@converter("OneHot", since=9)
def one_hot(ctx: Context, indices: Value, depth: Value, values: Value) -> Value:
    """off + (on - off) [index = position], with the position along a new axis."""
    count = ctx.ints(depth, "the depth of OneHot")[0]
    ctx.require_room(count)
    off, on = ctx.known(values, "the values of OneHot").tolist()
    axis = ctx.axis("axis", -1, len(indices.shape) + 1)
    spread = algebra.reshape(ctx, indices, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    trailing = (1,) * (len(indices.shape) - axis)
    positions = torch.arange(count, dtype=torch.float64).reshape(count, *trailing)
    if isinstance(spread, Constant):
        hit: Value = ctx.constant((spread.tensor % count == positions).double(), values.dtype)
    else:
        hit = ctx.emit("is_zero", ctx.emit("shift", spread, offset=-positions)).cast(values.dtype)
        if behind(ctx, ctx.builder.nodes[spread.name], ("reshape",)).op != "arg_max":  # one below 0 counts from the end
            below = ctx.emit("is_zero", ctx.emit("shift", spread, offset=count - positions))
            hit = algebra.add(ctx, hit, below)
    return algebra.plus(ctx, algebra.times(ctx, hit, on - off), off)
