"""Comparisons, logic and choices; booleans are the numbers 0 and 1."""

from __future__ import annotations

import numpy as np
import torch

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value


def _compare(ctx: Context, a: Value, b: Value, closed: bool) -> Value:
    """a > b, or a >= b where closed."""
    known = algebra.both(a, b, torch.ge if closed else torch.gt)
    y = known if known is not None else ctx.emit("step", algebra.sub(ctx, a, b), closed=closed)
    return y.cast("bool")


@converter("Greater", since=7)
def greater(ctx: Context, a: Value, b: Value) -> Value:
    """a > b."""
    return _compare(ctx, a, b, False)


@converter("GreaterOrEqual", since=12)
def greater_or_equal(ctx: Context, a: Value, b: Value) -> Value:
    """a >= b."""
    return _compare(ctx, a, b, True)


@converter("Less", since=7)
def less(ctx: Context, a: Value, b: Value) -> Value:
    """a < b."""
    return _compare(ctx, b, a, False)


@converter("LessOrEqual", since=12)
def less_or_equal(ctx: Context, a: Value, b: Value) -> Value:
    """a <= b."""
    return _compare(ctx, b, a, True)


@converter("Equal", since=7)
def equal(ctx: Context, a: Value, b: Value) -> Value:
    """a = b."""
    known = algebra.both(a, b, torch.eq)
    return (known if known is not None else ctx.emit("is_zero", algebra.sub(ctx, a, b))).cast("bool")


@converter("IsNaN", since=9)
def is_nan(ctx: Context, x: Value) -> Value:
    """Never, of a Softmax: a mask that leaves a row without an entry is refused."""
    if isinstance(x, Constant):
        return ctx.constant(x.tensor.isnan(), "bool")
    maker = next((node.op_type for node in ctx.nodes if ctx.node.input[0] in node.output), "")
    if maker != "Softmax":
        raise ctx.unsupported("IsNaN can be read behind a Softmax only", help="export the model without it")
    return ctx.constant(torch.zeros(x.shape, dtype=torch.bool), "bool")


@converter("Not")
def not_(ctx: Context, x: Value) -> Value:
    """1 - x."""
    return ctx.constant(~x.tensor, "bool") if isinstance(x, Constant) else complement(ctx, x)


def complement(ctx: Context, x: Value) -> Value:
    """1 - x."""
    return ctx.emit("shift", ctx.emit("neg", x), offset=torch.ones(()).double())


@converter("And", since=7)
def and_(ctx: Context, a: Value, b: Value) -> Value:
    """The product, or the minimum."""
    known = algebra.both(a, b, torch.logical_and)
    if known is not None:
        return known
    if isinstance(a, Constant) or isinstance(b, Constant):
        return algebra.mul(ctx, a, b).cast("bool")
    return ctx.emit("minimum", *algebra.align(ctx, a, b))


@converter("Or", since=7)
def or_(ctx: Context, a: Value, b: Value) -> Value:
    """The maximum."""
    known = algebra.both(a, b, torch.logical_or)
    if known is not None:
        return known
    if isinstance(a, Constant) or isinstance(b, Constant):  # a + b - ab = a + b (1 - a) for a constant a
        a, b = (a, b) if isinstance(a, Constant) else (b, a)
        return algebra.add(ctx, algebra.mul(ctx, not_(ctx, a), b), a).cast("bool")
    return ctx.emit("maximum", *algebra.align(ctx, a, b))


@converter("Xor", since=7)
def xor(ctx: Context, a: Value, b: Value) -> Value:
    """|a - b|."""
    known = algebra.both(a, b, torch.logical_xor)
    return known if known is not None else ctx.emit("abs", algebra.sub(ctx, a, b))


@converter("Where", since=9)
def where(ctx: Context, condition: Value, x: Value, y: Value) -> Value:
    """x where the condition holds, else y."""
    shape = np.broadcast_shapes(condition.shape, x.shape, y.shape)
    if isinstance(condition, Constant):
        mask = condition.tensor.bool().expand(shape)
        return _masked(ctx, mask, x, y)
    if isinstance(x, Constant) and isinstance(y, Constant):  # y + c (x - y)
        return algebra.add(ctx, algebra.mul(ctx, condition.cast(x.dtype), algebra.sub(ctx, x, y)), y)
    rank = len(shape)
    c, a, b = (algebra.raise_rank(ctx, v, rank) for v in (condition, x, y))
    result = ctx.emit("where", c.cast(x.dtype), a, b)
    return result.cast(x.dtype)


def _masked(ctx: Context, mask: torch.Tensor, x: Value, y: Value) -> Value:
    if isinstance(x, Constant) and isinstance(y, Constant):
        return Constant(torch.where(mask, x.tensor, y.tensor), x.dtype, x.name)
    if bool(mask.all()):
        return algebra.broadcast(ctx, x, mask.shape)
    if not bool(mask.any()):
        return algebra.broadcast(ctx, y, mask.shape)
    if isinstance(x, Constant) or isinstance(y, Constant):
        keep, variable, known = (mask, x, y) if isinstance(y, Constant) else (~mask, y, x)
        assert isinstance(known, Constant)
        offset = torch.where(keep, torch.zeros((), dtype=known.tensor.dtype), known.tensor)
        if bool((offset[~keep] == -torch.inf).all()):  # a mask for a Softmax
            return algebra.add(ctx, algebra.broadcast(ctx, variable, mask.shape), Constant(offset, x.dtype, known.name))
        scaled = algebra.mul(ctx, variable, Constant(keep.double(), x.dtype))
        return algebra.add(ctx, scaled, Constant(offset, x.dtype, known.name))
    return ctx.emit("select", *(algebra.broadcast(ctx, v, mask.shape) for v in (x, y)), mask=mask)
