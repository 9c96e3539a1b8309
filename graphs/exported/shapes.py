"""Operators that only move entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from graphs.exported.context import Context, Live, Value, Var, axis_of, converter
from graphs.exported.moves import moved


@converter("view.default", "reshape.default", "_unsafe_view.default")
def reshape(ctx: Context, x: Var, shape: Sequence[int]) -> Var:
    """One size may be -1."""
    known = math.prod(size for size in shape if size != -1)
    return ctx.emit("reshape", x, shape=tuple(math.prod(x.shape) // known if size == -1 else size for size in shape))


@converter("flatten.using_ints")
def flatten(ctx: Context, x: Var, start: int = 0, end: int = -1) -> Var:
    """Axes start to end become one."""
    start, end = axis_of(start, x.shape), axis_of(end, x.shape)
    return ctx.emit("reshape", x, shape=(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


@converter("unflatten.int")
def unflatten(ctx: Context, x: Var, axis: int, sizes: Sequence[int]) -> Var:
    """One axis becomes several."""
    axis = axis_of(axis, x.shape)
    known = math.prod(size for size in sizes if size != -1)
    sizes = [x.shape[axis] // known if size == -1 else size for size in sizes]
    return ctx.emit("reshape", x, shape=(*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))


@converter("contiguous.default", "clone.default", "alias.default", "detach.default", "lift_fresh_copy.default")
def same(ctx: Context, x: Var, *rest: object, **named: object) -> Var:
    """The same numbers."""
    return x


WHOLE = ("arg_max", "ceil", "floor", "is_zero", "round", "sign", "step", "trunc")  # ops of whole numbers


@converter("to.dtype", "_to_copy.default")
def cast(ctx: Context, x: Var, dtype: torch.dtype | None = None, *rest: object, **named: object) -> Var:
    """Another type: among floats the same numbers, whole ones towards zero, of truth whether it is not 0."""
    if x.truth or dtype is None or dtype.is_floating_point:
        return x
    if dtype == torch.bool:
        return truth(ctx.plus(ctx.emit("neg", ctx.emit("is_zero", x)), 1.0))
    return x if ctx.builder.nodes[x.name].op in WHOLE else ctx.emit("trunc", x)


def truth(x: Var) -> Var:
    """A value known to be 0 or 1."""
    return replace(x, truth=True)


@converter("copy.default")
def copy(ctx: Context, x: Value, y: Value, *rest: object) -> Value:
    """y in the shape of x."""
    if isinstance(y, Live):
        return y.then(lambda t: t.expand(x.shape))
    return expand(ctx, y, x.shape)


@converter("_assert_tensor_metadata.default")
def nothing(ctx: Context, *rest: object, **named: object) -> None:
    """A check of the exporter's."""


@converter("unsqueeze.default")
def unsqueeze(ctx: Context, x: Var, axis: int) -> Var:
    """A new axis of size 1."""
    axis = axis % (len(x.shape) + 1)
    return ctx.emit("reshape", x, shape=(*x.shape[:axis], 1, *x.shape[axis:]))


@converter("squeeze.dim", "squeeze.dims", "squeeze.default")
def squeeze(ctx: Context, x: Var, axes: int | Sequence[int] | None = None) -> Var:
    """Without axes of size 1."""
    given = range(len(x.shape)) if axes is None else [axes] if isinstance(axes, int) else axes
    dropped = {axis_of(axis, x.shape) for axis in given if x.shape[axis] == 1}
    return ctx.emit("reshape", x, shape=tuple(size for axis, size in enumerate(x.shape) if axis not in dropped))


@converter("permute.default")
def permute(ctx: Context, x: Var, order: Sequence[int]) -> Var:
    """Axes in another order."""
    return ctx.emit("transpose", x, perm=tuple(axis_of(axis, x.shape) for axis in order))


@converter("transpose.int", "t.default")
def transpose(ctx: Context, x: Var, first: int = 0, second: int = 1) -> Var:
    """Two axes changed."""
    order = list(range(len(x.shape)))
    first, second = axis_of(first, x.shape), axis_of(second, x.shape)
    order[first], order[second] = second, first
    return ctx.emit("transpose", x, perm=tuple(order))


@converter("slice.Tensor")
def slice_(ctx: Context, x: Var, axis: int = 0, start: int | None = 0, stop: int | None = None, step: int = 1) -> Var:
    """A stretch of one axis."""
    axis = axis_of(axis, x.shape)
    first, last, _ = slice(start, stop).indices(x.shape[axis])
    return ctx.emit("slice", x, axis=axis, start=first, stop=last, step=step)


@converter("select.int")
def select(ctx: Context, x: Var, axis: int, index: int) -> Var:
    """One place of an axis, which goes."""
    axis = axis_of(axis, x.shape)
    found = slice_(ctx, x, axis, index % x.shape[axis], index % x.shape[axis] + 1)
    return ctx.emit("reshape", found, shape=(*x.shape[:axis], *x.shape[axis + 1 :]))


@converter("split.Tensor", "split_with_sizes.default", "chunk.default")
def split(ctx: Context, x: Var, sizes: int | Sequence[int], axis: int = 0) -> list[Var]:
    """Consecutive stretches of an axis."""
    axis = axis_of(axis, x.shape)
    whole = x.shape[axis]
    if isinstance(sizes, int):
        size = -(-whole // sizes) if "chunk" in ctx.where else sizes
        sizes = [min(size, whole - at) for at in range(0, whole, size)]
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [slice_(ctx, x, axis, at, at + size) for at, size in zip(starts, sizes, strict=True)]


@converter("cat.default")
def cat(ctx: Context, parts: Sequence[Value], axis: int = 0) -> Var:
    """Variables and constants along an axis."""
    variables = [part for part in parts if isinstance(part, Var)]
    axis = axis_of(axis, variables[0].shape)
    layout: list[int | str] = []
    constants: dict[str, Live | str | None] = {}
    for part in parts:
        if isinstance(part, Var):
            layout.append(sum(isinstance(place, int) for place in layout))
        else:
            layout.append(f"c{len(constants)}")
            constants[f"c{len(constants)}"] = part
    return ctx.emit("concat", *variables, params=constants, axis=axis, layout=tuple(layout) if constants else ())


@converter("stack.default")
def stack(ctx: Context, parts: Sequence[Value], axis: int = 0) -> Var:
    """Along a new axis."""
    axis = axis % (len(parts[0].shape) + 1)
    wide = [unsqueeze(ctx, x, axis) if isinstance(x, Var) else x.then(lambda t: t.unsqueeze(axis)) for x in parts]
    return cat(ctx, wide, axis)


@converter("expand.default")
def expand(ctx: Context, x: Var, shape: Sequence[int], **named: object) -> Var:
    """Axes of size 1 repeated."""
    wide = ctx.rank(x, len(shape))
    sizes = tuple(own if size == -1 else size for own, size in zip(wide.shape, shape, strict=True))
    return ctx.emit("expand", wide, shape=sizes)


@converter("constant_pad_nd.default", "pad.default")
def pad(ctx: Context, x: Var, sizes: Sequence[int], *rest: object) -> Var:
    """Surround with a constant."""
    numbers = [part for part in rest if isinstance(part, int | float)]
    if any(isinstance(part, str) and part != "constant" for part in rest):
        found: Var = moved(ctx, torch.ops.aten.pad.default, x, sizes, *rest)
        return found
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    for place, size in enumerate(sizes):
        (after if place % 2 else before)[len(x.shape) - 1 - place // 2] = size
    value = float(numbers[0]) if numbers else 0.0
    return ctx.emit("pad", x, before=tuple(before), after=tuple(after), value=value)


@converter("index_select.default")
def index_select(ctx: Context, x: Var, axis: int, index: Live) -> Var:
    """Constant places of an axis."""
    return ctx.emit("gather", x, params={"index": index.then(torch.Tensor.long)}, axis=axis_of(axis, x.shape))


@converter("sym_size.int")
def size(ctx: Context, x: Var, axis: int) -> int:
    """The length of an axis; that of the batch is 1 (one sample at a time)."""
    return x.shape[axis]
