"""Writing into values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphs.onnx.context import Context
from graphs.onnx.converters.dynamic import scatter_places
from graphs.onnx.converters.indexing import block_positions, element_positions, wrapped
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Ranked, Value, Variable


@converter("ScatterND", since=11)
def scatter_nd(ctx: Context, x: Value, index: Value, updates: Value) -> Value:
    """Blocks written at constant or computed places."""
    _no_reduction(ctx)
    if isinstance(index, Variable):
        placed = scatter_places(ctx, x, index, updates)
        if placed is not None:
            return placed
        if ctx.places:  # a slice before may be empty, and then nothing is written
            ctx.known(index, "the index of ScatterND")
        return ctx.emit("scatter_at", ctx.variable(x), ctx.variable(index), ctx.variable(updates)).cast(x.dtype)
    return _scatter(ctx, x, block_positions(index.tensor, x.shape), updates)


@converter("Scatter", since=9)
@converter("ScatterElements", since=11)
def scatter_elements(ctx: Context, x: Value, index: Value, updates: Value) -> Value:
    """Entries written at constant places along an axis."""
    _no_reduction(ctx)
    axis = ctx.axis("axis", 0, len(x.shape))
    if isinstance(index, Ranked):
        return _gates(ctx, x, index, updates, axis)
    entries = wrapped(ctx.known(index, f"the index of {ctx.node.op_type}"), x.shape[axis])
    return _scatter(ctx, x, element_positions(entries, x.shape, axis), updates)


def _gates(ctx: Context, x: Value, index: Ranked, updates: Value, axis: int) -> Value:
    """The softmax of the k largest entries, written back to their places among zeros: a sparse gate."""
    share = ctx.builder.nodes[updates.name] if isinstance(updates, Variable) else None
    top = ctx.builder.nodes[share.inputs[0]] if share and share.op == "softmax" else None
    zeros = isinstance(x, Constant) and not bool(x.tensor.any())
    if not (share and top and top.op == "top_k" and top.inputs[0] == index.name and zeros):
        raise ctx.unsupported("places of a TopK are read only where the Softmax of its values is written among zeros")
    if not share.attrs["axis"] == top.attrs["axis"] == index.axis == axis or "mask" in share.params:
        raise ctx.unsupported("the TopK, the Softmax and the writing of a gate are along several axes")
    source = Variable(index.name, ctx.builder.nodes[index.name].shape, updates.dtype)
    return ctx.emit("top_k_softmax", source, k=top.attrs["k"], axis=axis)


def _scatter(ctx: Context, x: Value, positions: Tensor, updates: Value) -> Value:
    if len(set(positions.reshape(-1).tolist())) != positions.numel():
        raise ctx.unsupported(f"{ctx.node.op_type} writes to one position twice, whose order ONNX leaves open")
    if isinstance(x, Constant) and isinstance(updates, Constant):
        return Constant(_written(x.tensor, positions, updates.tensor), x.dtype, x.name)
    if positions.numel() == math.prod(x.shape):  # everything is overwritten: x does not matter
        order = torch.empty_like(positions.reshape(-1))
        order[positions.reshape(-1)] = torch.arange(positions.numel())
        return ctx.emit("pick", updates, index=order.reshape(x.shape))
    return ctx.emit("scatter", x, updates, index=positions)


def _written(base: Tensor, positions: Tensor, updates: Tensor) -> Tensor:
    flat = base.reshape(-1).clone()
    flat[positions.reshape(-1)] = updates.reshape(-1).to(flat.dtype)
    return flat.reshape(base.shape)


def _no_reduction(ctx: Context) -> None:
    reduction = ctx.attr("reduction", "none")
    if reduction != "none":
        raise ctx.unsupported(f"{ctx.node.op_type} with reduction = '{reduction}' is not supported")
