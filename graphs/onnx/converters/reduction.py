"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.converters.indexing import part
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Ranked, Value, Variable

Reduce = Callable[[Context, Value, tuple[int, ...], bool], Value]


def _emit(op: str) -> Reduce:
    return lambda ctx, x, axes, keep: ctx.emit(op, x, axes=axes, keepdims=keep)


def _mapped(before: str, op: str, after: str = "") -> Reduce:
    """A reduction of a function of x, and a function of that."""

    def reduce(ctx: Context, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
        y = ctx.emit(op, ctx.emit(before, x) if before else x, axes=axes, keepdims=keep)
        return ctx.emit(after, y) if after else y

    return reduce


def _product(ctx: Context, x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    """Halves multiplied until one entry is left."""
    for axis in axes:
        while (n := x.shape[axis]) > 1:
            pairs = algebra.mul(ctx, part(ctx, x, axis, 0, n // 2), part(ctx, x, axis, n // 2, n // 2 * 2))
            if n % 2:
                first = algebra.mul(ctx, part(ctx, pairs, axis, 0, 1), part(ctx, x, axis, n - 1, n))
                rest = part(ctx, pairs, axis, 1, n // 2)
                pairs = first if n == 3 else ctx.emit("concat", first, rest, axis=axis)
            x = pairs
    return x if keep else algebra.reshape(ctx, x, [n for i, n in enumerate(x.shape) if i not in axes])


REDUCTIONS: dict[str, Reduce] = {
    "ReduceSum": _emit("sum"),
    "ReduceMean": _emit("mean"),
    "ReduceMax": _emit("reduce_max"),
    "ReduceMin": _emit("reduce_min"),
    "ReduceLogSumExp": _emit("logsumexp"),
    "ReduceProd": _product,
    "ReduceL1": _mapped("abs", "sum"),
    "ReduceL2": _mapped("square", "sum", "sqrt"),
    "ReduceSumSquare": _mapped("square", "sum"),
    "ReduceLogSum": _mapped("", "sum", "log"),
}


def _register(op_type: str, reduce: Reduce) -> None:
    def apply(ctx: Context, x: Value, axes: list[int] | None) -> Value:
        if not axes and ctx.attr("noop_with_empty_axes", 0):
            return x
        along = tuple(sorted(ctx.wrap(int(a), len(x.shape)) for a in axes)) if axes else tuple(range(len(x.shape)))
        return reduce(ctx, x, along, bool(ctx.attr("keepdims", 1))) if along else x

    @converter(op_type)
    def from_attribute(ctx: Context, x: Value) -> Value:
        return apply(ctx, x, ctx.attr("axes"))

    @converter(op_type, since=13 if op_type == "ReduceSum" else 18)
    def from_input(ctx: Context, x: Value, axes: Value | None = None) -> Value:
        return apply(ctx, x, None if axes is None else ctx.ints(axes, f"the axes of {op_type}"))


for _op_type, _reduce in REDUCTIONS.items():
    _register(_op_type, _reduce)


@converter("ArgMax")
def arg_max(ctx: Context, x: Value) -> Value:
    """Position of the maximum."""
    return _arg(ctx, x)


@converter("ArgMin")
def arg_min(ctx: Context, x: Value) -> Value:
    """Position of the minimum."""
    return _arg(ctx, ctx.emit("neg", x))


def _arg(ctx: Context, x: Value) -> Value:
    settings = {"keepdims": bool(ctx.attr("keepdims", 1)), "last": bool(ctx.attr("select_last_index", 0))}
    return ctx.emit("arg_max", x, axis=ctx.axis("axis", 0, len(x.shape)), **settings).cast("int64")


@converter("TopK", since=10)
def top_k(ctx: Context, x: Value, k: Value) -> tuple[Value, Value]:
    """Of constants both results; of variables places alone for k = 1, else only for a Scatter of gates (`Ranked`)."""
    axis, largest = ctx.axis("axis", -1, len(x.shape)), bool(ctx.attr("largest", 1))
    count = ctx.ints(k, "the k of TopK")[0]
    if isinstance(x, Constant):
        order = torch.sort(x.tensor, dim=axis, descending=largest, stable=True)
        first, places = (t.narrow(axis, 0, count) for t in order)
        return Constant(first, x.dtype), Constant(places, "int64")
    if count != 1:
        signed = x if largest else ctx.emit("neg", x)
        assert isinstance(signed, Variable)
        values = ctx.emit("top_k", signed, k=count, axis=axis)
        return values if largest else ctx.emit("neg", values), Ranked(signed.name, values.shape, "int64", axis)
    op, signed = ("reduce_max", x) if largest else ("reduce_min", ctx.emit("neg", x))
    index = ctx.emit("arg_max", signed, axis=axis, keepdims=True, last=False).cast("int64")
    return ctx.emit(op, x, axes=(axis,), keepdims=True), index
