"""Comparisons, choices, and places of the largest entries."""

from __future__ import annotations

from typing import Any

import torch

from graphs.exported.context import Context, Live, Masked, Ranked, Value, Var, axis_of, converter
from graphs.exported.pointwise import add, mul, sub
from graphs.exported.shapes import expand, truth


@converter("ge.Scalar", "gt.Scalar", "ge.Tensor", "gt.Tensor")
def above(ctx: Context, x: Value, y: Value) -> Var:
    """1 where x is above y, else 0."""
    return truth(ctx.emit("step", sub(ctx, x, y), closed="aten.ge" in ctx.where))


@converter("le.Scalar", "lt.Scalar", "le.Tensor", "lt.Tensor")
def below(ctx: Context, x: Value, y: Value) -> Var:
    """1 where x is below y, else 0."""
    return truth(ctx.emit("step", sub(ctx, y, x), closed="aten.le" in ctx.where))


@converter("eq.Scalar", "eq.Tensor", "ne.Scalar", "ne.Tensor")
def equal(ctx: Context, x: Value, y: Value) -> Var:
    """1 where x = y, or where it is not."""
    found = truth(ctx.emit("is_zero", sub(ctx, x, y)))
    return found if "aten.eq" in ctx.where else negation(ctx, found)


@converter("logical_not.default", "bitwise_not.default")
def negation(ctx: Context, x: Var) -> Var:
    """1 - x, of truth values."""
    return truth(ctx.plus(ctx.emit("neg", _truth(ctx, x)), 1.0))


@converter("logical_and.default", "bitwise_and.Tensor", "__and__.Tensor")
def conjunction(ctx: Context, x: Value, y: Value) -> Var:
    """Both."""
    return truth(mul(ctx, *(_truth(ctx, value) for value in (x, y))))


@converter("logical_or.default", "bitwise_or.Tensor", "__or__.Tensor")
def disjunction(ctx: Context, x: Value, y: Value) -> Var:
    """One or both."""
    return negation(ctx, conjunction(ctx, *(_false(ctx, value) for value in (x, y))))


@converter("logical_xor.default", "bitwise_xor.Tensor", "__xor__.Tensor")
def exclusive(ctx: Context, x: Value, y: Value) -> Var:
    """One of both: where they differ."""
    difference = sub(ctx, *(_truth(ctx, value) for value in (x, y)))
    return truth(ctx.emit("abs", difference))


def _truth(ctx: Context, x: Value) -> Value:
    """Values 0 and 1 as numbers."""
    if isinstance(x, Live) and x.now().dtype == torch.bool:
        return x.then(lambda t: t.to(ctx.dtype))
    if not isinstance(x, Var) or not x.truth:
        raise ctx.unsupported("logic is supported of truth values only", help="compare first: x != 0")
    return x


def _false(ctx: Context, x: Value) -> Value:
    return negation(ctx, x) if isinstance(x, Var) else x.then(torch.logical_not)


@converter("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(ctx: Context, condition: Value, x: Value, y: Value) -> Var | Masked:
    """A choice by a condition."""
    if isinstance(condition, Live):
        return _chosen(ctx, condition.then(torch.Tensor.bool), x, y)
    x, y = (ctx.spelled(value, condition) for value in (x, y))
    rank = max(len(value.shape) for value in (condition, x, y))
    return ctx.emit("where", *(ctx.rank(value, rank) for value in (condition, x, y)))


def _chosen(ctx: Context, mask: Live, x: Value, y: Value) -> Var | Masked:
    """By a constant."""
    if not isinstance(x, Var):
        return _chosen(ctx, mask.then(torch.logical_not), y, x)
    if not isinstance(y, Var) and bool(ctx.tensor(y).now().isneginf().all()):
        return Masked(x, mask)
    shape = torch.broadcast_shapes(mask.shape, x.shape, y.shape if isinstance(y, Var | Live) else ())
    x, y = expand(ctx, x, shape), expand(ctx, ctx.spelled(y, x), shape)
    return ctx.emit("select", x, y, params={"mask": mask.then(lambda t: t.expand(shape).clone())})


@converter("masked_fill.Scalar", "masked_fill.Tensor", "masked_fill_.Scalar", "masked_fill_.Tensor")
def masked_fill(ctx: Context, x: Value, mask: Value, value: Value) -> Var | Masked:
    """A number where a mask is true."""
    return where(ctx, mask, value, x)


@converter("heaviside.default")
def heaviside(ctx: Context, x: Var, middle: Value) -> Var:
    """0 below 0, 1 above it, the constant at 0."""
    if not isinstance(middle, Live):
        raise ctx.unsupported("heaviside is supported with a constant at 0")
    edge = ctx.times(ctx.emit("is_zero", x), middle)
    return add(ctx, ctx.emit("step", x, closed=False), edge)  # type: ignore[return-value]


@converter("zeros_like.default", "new_zeros.default", "empty_like.default", "new_empty.default")
def zeros_like(ctx: Context, x: Var, shape: Any = None, **named: object) -> Live:
    """Zeros of a value's shape, or of another."""
    return ctx.fixed(torch.zeros(x.shape if shape is None else tuple(shape), dtype=ctx.dtype))


@converter("ones_like.default", "new_ones.default")
def ones_like(ctx: Context, x: Var, shape: Any = None, **named: object) -> Live:
    """Ones of a value's shape, or of another."""
    return zeros_like(ctx, x, shape).then(lambda t: t + 1)


@converter("full_like.default", "fill.Scalar", "fill.Tensor", "fill_.Scalar", "fill_.Tensor")
def full_like(ctx: Context, x: Var, value: Live | float, **named: object) -> Live:
    """A number everywhere in a value's shape."""
    return ctx.tensor(value).then(lambda t: t.to(ctx.dtype).expand(x.shape))


@converter("topk.default")
def top_k(ctx: Context, x: Var, k: int, axis: int = -1, largest: bool = True, *rest: object) -> tuple[Var, Ranked]:
    """The largest or smallest entries and their places."""
    axis = axis_of(axis, x.shape)
    signed = x if largest else ctx.emit("neg", x)
    found = ctx.emit("top_k", signed, k=k, axis=axis)
    return found if largest else ctx.emit("neg", found), Ranked(signed, k, axis)


@converter("argmax.default", "argmin.default")
def arg_max(ctx: Context, x: Var, axis: int | None = None, keepdim: bool = False) -> Ranked:
    """The place of the largest or smallest entry."""
    if axis is None:
        raise ctx.unsupported("argmax over all axes is not supported", help="flatten first, then name the axis")
    signed = x if "argmax" in ctx.where else ctx.emit("neg", x)
    return Ranked(signed, 1, axis_of(axis, x.shape), keepdim)


@converter("scatter.src")
def scatter(ctx: Context, zeros: Value, axis: int, places: Any, gates: Var) -> Var:
    """The softmax of the k largest entries written back among zeros: a sparse gate."""
    made = ctx.builder.nodes[gates.name]
    among = isinstance(places, Ranked) and places.keepdim and axis_of(axis, places.source.shape) == places.axis
    same = among and made.op == "softmax" and made.attrs["axis"] == places.axis and "mask" not in made.params
    top = ctx.builder.nodes[made.inputs[0]] if same else made
    if not (same and top.op == "top_k" and top.inputs[0] == places.source.name and top.attrs["k"] == places.k):
        raise ctx.unsupported("scatter is read only where it writes the softmax of a topk's values to their places")
    if not (isinstance(zeros, Live) and zeros.fixed and not bool(zeros.now().any())):
        raise ctx.unsupported("gates are written among zeros only")
    return ctx.emit("top_k_softmax", places.source, k=places.k, axis=places.axis)


@converter("embedding.default")
def embedding(ctx: Context, table: Live, places: Any, *rest: object) -> Var:
    """Rows of a table at the places of maxima: a codebook."""
    if not isinstance(places, Ranked) or places.keepdim or places.axis != len(places.source.shape) - 1:
        raise ctx.unsupported("an embedding is read only at the argmax along a last axis, whose axis is not kept")
    return ctx.emit("codebook", places.source, params={"table": table})
