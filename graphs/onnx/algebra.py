"""Arithmetic on values that may be variables or constants: picks the IR op, and lines up ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from graphs.onnx.context import Context
from graphs.onnx.values import Constant, Masked, Value, Variable, is_float


def reshape(ctx: Context, x: Value, shape: Sequence[int]) -> Value:
    """The same numbers in another shape (no node where it is the same)."""
    return x if tuple(x.shape) == tuple(shape) else ctx.emit("reshape", x, shape=tuple(shape))


def transpose(ctx: Context, x: Value, perm: Sequence[int]) -> Value:
    """Axes permuted (no node for the identity)."""
    return x if list(perm) == list(range(len(perm))) else ctx.emit("transpose", x, perm=tuple(perm))


def raise_rank(ctx: Context, x: Value, rank: int) -> Value:
    """Axes of size 1 put in front until the rank is reached."""
    return reshape(ctx, x, (1,) * (rank - len(x.shape)) + tuple(x.shape))


def align(ctx: Context, *values: Value) -> list[Value]:
    """All brought to the highest rank among them."""
    rank = max(len(v.shape) for v in values)
    return [raise_rank(ctx, v, rank) for v in values]


def broadcast(ctx: Context, x: Value, shape: Sequence[int]) -> Value:
    """x repeated to a shape that it broadcasts to."""
    x = raise_rank(ctx, x, len(shape))
    return x if tuple(x.shape) == tuple(shape) else ctx.emit("expand", x, shape=tuple(shape))


def both(a: Value, b: Value, fold: Callable[[Tensor, Tensor], Tensor]) -> Constant | None:
    """The folded result where both are known."""
    if isinstance(a, Constant) and isinstance(b, Constant):
        return Constant.of(fold(a.tensor, b.tensor), a.dtype, a.name)
    return None


def _wide(ctx: Context, *values: Value) -> None:
    """Small and unsigned integers wrap around, which is not modelled."""
    for value in values:
        if value.dtype in ("uint8", "uint16", "uint32", "uint64", "int8", "int16"):
            raise ctx.unsupported(
                f"arithmetic on {value.dtype} may wrap around", help="cast to a float or int64 before"
            )


def add(ctx: Context, a: Value, b: Value) -> Value:
    """a + b."""
    _wide(ctx, a, b)
    known = both(a, b, torch.add)
    if known is not None:
        return known
    a, b = (b, a) if isinstance(a, Constant) else (a, b)
    if isinstance(b, Constant):
        kept = b.tensor != -math.inf
        offset = torch.where(kept, b.tensor.double(), 0)
        y = ctx.emit("shift", raise_rank(ctx, a, len(b.shape)), offset=offset)
        assert isinstance(y, Variable)
        return y if bool(kept.all()) else Masked(y.name, y.shape, y.dtype, kept.expand(y.shape))
    return ctx.emit("add", *align(ctx, a, b))


def sub(ctx: Context, a: Value, b: Value) -> Value:
    """a - b."""
    _wide(ctx, a, b)
    known = both(a, b, torch.sub)
    if known is not None:
        return known
    if isinstance(b, Constant):
        return add(ctx, a, Constant(-b.tensor.double(), b.dtype, b.name))
    if isinstance(a, Constant):
        return add(ctx, ctx.emit("neg", b), a)
    return ctx.emit("sub", *align(ctx, a, b))


def mul(ctx: Context, a: Value, b: Value) -> Value:
    """a * b."""
    _wide(ctx, a, b)
    known = both(a, b, torch.mul)
    if known is not None:
        return known
    a, b = (b, a) if isinstance(a, Constant) else (a, b)
    if isinstance(b, Constant):
        return ctx.emit("scale", raise_rank(ctx, a, len(b.shape)), factor=b.tensor.double())
    if a == b:
        return ctx.emit("square", a)
    return ctx.emit("mul", *align(ctx, a, b))


def number(value: float, dtype: str) -> Constant:
    """A scalar factor or offset, never rounded to an integer on its own."""
    return Constant(torch.tensor(value, dtype=torch.float64), dtype)


def times(ctx: Context, x: Value, factor: float) -> Value:
    """x times a number."""
    return x if factor == 1.0 else mul(ctx, x, number(factor, x.dtype))


def plus(ctx: Context, x: Value, offset: float) -> Value:
    """x plus a number."""
    return x if offset == 0.0 else add(ctx, x, number(offset, x.dtype))


def div(ctx: Context, a: Value, b: Value) -> Value:
    """a / b; of integers truncated towards zero."""
    if not is_float(a.dtype):
        return _int_div(ctx, a, b)
    known = both(a, b, torch.div)
    if known is not None:
        return known
    if isinstance(b, Constant):
        return mul(ctx, a, Constant(1.0 / b.tensor, b.dtype, b.name))
    if isinstance(a, Constant):
        return mul(ctx, ctx.emit("reciprocal", b), a)
    return ctx.emit("div", *align(ctx, a, b))


def _int_div(ctx: Context, a: Value, b: Value) -> Value:
    if isinstance(b, Constant) and bool((b.tensor == 0).any()):
        raise ctx.malformed("integers are divided by zero")
    known = both(a, b, lambda x, y: torch.div(x, y, rounding_mode="trunc"))
    if known is not None:
        return known
    if not isinstance(b, Constant):
        raise ctx.unsupported("an integer is divided by a variable integer")
    # for a >= 0 and c > 0, trunc(a / c) = floor((a + 1/2) / c), whose argument is never within rounding of an integer
    a, sign, size = raise_rank(ctx, a, len(b.shape)), b.tensor.sign().double(), b.tensor.abs().double()

    def floored(x: Value) -> Value:
        shifted = ctx.emit("shift", x, offset=torch.tensor(0.5).double())
        return ctx.emit("relu", ctx.emit("floor", ctx.emit("scale", shifted, factor=1.0 / size)))

    return ctx.emit("scale", sub(ctx, floored(a), floored(ctx.emit("neg", a))), factor=sign)


def matmul(ctx: Context, a: Value, b: Value) -> Value:
    """NumPy's matmul: rank-1 operands lose their axis in the result, leading axes broadcast."""
    known = both(a, b, torch.matmul)
    if known is not None:
        return known
    if isinstance(b, Constant) and len(b.shape) == 2:
        return ctx.emit("linear", a, weight=b.tensor.double().mT.contiguous())
    if isinstance(a, Constant) and len(a.shape) == 2 and len(b.shape) == 1:
        return ctx.emit("linear", b, weight=a.tensor.double())
    left, right = len(a.shape) == 1, len(b.shape) == 1
    a = reshape(ctx, a, (1, *a.shape)) if left else a
    b = reshape(ctx, b, (*b.shape, 1)) if right else b
    a, b = align(ctx, a, b)
    if isinstance(b, Constant):
        y = ctx.emit("matmul_right", a, weight=b.tensor.double())
    elif isinstance(a, Constant):
        y = ctx.emit("matmul_left", b, weight=a.tensor.double())
    else:
        y = ctx.emit("matmul", a, b)
    shape = list(y.shape)
    if left:
        del shape[-2]
    if right:
        del shape[-1]
    return reshape(ctx, y, shape)


def extreme(ctx: Context, a: Value, b: Value, *, largest: bool) -> Value:
    """Elementwise maximum or minimum."""
    known = both(a, b, torch.maximum if largest else torch.minimum)
    if known is not None:
        return known
    a, b = (b, a) if isinstance(a, Constant) else (a, b)
    if isinstance(b, Constant) and len(set(b.tensor.reshape(-1).tolist())) == 1:
        x, bound = broadcast_up(ctx, a, b.shape), float(b.tensor.reshape(-1)[0])
        lower, upper = (bound, math.inf) if largest else (-math.inf, bound)
        return ctx.emit("relu", x) if largest and bound == 0 else ctx.emit("clip", x, lower=lower, upper=upper)
    return ctx.emit("maximum" if largest else "minimum", *align(ctx, a, b))


def broadcast_up(ctx: Context, x: Value, shape: Sequence[int]) -> Value:
    """x repeated to what it and `shape` broadcast to."""
    return broadcast(ctx, x, np.broadcast_shapes(tuple(x.shape), tuple(shape)))
