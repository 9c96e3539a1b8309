"""Functions of one number, applied elementwise."""

from __future__ import annotations

import math

import torch

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value, is_float

PLAIN = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Abs": "abs",
    "Neg": "neg",
    "Sign": "sign",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "Asin": "asin",
    "Atan": "atan",
    "Erf": "erf",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "HardSwish": "hard_swish",
    "Mish": "mish",
}


def _plain(op: str) -> None:
    @converter(op)
    def convert(ctx: Context, x: Value) -> Value:
        return ctx.emit(PLAIN[op], x)


for _op in PLAIN:
    _plain(_op)


@converter("Acos")
def arccosine(ctx: Context, x: Value) -> Value:
    """pi / 2 - asin(x)."""
    return algebra.plus(ctx, ctx.emit("neg", ctx.emit("asin", x)), math.pi / 2)


@converter("Sinh")
def hyperbolic_sine(ctx: Context, x: Value) -> Value:
    """(e^x - e^-x) / 2."""
    return algebra.times(ctx, algebra.sub(ctx, ctx.emit("exp", x), ctx.emit("exp", ctx.emit("neg", x))), 0.5)


@converter("Cosh")
def hyperbolic_cosine(ctx: Context, x: Value) -> Value:
    """(e^x + e^-x) / 2."""
    return algebra.times(ctx, algebra.add(ctx, ctx.emit("exp", x), ctx.emit("exp", ctx.emit("neg", x))), 0.5)


@converter("Atanh")
def area_tangent(ctx: Context, x: Value) -> Value:
    """(log(1 + x) - log(1 - x)) / 2."""
    above, below = (ctx.emit("log", algebra.plus(ctx, y, 1.0)) for y in (x, ctx.emit("neg", x)))
    return algebra.times(ctx, algebra.sub(ctx, above, below), 0.5)


@converter("Clip", since=6)
def clip_attributes(ctx: Context, x: Value) -> Value:
    """Bounds are attributes."""
    return clip(ctx, x, float(ctx.attr("min", -math.inf)), float(ctx.attr("max", math.inf)))


@converter("Clip", since=11)
def clip_inputs(ctx: Context, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    """Bounds are inputs."""
    if all(v is None or isinstance(v, Constant) for v in (low, high)):
        lower = -math.inf if low is None else ctx.scalar(low, "the lower bound of Clip")
        upper = math.inf if high is None else ctx.scalar(high, "the upper bound of Clip")
        return clip(ctx, x, lower, upper)
    x = x if low is None else algebra.extreme(ctx, x, low, largest=True)
    return x if high is None else algebra.extreme(ctx, x, high, largest=False)


def clip(ctx: Context, x: Value, lower: float, upper: float) -> Value:
    """x between two numbers; ONNX gives the upper one where they cross."""
    if math.isnan(lower) or math.isnan(upper):
        raise ctx.malformed("a bound of Clip is NaN")
    if (lower, upper) == (-math.inf, math.inf):
        return x
    return (
        ctx.emit("relu", x)
        if (lower, upper) == (0.0, math.inf)
        else ctx.emit("clip", x, lower=min(lower, upper), upper=upper)
    )


@converter("LeakyRelu", since=6)
def leaky_relu(ctx: Context, x: Value) -> Value:
    """x where x >= 0, else alpha x."""
    return ctx.emit("leaky_relu", x, slope=float(ctx.attr("alpha", 0.01)))


@converter("PRelu", since=7)
def prelu(ctx: Context, x: Value, slope: Value) -> Value:
    """x where x >= 0, else slope x; for a variable slope relu(x) - slope relu(-x)."""
    if isinstance(slope, Constant):
        return ctx.emit("prelu", x, slope=slope.tensor)
    negative = ctx.emit("neg", ctx.emit("relu", ctx.emit("neg", x)))
    return algebra.add(ctx, ctx.emit("relu", x), algebra.mul(ctx, negative, slope))


@converter("ThresholdedRelu", since=10)
def thresholded_relu(ctx: Context, x: Value) -> Value:
    """x where x > alpha, else 0."""
    alpha = float(ctx.attr("alpha", 1.0))
    above = ctx.emit("step", algebra.plus(ctx, x, -alpha), closed=False)
    return algebra.mul(ctx, x, above)


@converter("Elu", since=6)
def elu(ctx: Context, x: Value) -> Value:
    """x where x > 0, else alpha (e^x - 1)."""
    return ctx.emit("elu", x, alpha=float(ctx.attr("alpha", 1.0)))


@converter("Celu", since=12)
def celu(ctx: Context, x: Value) -> Value:
    """x where x > 0, else alpha (e^(x / alpha) - 1)."""
    return ctx.emit("celu", x, alpha=float(ctx.attr("alpha", 1.0)))


@converter("Selu", since=6)
def selu(ctx: Context, x: Value) -> Value:
    """gamma elu(x; alpha)."""
    alpha = float(ctx.attr("alpha", 1.67326319217681884765625))
    return algebra.times(ctx, ctx.emit("elu", x, alpha=alpha), float(ctx.attr("gamma", 1.05070102214813232421875)))


@converter("HardSigmoid", since=6)
def hard_sigmoid(ctx: Context, x: Value) -> Value:
    """alpha x + beta between 0 and 1."""
    line = algebra.plus(ctx, algebra.times(ctx, x, float(ctx.attr("alpha", 0.2))), float(ctx.attr("beta", 0.5)))
    return ctx.emit("clip", line, lower=0.0, upper=1.0)


@converter("Shrink", since=9)
def shrink(ctx: Context, x: Value) -> Value:
    """x + bias below -lambd, x - bias above lambd, else 0. Only the continuous one, bias = lambd."""
    bias, lambd = float(ctx.attr("bias", 0.0)), float(ctx.attr("lambd", 0.5))
    if bias != lambd:
        raise ctx.unsupported("Shrink is supported only with bias = lambd", f"bias {bias:g}, lambd {lambd:g}")
    above = ctx.emit("relu", algebra.plus(ctx, x, -bias))
    return algebra.sub(ctx, above, ctx.emit("relu", algebra.plus(ctx, ctx.emit("neg", x), -bias)))


@converter("Gelu", since=20)
def gelu(ctx: Context, x: Value) -> Value:
    """x Phi(x), or its approximation with tanh."""
    kinds = {"none": "gelu", "tanh": "gelu_tanh"}
    kind = str(ctx.attr("approximate", "none"))
    if kind not in kinds:
        raise ctx.unsupported(f"Gelu with approximate = '{kind}' is not supported")
    return ctx.emit(kinds[kind], x)


@converter("Swish", since=24)
def swish(ctx: Context, x: Value) -> Value:
    """x sigmoid(alpha x)."""
    alpha = float(ctx.attr("alpha", 1.0))
    return algebra.times(ctx, ctx.emit("silu", algebra.times(ctx, x, alpha)), 1.0 / alpha)


@converter("Cast", since=6)
def cast(ctx: Context, x: Value) -> Value:
    """Another element type, from an attribute."""
    from graphs.onnx import proto

    return convert_type(ctx, x, proto.element_type(int(ctx.attr("to")), ctx.where))


@converter("CastLike", since=15)
def cast_like(ctx: Context, x: Value, target: Value) -> Value:
    """The element type of another value."""
    return convert_type(ctx, x, target.dtype)


def convert_type(ctx: Context, x: Value, dtype: str) -> Value:
    """Between floats the identity (rounding is not modelled); to an integer truncation; to bool, x != 0."""
    if isinstance(x, Constant):
        bad = not is_float(dtype) and is_float(x.dtype) and not bool(torch.isfinite(x.tensor).all())
        if bad:
            raise ctx.malformed("a NaN or infinite number is cast to an integer")
        return x.cast(dtype)
    if dtype == "bool" and x.dtype != "bool":
        return algebra.plus(ctx, ctx.emit("neg", ctx.emit("is_zero", x)), 1.0).cast("bool")
    if is_float(x.dtype) and not is_float(dtype):
        if dtype not in ("int32", "int64"):
            raise ctx.unsupported(f"a float is cast to {dtype}, whose range is not modelled")
        return ctx.emit("trunc", x).cast(dtype)
    return x.cast(dtype)
