"""Ends of intervals through an op with a weight, with a backward pass of their own for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from relaxations.kernels import pairs
from relaxations.rule import Call

SERVED = ("linear", "conv")


class Ends(torch.autograd.Function):
    """(W m + b - |W| r, W m + b + |W| r) of the ends m - r and m + r (Gowal et al. 2018, equation 6).

    The derivative of |W| is one product with its sign. The tape of the formula itself keeps both ends besides, and
    takes a dozen more walks through memory.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, lower: Tensor, upper: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        """The new ends of ends (B, *N)."""
        (middle, radius), size = pairs.split(lower, upper), weight.abs()
        center, reach = call.forward(middle), call.forward(radius, weight=size, bias=None)
        ctx.call = call
        ctx.save_for_backward(middle, radius, weight, size)
        return pairs.join(center, reach)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of both ends, of weight and bias."""
        middle, radius, weight, size = ctx.saved_tensors
        back = _conv if ctx.call.node.op == "conv" else _linear
        _, below, above, wanted, biased = ctx.needs_input_grad
        reach, center = pairs.total(*grads)
        of_middle, of_weight = back(ctx.call, center, middle, weight, (below or above, wanted))
        of_radius, of_size = back(ctx.call, reach, radius, size, (below or above, wanted))
        of_lower = of_upper = of_bias = None
        if of_middle is not None and of_radius is not None:
            of_lower, of_upper = pairs.join(of_middle, of_radius, scale=0.5)
        if of_weight is not None and of_size is not None:
            of_weight = pairs.add_signed(of_weight, of_size, weight)
        if biased:
            channel = 2 if ctx.call.node.op == "conv" else center.dim() - 1
            of_bias = center.sum([axis for axis in range(center.dim()) if axis != channel])
        return None, of_lower, of_upper, of_weight, of_bias


Gradients = tuple[Tensor | None, Tensor | None]


def _linear(call: Call, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> Gradients:
    """Gradients of input and weight."""
    flat = grad.reshape(-1, grad.shape[-1])
    return (
        (flat @ weight).reshape(x.shape) if wanted[0] else None,
        flat.t() @ x.reshape(-1, x.shape[-1]) if wanted[1] else None,
    )


def _conv(call: Call, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> Gradients:
    a = call.attrs
    space = [tuple(a[name]) for name in ("stride", "padding", "dilation")]
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        grad.flatten(0, 1), x.flatten(0, 1), weight, None, *space, False, (0,) * len(space[0]), a.get("groups", 1),
        (*wanted, False),
    )  # fmt: skip
    return of_x.reshape(x.shape) if wanted[0] else None, of_weight if wanted[1] else None
