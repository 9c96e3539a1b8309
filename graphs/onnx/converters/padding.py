"""Pad in all its modes."""

from __future__ import annotations

import torch

from graphs.onnx.context import Context
from graphs.onnx.registry import converter
from graphs.onnx.values import Value


@converter("Pad", since=2)
def pad_attributes(ctx: Context, x: Value) -> Value:
    """Pads and value are attributes."""
    pads = [int(v) for v in ctx.attr("pads")]
    return _pad(ctx, x, pads, float(ctx.attr("value", 0.0)), list(range(len(x.shape))))


@converter("Pad", since=11)
def pad_inputs(ctx: Context, x: Value, pads: Value, value: Value | None = None, axes: Value | None = None) -> Value:
    """Pads, value and axes are inputs."""
    fill = 0.0 if value is None else ctx.scalar(value, "the value of Pad")
    along = list(range(len(x.shape))) if axes is None else ctx.ints(axes, "the axes of Pad")
    return _pad(ctx, x, ctx.ints(pads, "the pads of Pad"), fill, [ctx.wrap(a, len(x.shape)) for a in along])


def _pad(ctx: Context, x: Value, pads: list[int], value: float, axes: list[int]) -> Value:
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    for axis, low, high in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        before[axis], after[axis] = low, high
    mode = str(ctx.attr("mode", "constant"))
    if not any(before) and not any(after):
        return x
    if mode == "constant":
        if value != value or value in (float("inf"), float("-inf")):
            raise ctx.unsupported("Pad with a value that is not finite is not supported")
        return ctx.emit("pad", x, before=tuple(before), after=tuple(after), value=value)
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if low or high:
            x = ctx.emit("gather", x, index=_border(ctx, mode, x.shape[axis], low, high), axis=axis)
    return x


def _border(ctx: Context, mode: str, size: int, low: int, high: int) -> torch.Tensor:
    """Which entry stands at each position of the padded axis."""
    index = torch.arange(-low, size + high)
    if mode == "edge":
        return index.clamp(0, size - 1)
    if mode == "wrap":
        return index % size
    if mode != "reflect":
        raise ctx.unsupported(f"Pad with mode = '{mode}' is not supported")
    period = max(2 * (size - 1), 1)
    folded = index % period
    return torch.minimum(folded, (period - folded) % period if size == 1 else period - folded)
