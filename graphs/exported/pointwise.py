"""Elementwise operators and arithmetic."""

from __future__ import annotations

import math
from typing import Any

import torch

from graphs.exported.context import Context, Value, Var, converter
from graphs.exported.today import Dropout

_SMOOTH = ("sigmoid", "tanh", "exp", "log", "sqrt", "sin", "cos", "erf", "square", "reciprocal", "silu", "mish")
_PLAIN = (*_SMOOTH, "relu", "abs", "neg", "sign", "floor", "ceil", "round")


def _plain(op: str) -> None:
    @converter(f"{op}.default", f"{op}_.default")
    def convert(ctx: Context, x: Var) -> Var:
        return ctx.emit(op, x)


for _op in _PLAIN:
    _plain(_op)


@converter("gelu.default")
def gelu(ctx: Context, x: Var, *, approximate: str = "none") -> Var:
    """Both forms."""
    return ctx.emit("gelu" if approximate == "none" else "gelu_tanh", x)


@converter("leaky_relu.default", "leaky_relu_.default")
def leaky_relu(ctx: Context, x: Var, slope: float = 0.01) -> Var:
    """One slope for all."""
    return ctx.emit("leaky_relu", x, slope=float(slope))


@converter("elu.default", "elu_.default")
def elu(ctx: Context, x: Var, alpha: float = 1.0) -> Var:
    """Exponential linear unit."""
    return ctx.emit("elu", x, alpha=float(alpha))


@converter("softplus.default")
def softplus(ctx: Context, x: Var, beta: float = 1.0, threshold: float = 20.0) -> Var:
    """log(1 + e^(beta x)) / beta; torch's straight line beyond the threshold differs by less than e^-threshold."""
    y = ctx.emit("softplus", x if beta == 1 else ctx.times(x, beta))
    return y if beta == 1 else ctx.times(y, 1 / beta)


@converter("hardtanh.default", "hardtanh_.default", "clamp.default", "clamp_.default", "relu6.default")
def clamp(ctx: Context, x: Var, least: float | None = -1.0, most: float | None = 1.0) -> Var:
    """min(max(x, least), most)."""
    if "relu6" in ctx.where:
        least, most = 0.0, 6.0
    ends = (-math.inf if least is None else float(least), math.inf if most is None else float(most))
    return ctx.emit("clip", x, lower=ends[0], upper=ends[1])


@converter("clamp_min.default")
def clamp_min(ctx: Context, x: Var, least: float) -> Var:
    """max(x, least)."""
    return ctx.emit("clip", x, lower=float(least), upper=math.inf)


@converter("add.Tensor", "add_.Tensor", "add.Scalar")
def add(ctx: Context, x: Value, y: Value, *, alpha: float = 1) -> Var:
    """x + alpha y."""
    if isinstance(x, Var) and isinstance(y, Var):
        y = y if alpha == 1 else ctx.times(y, alpha)
        return ctx.emit("add", *ctx.alike(x, y))
    if isinstance(x, Var):
        return ctx.plus(x, ctx.tensor(y).then(lambda value: value * alpha))
    return ctx.plus(y if alpha == 1 else ctx.times(y, alpha), x)


@converter("sub.Tensor", "sub_.Tensor", "sub.Scalar")
def sub(ctx: Context, x: Value, y: Value, *, alpha: float = 1) -> Var:
    """x - alpha y."""
    if isinstance(x, Var) and isinstance(y, Var) and alpha == 1:
        return ctx.emit("sub", *ctx.alike(x, y))
    return add(ctx, x, y, alpha=-alpha)


@converter("rsub.Scalar", "rsub.Tensor")
def rsub(ctx: Context, x: Value, y: Value, alpha: float = 1) -> Var:
    """y - alpha x."""
    return sub(ctx, y, x, alpha=alpha)


@converter("mul.Tensor", "mul_.Tensor", "mul.Scalar")
def mul(ctx: Context, x: Value, y: Value) -> Var:
    """x y."""
    if isinstance(x, Var) and isinstance(y, Var):
        return ctx.emit("mul", *ctx.alike(x, y))
    return ctx.times(x, y) if isinstance(x, Var) else ctx.times(y, x)


@converter("div.Tensor", "div_.Tensor", "div.Scalar")
def div(ctx: Context, x: Value, y: Value) -> Var:
    """x / y."""
    if isinstance(y, Var):
        return ctx.emit("div", *ctx.alike(x, y)) if isinstance(x, Var) else ctx.times(ctx.emit("reciprocal", y), x)
    return ctx.times(x, ctx.tensor(y).then(torch.reciprocal))


@converter("pow.Tensor_Scalar")
def power(ctx: Context, x: Var, exponent: float) -> Var:
    """A constant power."""
    return ctx.emit("square", x) if exponent == 2 else ctx.emit("power", x, exponent=float(exponent))


@converter("maximum.default", "minimum.default")
def extreme(ctx: Context, x: Value, y: Value) -> Var:
    """Of two variables."""
    op = "maximum" if "maximum" in ctx.where else "minimum"
    return ctx.emit(op, *ctx.alike(ctx.variable(x), ctx.variable(y)))


@converter("softmax.int", "_softmax.default", "log_softmax.int", "_log_softmax.default")
def softmax(ctx: Context, x: Var, axis: int, *rest: Any, **named: Any) -> Var:
    """Along one axis."""
    return ctx.emit("log_softmax" if "log_softmax" in ctx.where else "softmax", x, axis=axis % len(x.shape))


@converter("logsumexp.default")
def logsumexp(ctx: Context, x: Var, axes: list[int], keepdim: bool = False) -> Var:
    """Over axes."""
    return ctx.emit("logsumexp", x, axes=tuple(a % len(x.shape) for a in axes), keepdims=keepdim)


@converter("dropout.default", "dropout_.default")
def dropout(ctx: Context, x: Var, share: float, training: bool) -> Var:
    """The identity in evaluation; a module in training gets one mask for all samples, drawn anew at each step."""
    if not ctx.training or share == 0:
        return x
    factor = ctx.builder.constant(torch.ones(x.shape, dtype=ctx.dtype), f"{ctx.path}.mask")
    ctx.today.append(Dropout(ctx.path, x.name, factor, float(share)))
    return ctx.emit("scale", x, params={"factor": factor})
