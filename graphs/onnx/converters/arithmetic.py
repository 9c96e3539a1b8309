"""Arithmetic of several values."""

from __future__ import annotations

import math
from functools import reduce

import torch

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value, Variable, is_float

for _op, _function in {"Add": algebra.add, "Sub": algebra.sub, "Mul": algebra.mul, "Div": algebra.div}.items():
    converter(_op, since=7)(_function)


@converter("Sum", since=6)
def sum_(ctx: Context, *values: Value) -> Value:
    """x1 + x2 + ..."""
    return reduce(lambda a, b: algebra.add(ctx, a, b), values)


@converter("Mean", since=6)
def mean(ctx: Context, *values: Value) -> Value:
    """The average of the inputs."""
    return algebra.times(ctx, sum_(ctx, *values), 1.0 / len(values))


@converter("Max", since=6)
def max_(ctx: Context, *values: Value) -> Value:
    """The largest of the inputs, elementwise."""
    return reduce(lambda a, b: algebra.extreme(ctx, a, b, largest=True), values)


@converter("Min", since=6)
def min_(ctx: Context, *values: Value) -> Value:
    """The smallest of the inputs, elementwise."""
    return reduce(lambda a, b: algebra.extreme(ctx, a, b, largest=False), values)


@converter("Pow", since=7)
def pow_(ctx: Context, a: Value, b: Value) -> Value:
    """x^c for one constant exponent, or c^x for constants c > 0."""
    known = algebra.both(a, b, lambda x, y: torch.pow(x.double(), y.double()))
    if known is not None:
        return known
    if isinstance(a, Constant) and bool((a.tensor > 0).all()):
        log = Constant(a.tensor.double().log(), a.dtype, a.name)
        return ctx.emit("exp", algebra.mul(ctx, b, log))
    if not isinstance(b, Constant) or len(set(b.tensor.reshape(-1).tolist())) != 1:
        raise ctx.unsupported("Pow is supported only with one constant exponent, or a positive constant base")
    return power(ctx, algebra.broadcast_up(ctx, a, b.shape), float(b.tensor.reshape(-1)[0]))


def power(ctx: Context, x: Value, exponent: float) -> Value:
    """x^exponent by the simplest op."""
    plain = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}
    if exponent == 1.0:
        return x
    if exponent == 0.0:
        return ctx.constant(torch.ones(x.shape), x.dtype)
    if not math.isfinite(exponent):
        raise ctx.unsupported("Pow has an exponent that is not finite")
    return ctx.emit(plain[exponent], x) if exponent in plain else ctx.emit("power", x, exponent=exponent)


@converter("Mod", since=10)
def mod(ctx: Context, a: Value, b: Value) -> Value:
    """Remainder with the divisor's sign, or with fmod = 1 the dividend's; by a constant."""
    fmod = bool(ctx.attr("fmod", 0))
    known = algebra.both(a, b, torch.fmod if fmod else torch.remainder)
    if known is not None:
        return known
    if not isinstance(b, Constant) or not is_float(a.dtype) or not fmod:
        raise ctx.unsupported("Mod is supported only for floats by a constant, with fmod = 1")
    whole = ctx.emit("trunc", algebra.div(ctx, a, b))
    return algebra.sub(ctx, a, algebra.mul(ctx, whole, b))


@converter("CumSum", since=11)
def cumsum(ctx: Context, x: Value, axis: Value) -> Value:
    """Running sum; backwards by flipping before and after, exclusive by taking the entry itself away."""
    at = ctx.wrap(ctx.ints(axis, "the axis of CumSum")[0], len(x.shape))
    flip = torch.arange(x.shape[at] - 1, -1, -1)
    reverse = bool(ctx.attr("reverse", 0))
    y = ctx.emit("gather", x, index=flip, axis=at) if reverse else x
    total = ctx.emit("cumsum", y, axis=at)
    total = algebra.sub(ctx, total, y) if ctx.attr("exclusive", 0) else total
    return ctx.emit("gather", total, index=flip, axis=at) if reverse else total


@converter("Identity")
def identity(ctx: Context, x: Value) -> Value:
    """x."""
    return x


@converter("Dropout", since=7)
def dropout(ctx: Context, x: Value) -> tuple[Value, ...]:
    """Inference: the identity; the mask is all true."""
    return x, ctx.constant(torch.ones(x.shape), "bool")


@converter("Dropout", since=12)
def dropout_inputs(
    ctx: Context, x: Value, ratio: Value | None = None, training: Value | None = None
) -> tuple[Value, ...]:
    """The identity, unless training mode is on."""
    if training is not None and (isinstance(training, Variable) or bool(training.tensor.any())):
        raise ctx.unsupported("Dropout in training mode is random", help="export the model in evaluation mode")
    return x, ctx.constant(torch.ones(x.shape), "bool")
