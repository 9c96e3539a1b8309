"""Reductions along axes, running sums, norms and distances."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphs.exported.context import Context, Ranked, Value, Var, axis_of, converter
from graphs.exported.pointwise import div, larger, mul, sub
from graphs.exported.shapes import reshape, slice_, unsqueeze

Axes = Sequence[int] | int | None


def _along(x: Var, axes: Axes) -> tuple[int, ...]:
    given = (axes,) if isinstance(axes, int) else axes
    return tuple(sorted(axis_of(axis, x.shape) for axis in (given or range(len(x.shape)))))


@converter("mean.dim", "sum.dim_IntList", "mean.default", "sum.default")
def reduce(ctx: Context, x: Var, axes: Axes = None, keepdim: bool = False, **named: object) -> Var:
    """Mean or sum over axes."""
    return ctx.emit("mean" if "aten.mean" in ctx.where else "sum", x, axes=_along(x, axes), keepdims=keepdim)


@converter("amax.default", "amin.default", "max.default", "min.default")
def extreme_over(ctx: Context, x: Var, axes: Axes = None, keepdim: bool = False) -> Var:
    """Largest or smallest over axes."""
    largest = "max" in ctx.where.rpartition("aten.")[2]
    return ctx.emit("reduce_max" if largest else "reduce_min", x, axes=_along(x, axes), keepdims=keepdim)


@converter("max.dim", "min.dim")
def extreme_along(ctx: Context, x: Var, axis: int, keepdim: bool = False) -> tuple[Var, Ranked]:
    """The largest or smallest along an axis, and its place."""
    signed = x if "aten.max" in ctx.where else ctx.emit("neg", x)
    return extreme_over(ctx, x, axis, keepdim), Ranked(signed, 1, axis_of(axis, x.shape), keepdim)


@converter("sort.default")
def sort(ctx: Context, x: Var, axis: int = -1, descending: bool = False) -> tuple[Var, Ranked]:
    """All entries in order, and their places."""
    axis = axis_of(axis, x.shape)
    signed = x if descending else ctx.emit("neg", x)
    found = ctx.emit("top_k", signed, k=x.shape[axis], axis=axis)
    return found if descending else ctx.emit("neg", found), Ranked(signed, x.shape[axis], axis)


@converter("var.correction", "var.dim", "std.correction", "std.dim")
def variance(
    ctx: Context, x: Var, axes: Axes = None, unbiased: bool = True, keepdim: bool = False, correction: float | None = 1
) -> Var:
    """The mean square distance from the mean (its root), n - correction in place of n."""
    along = _along(x, axes)
    count = math.prod(x.shape[axis] for axis in along)
    less = 1.0 if correction is None else float(correction)
    if "correction" not in ctx.where and not unbiased:
        less = 0.0
    if count <= less:
        raise ctx.unsupported("the variance of so few numbers is not defined")
    mean = ctx.emit("mean", x, axes=along, keepdims=True)
    square = ctx.emit("square", ctx.emit("sub", x, mean))
    found = ctx.emit("mean", square, axes=along, keepdims=keepdim)
    found = found if less == 0 else ctx.times(found, count / (count - less))
    return ctx.emit("sqrt", found) if "aten.std" in ctx.where else found


@converter("linalg_vector_norm.default")
def norm(ctx: Context, x: Var, order: float = 2, axes: Axes = None, keepdim: bool = False, **named: object) -> Var:
    """Of order 1, 2 or infinity."""
    along = _along(x, axes)
    if order == 2:
        squares = ctx.emit("sum", ctx.emit("square", x), axes=along, keepdims=keepdim)
        return ctx.emit("sqrt", squares)
    if order not in (1, math.inf):
        raise ctx.unsupported(f"norms are supported of order 1, 2 and infinity, not {order:g}")
    return ctx.emit("sum" if order == 1 else "reduce_max", ctx.emit("abs", x), axes=along, keepdims=keepdim)


@converter("_cdist_forward.default")
def distances(ctx: Context, x: Value, y: Value, order: float, *rest: object) -> Var:
    """Between the rows of x (..., P, M) and y (..., R, M)."""
    left, right = (_widened(ctx, value, axis) for value, axis in ((x, -2), (y, -3)))
    return norm(ctx, sub(ctx, left, right), order, -1)


def _widened(ctx: Context, x: Value, axis: int) -> Value:
    if isinstance(x, Var):
        return unsqueeze(ctx, x, len(x.shape) + 1 + axis)
    return x.then(lambda t: t.unsqueeze(axis))


@converter("cosine_similarity.default")
def cosine(ctx: Context, x: Value, y: Value, axis: int = 1, eps: float = 1e-8) -> Var:
    """The product of two vectors, each divided by its length (at least eps)."""
    shorter = []
    for value in (x, y):
        length = norm(ctx, ctx.variable(value), 2, axis, True)
        shorter.append(div(ctx, value, larger(ctx, length, eps, "maximum")))
    return reduce_sum(ctx, mul(ctx, *shorter), axis)


def reduce_sum(ctx: Context, x: Var, axis: int) -> Var:
    """Over one axis."""
    return ctx.emit("sum", x, axes=_along(x, axis), keepdims=False)


@converter("cumsum.default")
def running_sum(ctx: Context, x: Var, axis: int, **named: object) -> Var:
    """Of all entries so far."""
    return ctx.emit("cumsum", x, axis=axis_of(axis, x.shape))


@converter("prod.dim_int", "prod.default")
def product(ctx: Context, x: Var, axis: int | None = None, keepdim: bool = False, **named: object) -> Var:
    """Halves multiplied until one entry is left."""
    if axis is None:
        x, axis = reshape(ctx, x, (-1,)), 0
    axis = axis_of(axis, x.shape)
    while (n := x.shape[axis]) > 1:
        pairs = mul(ctx, slice_(ctx, x, axis, 0, n // 2), slice_(ctx, x, axis, n // 2, n // 2 * 2))
        odd = [slice_(ctx, x, axis, n - 1, n)] if n % 2 else []
        x = ctx.emit("concat", pairs, *odd, axis=axis) if odd else pairs
    return x if keepdim else reshape(ctx, x, (*x.shape[:axis], *x.shape[axis + 1 :]))
