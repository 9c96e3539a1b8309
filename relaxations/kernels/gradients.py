"""The kernels with a backward pass of their own: few operations, and nothing kept but the inputs.

At an entry that is zero the derivative is that of the lower line; none flows through an infinite bias.
Shape letters: B boxes, S rows, N one node's shape, n input numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from relaxations.kernels import direct


class Relax(torch.autograd.Function):
    """`relaxations.kernels.relax` for training."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, *lines: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `relaxations.kernels.relax`; lines in its order."""
        pulled, bias = direct.relax(rows, *lines)  # type: ignore[arg-type]
        ctx.save_for_backward(rows, *lines, bias)
        return pulled, bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the rows and of the four lines."""
        rows, *lines, bias = ctx.saved_tensors
        g, h = grads[0], torch.where(bias == -math.inf, 0, grads[1])
        needs = ctx.needs_input_grad
        out, sums = direct.gradient(rows, lines, (g, h), needs[1:])
        of_lines = (None if x is None else x.sum_to_size(line.shape) for x, line in zip(sums, lines, strict=True))
        return out.sum_to_size(rows.shape) if needs[0] else None, *of_lines


class Minimize(torch.autograd.Function):
    """`relaxations.kernels.minimize` for training."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, center: Tensor, radius: Tensor) -> Tensor:
        """As `relaxations.kernels.minimize`."""
        ctx.save_for_backward(rows, center, radius)
        return direct.minimize(rows, center, radius)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of rows, centre and radius."""
        rows, center, radius = ctx.saved_tensors
        weight = grads[0].unsqueeze(1)  # (B, 1, S)
        of_rows = of_center = of_radius = None
        if ctx.needs_input_grad[0]:
            point = center.unsqueeze(1) - rows.sign() * radius.unsqueeze(1)
            of_rows = (grads[0].unsqueeze(2) * point).sum_to_size(rows.shape)
        if ctx.needs_input_grad[1]:
            of_center = (weight @ rows).squeeze(1).sum_to_size(center.shape)
        if ctx.needs_input_grad[2]:
            of_radius = (weight @ rows.abs()).squeeze(1).neg().sum_to_size(radius.shape)
        return of_rows, of_center, of_radius
