"""Taking parts of values and joining them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.converters.dynamic import dynamic_slice
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value, Variable


@converter("Concat", since=4)
def concat(ctx: Context, *values: Value) -> Value:
    """Joined along an axis; parts may be constants."""
    values = tuple(v for v in values if math.prod(v.shape)) or values[:1]
    return joined(ctx, values, ctx.axis("axis", 1, len(values[0].shape)))


def joined(ctx: Context, values: Sequence[Value], axis: int) -> Value:
    """Values one after the other along an axis."""
    if len(values) == 1:
        return values[0]
    if all(isinstance(v, Constant) for v in values):
        return Constant(torch.cat([v.tensor for v in values if isinstance(v, Constant)], axis), values[0].dtype)
    known = {f"part{i}": v.tensor.double() for i, v in enumerate(values) if isinstance(v, Constant)}
    variables = [v for v in values if isinstance(v, Variable)]
    numbers = iter(range(len(variables)))
    layout = tuple(next(numbers) if isinstance(v, Variable) else f"part{i}" for i, v in enumerate(values))
    return ctx.emit("concat", *variables, axis=axis, layout=layout if known else (), **known)


@converter("Slice")
def slice_attributes(ctx: Context, x: Value) -> Value:
    """Ends are attributes."""
    starts, ends = [int(v) for v in ctx.attr("starts")], [int(v) for v in ctx.attr("ends")]
    axes = [int(v) for v in ctx.attr("axes", range(len(starts)))]
    return _slices(ctx, x, starts, ends, axes, [1] * len(starts))


@converter("Slice", since=10)
def slice_inputs(
    ctx: Context, x: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Value:
    """Ends are inputs: constants, or one computed place."""
    count = math.prod(starts.shape)
    along = list(range(count)) if axes is None else ctx.ints(axes, "the axes of Slice")
    strides = [1] * count if steps is None else ctx.ints(steps, "the steps of Slice")
    if isinstance(starts, Variable) and strides == [1]:
        return dynamic_slice(ctx, x, starts, ends, ctx.wrap(along[0], len(x.shape)))
    first, last = ctx.ints(starts, "the start of Slice"), ctx.ints(ends, "the end of Slice")
    return _slices(ctx, x, first, last, along, strides)


def _slices(ctx: Context, x: Value, starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> Value:
    for start, end, given, step in zip(starts, ends, axes, steps, strict=True):
        axis = ctx.wrap(given, len(x.shape))
        n = x.shape[axis]
        taken = range(n)[start:end:step]  # Python clamps the ends as ONNX does
        if step > 0:
            x = part(ctx, x, axis, taken.start, taken.stop, step)
        else:
            x = ctx.emit("gather", x, index=torch.tensor(list(taken), dtype=torch.int64), axis=axis)
    return x


def part(ctx: Context, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """x[start:stop:step] along an axis (no node for all of it)."""
    if (start, step) == (0, 1) and stop >= x.shape[axis]:
        return x
    return ctx.emit("slice", x, axis=axis, start=start, stop=max(start, stop), step=step)


@converter("Split")
def split_attribute(ctx: Context, x: Value) -> tuple[Value, ...]:
    """Sizes are an attribute, or equal."""
    return _split(ctx, x, ctx.attr("split"))


@converter("Split", since=13)
def split_input(ctx: Context, x: Value, sizes: Value | None = None) -> tuple[Value, ...]:
    """Sizes are an input, or equal."""
    return _split(ctx, x, None if sizes is None else ctx.ints(sizes, "the sizes of Split"))


def _split(ctx: Context, x: Value, sizes: Sequence[int] | None) -> tuple[Value, ...]:
    axis = ctx.axis("axis", 0, len(x.shape))
    if sizes is None:
        count, n = int(ctx.attr("num_outputs", len(ctx.node.output))), x.shape[axis]
        each = -(-n // count)
        sizes = [max(min(each, n - i * each), 0) for i in range(count)]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    if ends[-1] != x.shape[axis]:
        raise ctx.malformed(f"sizes {list(sizes)} do not add up to the {x.shape[axis]} entries of axis {axis}")
    return tuple(part(ctx, x, axis, end - size, end) for end, size in zip(ends, sizes, strict=True))


def wrapped(index: Tensor, size: int) -> Tensor:
    """Indices counted from 0."""
    return torch.where(index < 0, index + size, index)


@converter("Gather")
def gather(ctx: Context, x: Value, index: Value) -> Value:
    """Entries along an axis, by constant or computed indices."""
    axis = ctx.axis("axis", 0, len(x.shape))
    size = x.shape[axis]
    if isinstance(index, Variable):
        return _looked_up(ctx, x, index, axis) or ctx.emit("gather_at", ctx.variable(x).cast(x.dtype), index, axis=axis)
    entries = wrapped(index.tensor, size)
    if bool(((entries < 0) | (entries >= size)).any()):
        raise ctx.malformed(f"an index lies outside the {size} entries of axis {axis}")
    flat = entries.reshape(-1).tolist()
    if flat and flat == list(range(flat[0], flat[0] + len(flat))):  # one run of entries: a slice is cheaper
        y = part(ctx, x, axis, flat[0], flat[-1] + 1)
        return algebra.reshape(ctx, y, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))
    return ctx.emit("gather", x, index=entries, axis=axis)


def _looked_up(ctx: Context, x: Value, index: Variable, axis: int) -> Value | None:
    """Rows of a constant table at the positions of maxima along a last axis: a codebook."""
    maker = ctx.builder.nodes[index.name]
    if not (isinstance(x, Constant) and maker.op == "arg_max" and len(x.shape) == 2 and axis == 0):
        return None
    scores = ctx.builder.nodes[maker.inputs[0]]
    last = len(scores.shape) - 1
    if maker.attrs["axis"] != last or maker.attrs.get("keepdims") or maker.attrs.get("last"):
        return None
    return ctx.emit("codebook", Variable(scores.name, scores.shape, x.dtype), table=x.tensor.double())


@converter("GatherElements", since=11)
def gather_elements(ctx: Context, x: Value, index: Value) -> Value:
    """One entry per index, by constant indices."""
    axis = ctx.axis("axis", 0, len(x.shape))
    entries = wrapped(ctx.known(index, "the index of GatherElements"), x.shape[axis])
    return ctx.emit("pick", x, index=element_positions(entries, x.shape, axis))


@converter("GatherND", since=11)
def gather_nd(ctx: Context, x: Value, index: Value) -> Value:
    """Blocks by constant multi-indices."""
    entries = ctx.known(index, "the index of GatherND")
    return ctx.emit("pick", x, index=block_positions(entries, x.shape, int(ctx.attr("batch_dims", 0))))


@converter("Compress", since=9)
def compress(ctx: Context, x: Value, condition: Value) -> Value:
    """The entries where a constant condition holds."""
    index = ctx.known(condition, "the condition of Compress").nonzero().reshape(-1)
    if ctx.has("axis"):
        return ctx.emit("gather", x, index=index, axis=ctx.axis("axis", 0, len(x.shape)))
    return ctx.emit("pick", x, index=index)


def element_positions(entries: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    """Flat positions of x[i0, .., entries[i0, .., in], .., in] for every entry (GatherElements, ScatterElements)."""
    grid = list(torch.meshgrid(*(torch.arange(n) for n in entries.shape), indexing="ij"))
    grid[axis] = entries
    return _flat(grid, shape)


def block_positions(entries: Tensor, shape: Sequence[int], batch_dims: int = 0) -> Tensor:
    """Flat positions of the blocks x[batch.., entries[batch.., .., :]] (GatherND, ScatterND)."""
    depth = entries.shape[-1]
    lead, rest = entries.shape[:-1], list(shape[batch_dims + depth :])
    grid = torch.meshgrid(*(torch.arange(n) for n in (*lead, *rest)), indexing="ij")
    tail = (1,) * len(rest)
    chosen = [
        wrapped(entries[..., k], shape[batch_dims + k]).reshape(*lead, *tail).expand(*lead, *rest) for k in range(depth)
    ]
    return _flat([*grid[:batch_dims], *chosen, *grid[len(lead) :]], shape)


def _flat(coordinates: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    position = torch.zeros((), dtype=torch.int64)
    for index, size in zip(coordinates, shape, strict=True):
        if bool(((index < 0) | (index >= size)).any()):
            raise IndexError(f"an index lies outside an axis of {size} entries")
        position = position * size + index
    return position
