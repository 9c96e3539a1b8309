"""Shapes: reshaping, permuting and repeating."""

from __future__ import annotations

import math

import torch

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value


@converter("Shape")
def shape(ctx: Context, x: Value) -> Value:
    """The shape from axis `start` to `end`."""
    rank = len(x.shape)
    start, stop = int(ctx.attr("start", 0)), int(ctx.attr("end", rank))
    return ctx.constant(torch.tensor(x.shape[slice(start, stop)], dtype=torch.int64), "int64")


@converter("Size")
def size(ctx: Context, x: Value) -> Value:
    """How many numbers there are."""
    return ctx.constant(math.prod(x.shape), "int64")


@converter("Reshape", since=5)
def reshape(ctx: Context, x: Value, target: Value) -> Value:
    """0 keeps an axis (unless allowzero), -1 takes what is left."""
    dims = ctx.ints(target, "the shape of Reshape")
    if not ctx.attr("allowzero", 0):
        if any(d == 0 and i >= len(x.shape) for i, d in enumerate(dims)):
            raise ctx.malformed(f"shape {dims} keeps an axis that the input does not have")
        dims = [x.shape[i] if d == 0 else d for i, d in enumerate(dims)]
    rest = math.prod(d for d in dims if d != -1)
    if dims.count(-1) == 1 and rest:
        dims = [math.prod(x.shape) // rest if d == -1 else d for d in dims]
    if math.prod(dims) != math.prod(x.shape) or min(dims, default=0) < 0:
        raise ctx.malformed(f"a value of shape {list(x.shape)} cannot get the shape {dims}")
    return algebra.reshape(ctx, x, dims)


@converter("Flatten")
def flatten(ctx: Context, x: Value) -> Value:
    """A matrix: the axes before `axis`, and those from it on."""
    rank = len(x.shape)
    axis = int(ctx.attr("axis", 1))
    axis = axis + rank if axis < 0 else axis
    return algebra.reshape(ctx, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@converter("Transpose")
def transpose(ctx: Context, x: Value) -> Value:
    """The axes permuted (reversed where no order is given)."""
    return algebra.transpose(ctx, x, [int(p) for p in ctx.attr("perm", range(len(x.shape))[::-1])])


@converter("Squeeze")
def squeeze_attribute(ctx: Context, x: Value) -> Value:
    """Axes are an attribute."""
    return _squeeze(ctx, x, ctx.attr("axes"))


@converter("Squeeze", since=13)
def squeeze_input(ctx: Context, x: Value, axes: Value | None = None) -> Value:
    """Axes are an input."""
    return _squeeze(ctx, x, None if axes is None else ctx.ints(axes, "the axes of Squeeze"))


def _squeeze(ctx: Context, x: Value, axes: list[int] | None) -> Value:
    rank = len(x.shape)
    gone = {i for i, n in enumerate(x.shape) if n == 1} if axes is None else {ctx.wrap(a, rank) for a in axes}
    if any(x.shape[i] != 1 for i in gone):
        raise ctx.malformed(f"axes {sorted(gone)} of shape {list(x.shape)} are not all of size 1")
    return algebra.reshape(ctx, x, [n for i, n in enumerate(x.shape) if i not in gone])


@converter("Unsqueeze")
def unsqueeze_attribute(ctx: Context, x: Value) -> Value:
    """Axes are an attribute."""
    return _unsqueeze(ctx, x, [int(a) for a in ctx.attr("axes")])


@converter("Unsqueeze", since=13)
def unsqueeze_input(ctx: Context, x: Value, axes: Value) -> Value:
    """Axes are an input."""
    return _unsqueeze(ctx, x, ctx.ints(axes, "the axes of Unsqueeze"))


def _unsqueeze(ctx: Context, x: Value, axes: list[int]) -> Value:
    rank = len(x.shape) + len(axes)
    new = {ctx.wrap(a, rank) for a in axes}
    old = iter(x.shape)
    return algebra.reshape(ctx, x, [1 if i in new else next(old) for i in range(rank)])


@converter("Expand", since=8)
def expand(ctx: Context, x: Value, target: Value) -> Value:
    """Repeated to what it and a constant shape broadcast to."""
    return algebra.broadcast_up(ctx, x, ctx.ints(target, "the shape of Expand"))


@converter("Tile", since=6)
def tile(ctx: Context, x: Value, repeats: Value) -> Value:
    """Whole copies along each axis."""
    counts = ctx.ints(repeats, "the repeats of Tile")
    return x if set(counts) <= {1} else ctx.emit("tile", x, repeats=tuple(counts))


@converter("DepthToSpace")
def depth_to_space(ctx: Context, x: Value) -> Value:
    """Channels to blocks of pixels."""
    n, c, h, w = x.shape
    b = int(ctx.attr("blocksize"))
    depth_first = ctx.attr("mode", "DCR") == "DCR"
    split = (n, b, b, c // b**2, h, w) if depth_first else (n, c // b**2, b, b, h, w)
    perm = (0, 3, 4, 1, 5, 2) if depth_first else (0, 1, 4, 2, 5, 3)
    y = algebra.transpose(ctx, algebra.reshape(ctx, x, split), perm)
    return algebra.reshape(ctx, y, (n, c // b**2, h * b, w * b))


@converter("SpaceToDepth")
def space_to_depth(ctx: Context, x: Value) -> Value:
    """Blocks of pixels to channels."""
    n, c, h, w = x.shape
    b = int(ctx.attr("blocksize"))
    y = algebra.transpose(ctx, algebra.reshape(ctx, x, (n, c, h // b, b, w // b, b)), (0, 3, 5, 1, 2, 4))
    return algebra.reshape(ctx, y, (n, c * b * b, h // b, w // b))


@converter("Trilu", since=14)
def trilu(ctx: Context, x: Value, k: Value | None = None) -> Value:
    """The upper or lower triangle, zeros elsewhere."""
    diagonal = 0 if k is None else ctx.ints(k, "the diagonal of Trilu")[0]
    ones = torch.ones(x.shape[-2:], dtype=torch.float64)
    mask = ones.triu(diagonal) if ctx.attr("upper", 1) else ones.tril(diagonal)
    if isinstance(x, Constant):  # a product would turn the infinities of attention masks into NaN
        return ctx.constant(torch.where(mask.bool(), x.tensor, torch.zeros_like(x.tensor)), x.dtype)
    return algebra.mul(ctx, x, ctx.constant(mask, x.dtype))
