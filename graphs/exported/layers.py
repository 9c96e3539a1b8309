"""Layers with weights, normalisation, pooling and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from graphs.exported.context import Context, Live, Masked, Value, Var, converter
from graphs.exported.pointwise import add, masked_softmax
from graphs.exported.resampling import resampled
from graphs.exported.shapes import transpose
from graphs.exported.today import BatchNorm


@converter("linear.default")
def linear(ctx: Context, x: Var, weight: Live, bias: Live | None = None) -> Var:
    """x W^T + b."""
    return ctx.emit("linear", x, params={"weight": weight, "bias": bias})


@converter("addmm.default", "baddbmm.default", "addmv.default")
def addmm(ctx: Context, bias: Value, x: Value, weight: Value, *, beta: float = 1, alpha: float = 1) -> Any:
    """alpha x W + beta b."""
    if isinstance(x, Var) and isinstance(weight, Live) and isinstance(bias, Live) and weight.now().dim() == 2:
        scaled = bias if beta == 1 else bias.then(lambda t: t * beta)
        if scaled.now().dim() == 1:
            return linear(ctx, x, weight.then(lambda t: t.t() * alpha if alpha != 1 else t.t()), scaled)
    product = matmul(ctx, x, weight)
    product = product if alpha == 1 else ctx.times(product, alpha)
    return add(ctx, product, bias, alpha=beta)


@converter("matmul.default", "mm.default", "bmm.default", "mv.default")
def matmul(ctx: Context, x: Value, y: Value) -> Var:
    """Of variables, or of one with a constant."""
    if isinstance(x, Var) and isinstance(y, Var):
        return ctx.emit("matmul", *ctx.alike(x, y))
    if isinstance(x, Var):
        return ctx.emit("matmul_right", x, params={"weight": y})
    return ctx.emit("matmul_left", y, params={"weight": x})


@converter("bilinear.default")
def bilinear(ctx: Context, x: Var, y: Var, weight: Live, bias: Live | None = None) -> Var:
    """x W_k y + b_k of vectors (1, I) and (1, J), weight (K, I, J)."""
    count, _, size = weight.shape
    if len(x.shape) != 2:
        raise ctx.unsupported("a bilinear layer is supported on vectors only")
    sides = linear(ctx, x, weight.then(lambda t: t.transpose(1, 2).flatten(0, 1)))
    sides = ctx.emit("reshape", sides, shape=(1, count, size))
    product = ctx.emit("matmul", sides, ctx.emit("reshape", y, shape=(1, size, 1)))
    return _affine(ctx, ctx.emit("reshape", product, shape=(1, count)), None, bias)


@converter("conv1d.default", "conv2d.default", "conv3d.default")
def convolution(
    ctx: Context,
    x: Var,
    weight: Live,
    bias: Live | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Var:
    """In 1 to 3 dimensions."""
    space = len(x.shape) - 2
    attrs: dict[str, Any] = {
        "stride": _each(stride, space),
        "padding": _each(padding, space),
        "dilation": _each(dilation, space),
    }
    return ctx.emit("conv", x, params={"weight": weight, "bias": bias}, **attrs, groups=groups)


@converter("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
def conv_transpose(ctx: Context, x: Var, weight: Live, bias: Live | None = None, *rest: Sequence[int] | int) -> Var:
    """Transposed, in 1 to 3 dimensions; `rest`: stride, padding, output padding, groups, dilation."""
    space = len(x.shape) - 2
    filled = [*rest, *((1,), (0,), (0,), 1, (1,))[len(rest) :]]
    stride, padding, extra, groups, dilation = filled
    attrs = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation}
    sizes: dict[str, Any] = {name: _each(value, space) for name, value in attrs.items()}
    return ctx.emit("conv_transpose", x, params={"weight": weight, "bias": bias}, **sizes, groups=groups)


def _each(sizes: Sequence[int] | int, space: int) -> tuple[int, ...]:
    given = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return given * space if len(given) == 1 else given


@converter("_native_batch_norm_legit_no_training.default")
def native_batch_norm(ctx: Context, x: Var, *rest: Any) -> tuple[Var, None, None]:
    """The same in a program without changes in place."""
    *parts, momentum, eps = rest
    return batch_norm(ctx, x, *parts, 0.0, momentum, eps), None, None


@converter("batch_norm.default")
def batch_norm(
    ctx: Context, x: Var, weight: Live | None, bias: Live | None, mean: Live | None, variance: Live | None, *rest: float
) -> Var:
    """A scale and a shift that each step makes anew."""
    momentum, eps = float(rest[1]), float(rest[2])
    tall = (x.shape[1], *(1 for _ in x.shape[2:]))
    ones = torch.ones(tall, dtype=ctx.dtype)
    factor, offset = (ctx.builder.constant(ones, f"{ctx.path}.{role}") for role in ("factor", "offset"))
    g, b, m, v = (None if part is None else part.now() for part in (weight, bias, mean, variance))
    ctx.today.append(BatchNorm(ctx.path, x.name, factor, offset, tall, g, b, m, v, eps, momentum))
    scaled = ctx.emit("scale", x, params={"factor": factor})
    return ctx.emit("shift", scaled, params={"offset": offset})


@converter("layer_norm.default")
def layer_norm(
    ctx: Context,
    x: Var,
    shape: Sequence[int],
    weight: Live | None = None,
    bias: Live | None = None,
    eps: float = 1e-5,
    *rest: object,
) -> Var:
    """Over the last axes."""
    axes = tuple(range(len(x.shape) - len(shape), len(x.shape)))
    return _affine(ctx, ctx.emit("layer_norm", x, axes=axes, eps=float(eps)), weight, bias)


@converter("rms_norm.default")
def rms_norm(ctx: Context, x: Var, shape: Sequence[int], weight: Live | None = None, eps: float | None = None) -> Var:
    """Over the last axes."""
    axes = tuple(range(len(x.shape) - len(shape), len(x.shape)))
    small = torch.finfo(ctx.dtype).eps if eps is None else float(eps)
    return _affine(ctx, ctx.emit("rms_norm", x, axes=axes, eps=small), weight, None)


@converter("group_norm.default")
def group_norm(
    ctx: Context,
    x: Var,
    groups: int,
    weight: Live | None = None,
    bias: Live | None = None,
    eps: float = 1e-5,
    *rest: object,
) -> Var:
    """Channels in groups."""
    split = ctx.emit("reshape", x, shape=(x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    normed = ctx.emit("layer_norm", split, axes=(2,), eps=float(eps))
    tall = (x.shape[1], *(1 for _ in x.shape[2:]))
    whole = ctx.emit("reshape", normed, shape=x.shape)
    return _affine(ctx, whole, *(None if p is None else p.then(lambda t: t.reshape(tall)) for p in (weight, bias)))


@converter("instance_norm.default")
def instance_norm(ctx: Context, x: Var, weight: Live | None, bias: Live | None, *rest: Any) -> Var:
    """Each channel by itself; `rest`: running statistics, whether they are not used, momentum, eps."""
    mean, variance, own, momentum, eps, *_ = rest
    if not own:
        return batch_norm(ctx, x, weight, bias, mean, variance, 0.0, momentum, eps)
    return group_norm(ctx, x, x.shape[1], weight, bias, eps)


def _affine(ctx: Context, x: Var, weight: Live | None, bias: Live | None) -> Var:
    x = x if weight is None else ctx.times(x, weight)
    return x if bias is None else ctx.plus(x, bias)


@converter("max_pool1d.default", "max_pool2d.default")
def max_pool(
    ctx: Context,
    x: Var,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil: bool = False,
) -> Var:
    """Windows that end inside."""
    if ceil:
        raise ctx.unsupported("pooling with ceil_mode=True is not supported", help="pad the input instead")
    space = len(x.shape) - 2
    sizes = {"kernel": kernel, "stride": stride or kernel, "padding": padding, "dilation": dilation}
    attrs: dict[str, Any] = {name: _each(value, space) for name, value in sizes.items()}
    return ctx.emit("max_pool", x, **attrs)


@converter("avg_pool1d.default", "avg_pool2d.default")
def avg_pool(
    ctx: Context,
    x: Var,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil: bool = False,
    count: bool = True,
    divisor: int | None = None,
) -> Var:
    """Windows that end inside."""
    space = len(x.shape) - 2
    if ceil or divisor is not None:
        operator = getattr(torch.nn.functional, f"avg_pool{space}d")
        more = () if divisor is None else (divisor,)
        return resampled(ctx, operator, x, kernel, stride or None, padding, ceil, count, *more)
    sizes = {"kernel": kernel, "stride": stride or kernel, "padding": padding}
    attrs: dict[str, Any] = {name: _each(value, space) for name, value in sizes.items()}
    return ctx.emit("avg_pool", x, **attrs, count_include_pad=count)


@converter("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default")
def adaptive_avg_pool(ctx: Context, x: Var, size: Sequence[int]) -> Var:
    """To sizes that divide the input's."""
    space = x.shape[2:]
    if any(n % m for n, m in zip(space, size, strict=True)):
        return resampled(ctx, getattr(torch.nn.functional, f"adaptive_avg_pool{len(space)}d"), x, size)
    if all(m == 1 for m in size):
        return ctx.emit("mean", x, axes=tuple(range(2, len(x.shape))), keepdims=True)
    kernel = tuple(n // m for n, m in zip(space, size, strict=True))
    return ctx.emit("avg_pool", x, kernel=kernel, stride=kernel, padding=(0,) * len(kernel), count_include_pad=True)


@converter("scaled_dot_product_attention.default")
def attention(
    ctx: Context,
    q: Var,
    k: Var,
    v: Var,
    mask: Live | None = None,
    share: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
) -> Var:
    """softmax(q k^T scale + mask) v; a mask of truth values or of causality leaves entries out."""
    if share:
        raise ctx.unsupported("dropout inside attention is not supported", help="use module.eval(), or dropout=0")
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    scores = ctx.times(ctx.emit("matmul", q, transpose(ctx, k, -2, -1)), factor)
    params: dict[str, Live | str | None] = {}
    if causal:
        kept = torch.ones(scores.shape[-2:], dtype=ctx.dtype).tril().expand(scores.shape).clone()
        params["mask"] = Live(lambda: kept)
    elif mask is not None and mask.now().dtype == torch.bool:
        params["mask"] = mask.then(lambda m: m.to(ctx.dtype).expand(scores.shape))
    elif mask is not None:
        summed = add(ctx, scores, mask)
        if isinstance(summed, Masked):
            return ctx.emit("matmul", masked_softmax(ctx, summed, len(scores.shape) - 1), v)
        scores = summed
    shares = ctx.emit("softmax", scores, params=params, axis=len(scores.shape) - 1)
    return ctx.emit("matmul", shares, v)
