"""Transposes by automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


def vjp(
    forward: Callable[..., Tensor], shapes: Sequence[Sequence[int]], rows: Tensor, constants: Iterable[Tensor] = ()
) -> tuple[Tensor, ...]:
    """Rows (R, *N_out) on the output of an affine function to rows on its inputs, of `shapes` without the batch axis.

    Differentiable in the rows and the function's constants, wherever gradients are enabled.
    """
    zeros = [rows.new_zeros(len(rows), *shape) for shape in shapes]
    if torch.is_inference_mode_enabled():  # nothing can be recorded there but by torch.func
        pulled: tuple[Tensor, ...] = torch.func.vjp(forward, *zeros)[1](rows)
        return pulled
    # Its first call imports torch's compiler, which takes 2 to 3 seconds: autograd itself does the same.
    again = torch.is_grad_enabled() and any(x.requires_grad for x in (rows, *constants))
    with torch.enable_grad():
        output = forward(*(zero.requires_grad_() for zero in zeros))
    if not output.requires_grad:  # no entry of it depends on an input
        return tuple(zero.detach() for zero in zeros)
    return torch.autograd.grad(output, zeros, rows, create_graph=again, materialize_grads=True)
