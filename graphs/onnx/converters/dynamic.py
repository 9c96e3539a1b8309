"""Slices at a computed place, as detectors use them to paste a patch: x[.., i : i + 1, ..] and ScatterND with it.

ONNX makes such a slice empty where i lies outside of the axis, and a ScatterND with empty indices writes nothing. So
the index i may stand for the slice only as long as it ends up in a ScatterND, which here ignores places out of range.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphs.ir import Node
from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.values import Constant, Value, Variable

# operators through which an empty axis stays an empty axis
EMPTY_IN_EMPTY_OUT = {"Slice", "Shape", "ConstantOfShape", "Cast", "Unsqueeze", "Reshape", "Add", "Mul", "Equal"}
EMPTY_IN_EMPTY_OUT |= {"Where", "Concat", "Expand"}


def dynamic_slice(ctx: Context, x: Value, start: Variable, end: Value, axis: int) -> Value:
    """x[start : start + 1] of a constant that is the same all along the axis, or that counts 0, 1, 2..."""
    size = x.shape[axis]
    one = isinstance(end, Variable) and _linear_form(ctx, end) == _shifted(_linear_form(ctx, start), 1.0)
    if not (one and isinstance(x, Constant) and _ends_in_scatter(ctx)):
        ctx.known(start, "the start of Slice")
    assert isinstance(x, Constant)
    first = x.tensor.narrow(axis, 0, 1)
    if bool((x.tensor == first).all()):
        return Constant(first, x.dtype, x.name)
    if x.shape != (size,) or not torch.equal(x.tensor, torch.arange(size)):
        ctx.known(start, "the start of Slice")
    # an index below -1 counts from the end; -1 : 0 is empty, and stays outside
    below = ctx.emit("step", algebra.plus(ctx, ctx.emit("neg", start), -1.5), closed=False)
    place = algebra.add(ctx, start, algebra.times(ctx, below, float(size)))
    place = algebra.reshape(ctx, place, (1,)).cast(x.dtype)
    assert isinstance(place, Variable)
    ctx.places[place.name] = size
    return place


def _linear_form(ctx: Context, value: Variable) -> tuple[str, float]:
    """A value of one number as (another value, offset): the sum of the two."""
    node, offset = ctx.builder.nodes[value.name], 0.0
    while node.size == 1 and node.op in ("reshape", "shift"):
        offset += sum(float(ctx.builder.constants[name]) for name in node.params.values())
        node = ctx.builder.nodes[node.inputs[0]]
    return node.name, offset


def _shifted(form: tuple[str, float], by: float) -> tuple[str, float]:
    return form[0], form[1] + by


def _ends_in_scatter(ctx: Context) -> bool:
    """Whether every path from the node's output leads to the indices or updates of a ScatterND."""
    reached, names = set(ctx.node.output), list(ctx.node.output)
    while names:
        name = names.pop()
        if name in ctx.outputs:
            return False
        for reader in ctx.nodes:
            written = reader.op_type == "ScatterND" and reader.input[0] != name
            if name not in reader.input or written:
                continue
            if reader.op_type not in EMPTY_IN_EMPTY_OUT:
                return False
            names += [output for output in reader.output if output not in reached]
            reached.update(reader.output)
    return True


def scatter_places(ctx: Context, base: Value, index: Variable, updates: Value) -> Value | None:
    """ScatterND of one number into a constant, every index coordinate constant or the same computed one for all.

    base + hit (update - base), where hit is 1 at the entries that are written. None where it is not of this kind.
    """
    parts = _coordinates(ctx, index)
    same = isinstance(updates, Constant) and len(set(updates.tensor.reshape(-1).tolist())) == 1
    if parts is None or not same or not isinstance(base, Constant):
        return None
    assert isinstance(updates, Constant)
    shape = base.shape
    hit: Value | None = None
    for axis, part in enumerate(parts):
        if isinstance(part, Tensor):
            continue
        if shape[axis] > ctx.places.get(part.name, shape[axis]):
            return None
        line = [1] * len(shape)
        line[axis] = shape[axis]
        spread = algebra.reshape(ctx, Variable(part.name, part.shape, base.dtype), [1] * len(shape))
        here = ctx.emit("is_zero", ctx.emit("shift", spread, offset=-torch.arange(shape[axis]).double().reshape(line)))
        hit = here if hit is None else algebra.mul(ctx, hit, here)
    assert hit is not None
    change = (updates.tensor.reshape(-1)[0] - base.tensor) * _constant_places(parts, shape)
    return algebra.add(ctx, algebra.mul(ctx, hit, Constant(change, base.dtype)), base)


def _coordinates(ctx: Context, index: Variable) -> list[Tensor | Node] | None:
    """Per coordinate its constant values, or the node of the one number that all share."""
    node = behind(ctx, ctx.builder.nodes[index.name], ("reshape",))
    if node.op != "concat" or node.attrs["axis"] != len(node.shape) - 1:
        return None
    layout = node.attrs.get("layout") or range(len(node.inputs))
    parts: list[Tensor | Node] = []
    for part in layout:
        if isinstance(part, str):
            parts += ctx.builder.constants[node.params[part]].unbind(-1)
            continue
        source = behind(ctx, ctx.builder.nodes[node.inputs[part]], ("reshape", "expand"))
        if source.size != 1 or ctx.builder.nodes[node.inputs[part]].shape[-1] != 1:
            return None
        parts.append(source)
    return parts


def behind(ctx: Context, node: Node, ops: tuple[str, ...]) -> Node:
    """The node before a chain of ops that only arrange numbers; a place that was found before ends the chain."""
    while node.op in ops and node.name not in ctx.places:
        node = ctx.builder.nodes[node.inputs[0]]
    return node


def _constant_places(parts: list[Tensor | Node], shape: tuple[int, ...]) -> Tensor:
    """1 where the constant coordinates are among those written, whatever the others are."""
    index = tuple(p.reshape(-1).long() if isinstance(p, Tensor) else slice(None) for p in parts)
    mask = torch.zeros(shape, dtype=torch.float64)
    mask[index] = 1.0
    return mask
