"""Resampling along axes: a choice of entries for `nearest`, a matrix for `linear` and `cubic`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value

Array = np.ndarray[tuple[int], np.dtype[np.float32]]


@converter("Upsample", since=7)
def upsample_attribute(ctx: Context, x: Value) -> Value:
    """Scales are an attribute."""
    return _upsample(ctx, x, [float(s) for s in ctx.attr("scales")])


@converter("Upsample", since=9)
@converter("Resize", since=10)
def upsample_input(ctx: Context, x: Value, scales: Value) -> Value:
    """Scales are an input."""
    return _upsample(ctx, x, ctx.known(scales, f"the scale of {ctx.node.op_type}").tolist())


def _upsample(ctx: Context, x: Value, scales: Sequence[float]) -> Value:
    """Before opset 11: position / scale; for `nearest` rounded down, or up where the value shrinks, as runtimes do."""
    mode = str(ctx.attr("mode", "nearest"))
    for axis, scale in enumerate(scales):
        size = int(np.floor(np.float32(x.shape[axis]) * np.float32(scale)))
        x = _resample(ctx, x, axis, (size, scale), (mode, "asymmetric", "ceil" if scale < 1 else "floor"))
    return x


@converter("Resize", since=11)
def resize(
    ctx: Context, x: Value, roi: Value | None = None, scales: Value | None = None, sizes: Value | None = None
) -> Value:
    """Scales or sizes are inputs."""
    mode = str(ctx.attr("mode", "nearest"))
    how = str(ctx.attr("coordinate_transformation_mode", "half_pixel"))
    nearest = str(ctx.attr("nearest_mode", "round_prefer_floor"))
    if (
        how not in TRANSFORMS
        or ctx.attr("antialias", 0)
        or ctx.attr("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise ctx.unsupported(
            "this kind of Resize is not supported",
            f"coordinate_transformation_mode '{how}', antialias {ctx.attr('antialias', 0)}",
        )
    axes = [ctx.wrap(int(a), len(x.shape)) for a in ctx.attr("axes", range(len(x.shape)))]
    if sizes is not None and sizes.shape != (0,):
        target = ctx.ints(sizes, "the size of Resize")
        factors = [np.float32(n) / np.float32(x.shape[a]) for n, a in zip(target, axes, strict=True)]
    elif scales is not None:
        factors = [np.float32(s) for s in ctx.known(scales, "the scale of Resize").tolist()]
        target = [int(np.floor(np.float32(x.shape[a]) * s)) for s, a in zip(factors, axes, strict=True)]
    else:
        raise ctx.malformed("Resize has neither scales nor sizes")
    for axis, size, scale in zip(axes, target, factors, strict=True):
        x = _resample(ctx, x, axis, (size, float(scale)), (mode, how, nearest))
    return x


TRANSFORMS = {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"}


def _coordinates(n: int, size: int, scale: float, how: str) -> Array:
    """Where each of `size` entries lies among the n old ones; in float32, as the runtime computes it."""
    at, s, half = np.arange(size, dtype=np.float32), np.float32(scale), np.float32(0.5)
    if how == "asymmetric":
        return at / s
    if how == "align_corners":
        return at * np.float32(n - 1) / np.float32(size - 1) if size > 1 else at * 0
    if how == "pytorch_half_pixel" and size == 1:
        return at * 0
    middle = (at + half) / s - half
    if how == "half_pixel_symmetric":
        middle = middle + np.float32(n / 2) * (1 - np.float32(size) / (s * np.float32(n)))
    return middle.astype(np.float32)


def _resample(ctx: Context, x: Value, axis: int, target: tuple[int, float], kind: tuple[str, str, str]) -> Value:
    (size, scale), (mode, how, nearest), n = target, kind, x.shape[axis]
    if size == n and scale == 1.0:
        return x
    position = _coordinates(n, size, scale, how)
    if mode == "nearest":
        return ctx.emit("gather", x, index=_nearest(ctx, position, n, nearest), axis=axis)
    if mode not in ("linear", "cubic"):
        raise ctx.unsupported(f"resampling with mode '{mode}' is not supported")
    cubic = (float(ctx.attr("cubic_coeff_a", -0.75)), bool(ctx.attr("exclude_outside", 0))) if mode == "cubic" else None
    weight = _matrix(position, n, cubic)
    order = [*(i for i in range(len(x.shape)) if i != axis), axis]
    y = algebra.transpose(ctx, x, order)
    y = algebra.matmul(ctx, y, Constant(weight.T.contiguous(), x.dtype))
    return algebra.transpose(ctx, y, [order.index(i) for i in range(len(order))])


def _nearest(ctx: Context, position: Array, n: int, mode: str) -> Tensor:
    half = np.float32(0.5)
    rounded = {
        "floor": np.floor(position),
        "ceil": np.ceil(position),
        "round_prefer_floor": np.ceil(position - half),
        "round_prefer_ceil": np.floor(position + half),
    }
    if mode not in rounded:
        raise ctx.unsupported(f"nearest_mode '{mode}' is not supported")
    return torch.from_numpy(np.clip(rounded[mode], 0, n - 1).astype(np.int64))


def _matrix(position: Array, n: int, cubic: tuple[float, bool] | None) -> Tensor:
    """Row i holds the weights of the old entries in new entry i; entries outside repeat the border, or are left out."""
    weight = torch.zeros(len(position), n, dtype=torch.float64)
    offsets = (0, 1) if cubic is None else (-1, 0, 1, 2)
    at = position.astype(np.float64) if cubic else np.clip(position.astype(np.float64), 0, n - 1)
    for row, place in enumerate(at):
        base = int(np.floor(place))
        share = [_kernel(abs(place - base - o), cubic) for o in offsets]
        if cubic is not None and cubic[1]:
            share = [w if 0 <= base + o < n else 0.0 for w, o in zip(share, offsets, strict=True)]
            share = [w / sum(share) for w in share]
        for w, o in zip(share, offsets, strict=True):
            weight[row, min(max(base + o, 0), n - 1)] += w
    return weight


def _kernel(distance: float, cubic: tuple[float, bool] | None) -> float:
    """The tent, or Keys' cubic convolution kernel with parameter a (IEEE ASSP 29, 1981, eq. 15)."""
    t = distance
    if cubic is None:
        return max(1.0 - t, 0.0)
    a = cubic[0]
    if t <= 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a if t < 2 else 0.0
