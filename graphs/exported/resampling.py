"""Operators that are linear and treat each channel alike: torch's own result on unit images is their matrix."""

from __future__ import annotations

import math
from typing import Any

import torch

from graphs.exported.context import Context, Var, convert_with

RESAMPLING = (
    "upsample_linear1d.vec",
    "upsample_bilinear2d.vec",
    "upsample_bicubic2d.vec",
    "upsample_trilinear3d.vec",
    "upsample_linear1d.default",
    "upsample_bilinear2d.default",
    "upsample_bicubic2d.default",
    "upsample_trilinear3d.default",
    "_upsample_bilinear2d_aa.vec",
    "_upsample_bicubic2d_aa.vec",
    "avg_pool3d.default",
    "adaptive_avg_pool3d.default",
    "im2col.default",
)
MOST = 1 << 26  # numbers of a matrix: half a gigabyte


def resampled(ctx: Context, operator: Any, x: Var, *arguments: Any, **named: Any) -> Var:
    """x (1, C, *space) times a matrix of all places before and after."""
    channels, space = x.shape[1], x.shape[2:]
    count = math.prod(space)
    shape = operator(torch.zeros(x.shape, dtype=ctx.dtype), *arguments, **named).shape
    size = shape.numel() // channels
    if count * size > MOST:
        raise ctx.unsupported(f"the matrix of this operator, {count} x {size}, is too large")
    unit = torch.eye(count, dtype=torch.float64).reshape(count, 1, *space)
    weight = operator(unit, *arguments, **named).reshape(count, size).to(ctx.dtype)
    flat = ctx.emit("reshape", x, shape=(1, channels, count))
    return ctx.emit("reshape", ctx.emit("matmul_right", flat, params={"weight": ctx.fixed(weight)}), shape=tuple(shape))


convert_with(resampled, RESAMPLING)
