"""Comparisons, choices, and places of the largest entries."""

from __future__ import annotations

from typing import Any

import torch

from graphs.exported.context import Context, Live, Ranked, Value, Var, axis_of, converter
from graphs.exported.pointwise import sub


@converter("ge.Scalar", "gt.Scalar", "ge.Tensor", "gt.Tensor")
def above(ctx: Context, x: Value, y: Value) -> Var:
    """1 where x is above y, else 0."""
    return ctx.emit("step", sub(ctx, x, y), closed="aten.ge" in ctx.where)


@converter("le.Scalar", "lt.Scalar", "le.Tensor", "lt.Tensor")
def below(ctx: Context, x: Value, y: Value) -> Var:
    """1 where x is below y, else 0."""
    return ctx.emit("step", sub(ctx, y, x), closed="aten.le" in ctx.where)


@converter("where.self")
def where(ctx: Context, condition: Value, x: Value, y: Value) -> Var:
    """A choice by a variable condition, between variables."""
    return ctx.emit("where", *(ctx.variable(value) for value in (condition, x, y)))


@converter("zeros_like.default")
def zeros_like(ctx: Context, x: Var, **named: object) -> Live:
    """Zeros of a value's shape."""
    return Live(lambda: torch.zeros(x.shape, dtype=ctx.dtype), True)


@converter("topk.default")
def top_k(ctx: Context, x: Var, k: int, axis: int = -1, largest: bool = True, *rest: object) -> tuple[Var, Ranked]:
    """The largest entries and their places."""
    if not largest:
        raise ctx.unsupported("topk with largest=False is not supported", help="take the largest of -x")
    axis = axis_of(axis, x.shape)
    return ctx.emit("top_k", x, k=k, axis=axis), Ranked(x, k, axis)


@converter("argmax.default")
def arg_max(ctx: Context, x: Var, axis: int | None = None, keepdim: bool = False) -> Ranked:
    """The place of the largest entry."""
    if axis is None:
        raise ctx.unsupported("argmax over all axes is not supported", help="flatten first, then name the axis")
    return Ranked(x, 1, axis_of(axis, x.shape), keepdim)


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
