"""Elementwise operators and arithmetic."""

from __future__ import annotations

import math
from typing import Any

import torch

from graphs.exported.context import Context, Live, Masked, Value, Var, converter
from graphs.exported.today import Dropout

_SMOOTH = ("sigmoid", "tanh", "exp", "log", "sqrt", "sin", "cos", "erf", "square", "reciprocal", "silu", "mish")
_RARE = ("tan", "asin", "atan", "trunc")
_PLAIN = (*_SMOOTH, *_RARE, "relu", "abs", "neg", "sign", "floor", "ceil", "round")


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
def elu(ctx: Context, x: Var, alpha: float = 1.0, scale: float = 1.0, inner: float = 1.0) -> Var:
    """Exponential linear unit: scale x where x > 0, else scale alpha (e^(inner x) - 1)."""
    if inner != 1:
        raise ctx.unsupported("an exponential linear unit whose exponent is scaled is not supported")
    y = ctx.emit("elu", x, alpha=float(alpha))
    return y if scale == 1 else ctx.times(y, scale)


@converter("celu.default", "celu_.default")
def celu(ctx: Context, x: Var, alpha: float = 1.0) -> Var:
    """Continuously differentiable exponential linear unit."""
    return ctx.emit("celu", x, alpha=float(alpha))


@converter("hardswish.default", "hardswish_.default")
def hardswish(ctx: Context, x: Var) -> Var:
    """x relu6(x + 3) / 6."""
    return ctx.emit("hard_swish", x)


@converter("prelu.default")
def prelu(ctx: Context, x: Var, slope: Live) -> Var:
    """A slope for all, or one for each channel."""
    tall = (-1, *(1 for _ in x.shape[2:]))
    return ctx.emit("prelu", x, params={"slope": slope.then(lambda t: t.reshape(tall) if t.numel() > 1 else t)})


@converter("log_sigmoid.default")
def log_sigmoid(ctx: Context, x: Var) -> Var:
    """-log(1 + e^-x)."""
    return ctx.emit("neg", ctx.emit("softplus", ctx.emit("neg", x)))


@converter("softshrink.default")
def softshrink(ctx: Context, x: Var, width: float = 0.5) -> Var:
    """x without what is within the width."""
    return ctx.emit("sub", x, ctx.emit("clip", x, lower=-float(width), upper=float(width)))


@converter("exp2.default", "expm1.default")
def exponential(ctx: Context, x: Var) -> Var:
    """2^x, or e^x - 1."""
    if "exp2" in ctx.where:
        return ctx.emit("exp", ctx.times(x, math.log(2)))
    return ctx.plus(ctx.emit("exp", x), -1.0)


@converter("log1p.default", "log2.default", "log10.default")
def logarithm(ctx: Context, x: Var) -> Var:
    """log(1 + x), or of another base."""
    if "log1p" in ctx.where:
        return ctx.emit("log", ctx.plus(x, 1.0))
    return ctx.times(ctx.emit("log", x), 1 / math.log(2 if "log2" in ctx.where else 10))


@converter("rsqrt.default")
def inverse_root(ctx: Context, x: Var) -> Var:
    """1 / sqrt(x)."""
    return ctx.emit("reciprocal", ctx.emit("sqrt", x))


@converter("sinh.default", "cosh.default")
def hyperbolic(ctx: Context, x: Var) -> Var:
    """(e^x - e^-x) / 2, or their sum."""
    pair = ctx.emit("exp", x), ctx.emit("exp", ctx.emit("neg", x))
    return ctx.times(ctx.emit("sub" if "sinh" in ctx.where else "add", *pair), 0.5)


@converter("erfc.default")
def erfc(ctx: Context, x: Var) -> Var:
    """1 - erf(x)."""
    return ctx.plus(ctx.emit("neg", ctx.emit("erf", x)), 1.0)


@converter("acos.default")
def arccosine(ctx: Context, x: Var) -> Var:
    """pi / 2 - asin(x)."""
    return ctx.plus(ctx.emit("neg", ctx.emit("asin", x)), math.pi / 2)


@converter("softplus.default")
def softplus(ctx: Context, x: Var, beta: float = 1.0, threshold: float = 20.0) -> Var:
    """log(1 + e^(beta x)) / beta; torch's straight line beyond the threshold differs by less than e^-threshold."""
    if threshold < 20:
        raise ctx.unsupported(f"softplus with a jump at {threshold:g} is not supported", help="leave threshold at 20")
    y = ctx.emit("softplus", x if beta == 1 else ctx.times(x, beta))
    return y if beta == 1 else ctx.times(y, 1 / beta)


@converter("hardtanh.default", "hardtanh_.default")
def hardtanh(ctx: Context, x: Var, least: float = -1.0, most: float = 1.0) -> Var:
    """Between -1 and 1, or other ends."""
    return clamp(ctx, x, least, most)


@converter("relu6.default", "relu6_.default")
def relu6(ctx: Context, x: Var) -> Var:
    """Between 0 and 6."""
    return clamp(ctx, x, 0.0, 6.0)


@converter("round.decimals")
def round_to(ctx: Context, x: Var, *, decimals: int) -> Var:
    """To so many places behind the point."""
    return ctx.times(ctx.emit("round", ctx.times(x, 10.0**decimals)), 10.0**-decimals)


@converter("clamp.default", "clamp_.default")
def clamp(ctx: Context, x: Var, least: float | None = None, most: float | None = None) -> Var:
    """min(max(x, least), most)."""
    ends = (-math.inf if least is None else float(least), math.inf if most is None else float(most))
    return ctx.emit("clip", x, lower=ends[0], upper=ends[1])


@converter("clamp.Tensor", "clamp_min.Tensor", "clamp_max.Tensor")
def clamp_by(ctx: Context, x: Var, *ends: Value) -> Var:
    """Between tensors."""
    if "clamp_max" in ctx.where:
        ends = (None, *ends)
    for op, end in zip(("maximum", "minimum"), ends, strict=False):
        x = x if end is None else larger(ctx, x, end, op)
    return x


@converter("clamp_min.default", "clamp_max.default")
def clamp_one(ctx: Context, x: Var, end: float) -> Var:
    """max(x, end), or min(x, end)."""
    least, most = (-math.inf, float(end)) if "clamp_max" in ctx.where else (float(end), math.inf)
    return ctx.emit("clip", x, lower=least, upper=most)


@converter("add.Tensor", "add_.Tensor", "add.Scalar", "add_.Scalar")
def add(ctx: Context, x: Value, y: Value, *, alpha: float = 1) -> Var | Masked:
    """x + alpha y; minus infinity in a constant masks."""
    if isinstance(x, Live):
        return add(ctx, ctx.times(y, alpha), x) if alpha != 1 else add(ctx, y, x)
    if isinstance(y, Live) and y.fixed and bool(y.now().isneginf().any()):
        finite = y.then(lambda t: t.clamp(min=torch.finfo(t.dtype).min).where(~t.isneginf(), torch.zeros(())))
        shifted = ctx.plus(x, finite.then(lambda t: t * alpha))
        return Masked(shifted, y.then(lambda t: ~t.isneginf()))
    if isinstance(x, Var) and isinstance(y, Var):
        y = y if alpha == 1 else ctx.times(y, alpha)
        return ctx.emit("add", *ctx.alike(x, y))
    if isinstance(x, Var):
        return ctx.plus(x, ctx.tensor(y).then(lambda value: value * alpha))
    return ctx.plus(y if alpha == 1 else ctx.times(y, alpha), x)


@converter("sub.Tensor", "sub_.Tensor", "sub.Scalar", "sub_.Scalar")
def sub(ctx: Context, x: Value, y: Value, *, alpha: float = 1) -> Any:
    """x - alpha y."""
    if isinstance(x, Var) and isinstance(y, Var) and alpha == 1:
        return ctx.emit("sub", *ctx.alike(x, y))
    return add(ctx, x, y, alpha=-alpha)


@converter("rsub.Scalar", "rsub.Tensor")
def rsub(ctx: Context, x: Value, y: Value, alpha: float = 1) -> Any:
    """y - alpha x."""
    return sub(ctx, y, x, alpha=alpha)


@converter("mul.Tensor", "mul_.Tensor", "mul.Scalar", "mul_.Scalar")
def mul(ctx: Context, x: Value, y: Value) -> Var:
    """x y."""
    if isinstance(x, Var) and isinstance(y, Var):
        return ctx.emit("mul", *ctx.alike(x, y))
    return ctx.times(x, y) if isinstance(x, Var) else ctx.times(y, x)


@converter("div.Tensor", "div_.Tensor", "div.Scalar", "div_.Scalar")
def div(ctx: Context, x: Value, y: Value) -> Var:
    """x / y."""
    if isinstance(y, Var):
        return ctx.emit("div", *ctx.alike(x, y)) if isinstance(x, Var) else ctx.times(ctx.emit("reciprocal", y), x)
    return ctx.times(x, ctx.tensor(y).then(torch.reciprocal))


@converter("div.Tensor_mode", "div.Scalar_mode", "floor_divide.default", "floor_divide.Scalar")
def whole_quotient(ctx: Context, x: Value, y: Value, *, rounding_mode: str | None = "floor") -> Var:
    """x / y rounded down, or towards zero."""
    found = div(ctx, x, y)
    return found if rounding_mode is None else ctx.emit(rounding_mode, found)


@converter("remainder.Scalar", "remainder.Tensor", "fmod.Scalar", "fmod.Tensor")
def remainder(ctx: Context, x: Value, y: Value) -> Var:
    """x - y floor(x / y), or what truncation leaves."""
    mode = "trunc" if "fmod" in ctx.where else "floor"
    found: Var = sub(ctx, x, mul(ctx, whole_quotient(ctx, x, y, rounding_mode=mode), y))
    return found


@converter("pow.Tensor_Scalar")
def power(ctx: Context, x: Var, exponent: float) -> Var:
    """A constant power."""
    return ctx.emit("square", x) if exponent == 2 else ctx.emit("power", x, exponent=float(exponent))


@converter("pow.Scalar")
def power_of(ctx: Context, base: float, x: Var) -> Var:
    """A positive constant to a variable power."""
    if base <= 0:
        raise ctx.unsupported("a power of a number that is not positive is not supported")
    return ctx.emit("exp", ctx.times(x, math.log(base)))


@converter("maximum.default", "minimum.default")
def extreme(ctx: Context, x: Value, y: Value) -> Var:
    """The larger or the smaller."""
    return larger(ctx, x, y, "maximum" if "maximum" in ctx.where else "minimum")


def larger(ctx: Context, x: Value, y: Value, op: str) -> Var:
    """The maximum, or the minimum; with a constant c, c + relu(x - c) and c - relu(c - x)."""
    if isinstance(x, Var) and isinstance(y, Var):
        return ctx.emit(op, *ctx.alike(x, y))
    x, c = (x, ctx.tensor(y)) if isinstance(x, Var) else (ctx.variable(y), ctx.tensor(x))
    above = ctx.plus(x, c.then(torch.neg))
    if op == "maximum":
        return ctx.plus(ctx.emit("relu", above), c)
    return ctx.plus(ctx.emit("neg", ctx.emit("relu", ctx.emit("neg", above))), c)


@converter("softmax.int", "_softmax.default", "log_softmax.int", "_log_softmax.default")
def softmax(ctx: Context, x: Var | Masked, axis: int, *rest: Any, **named: Any) -> Var:
    """Along one axis."""
    op = "log_softmax" if "log_softmax" in ctx.where else "softmax"
    if isinstance(x, Var):
        return ctx.emit(op, x, axis=axis % len(x.shape))
    if op == "log_softmax":
        raise ctx.unsupported("the logarithm of a softmax with a mask is not finite")
    return masked_softmax(ctx, x, axis % len(x.source.shape))


def masked_softmax(ctx: Context, x: Masked, axis: int) -> Var:
    """Over what is kept."""
    shape = x.source.shape
    mask = x.kept.then(lambda t: t.to(ctx.dtype).expand(shape))
    return ctx.emit("softmax", x.source, params={"mask": mask}, axis=axis)


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
