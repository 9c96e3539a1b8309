"""Rows through ReLU's lines over boxes, and back, for training: natively, with no line ever in memory.

Shape letters: B boxes, S rows, N one node's shape.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from relaxations.kernels.library import available, function

_GRAIN = 1 << 15  # entries for which another thread is worth waking


def rectify(rows: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor] | None:
    """Rows (B, S, *N) on ReLU as rows on its input in boxes (B, *N), and a bias (B, S); with gradients to all three.

    None where the library does not serve, or where the boxes are not finite.
    """
    if rows.dim() == 6 and not lower.is_contiguous() and lower.movedim(2, 4).is_contiguous():  # channels last
        found = rectify(rows.movedim(3, 5), lower.movedim(2, 4), upper.movedim(2, 4))
        return None if found is None else (found[0].movedim(5, 3), found[1])
    given = rows, lower, upper
    if not available(rows.dtype) or len(rows) != len(lower) or lower.shape != upper.shape:
        return None
    if any(not x.is_cpu or x.dtype != rows.dtype or x.shape[-lower.dim() + 1 :] != lower.shape[1:] for x in given):
        return None
    pulled, bias, finite = Rectify.apply(*given)  # type: ignore[no-untyped-call]
    return (pulled, bias) if finite else None


class Rectify(torch.autograd.Function):
    """The passes of native/rectified.cpp."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Rows, biases, and whether all lines are finite."""
        rows, lower, upper = (x.contiguous() for x in given)
        ctx.save_for_backward(rows, lower, upper)
        pulled, bias = torch.empty_like(rows), rows.new_empty(rows.shape[:2])
        finite = _run("rectified", rows, (rows, lower, upper, pulled, bias))
        return pulled, bias, bool(finite)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, ...]:
        """Gradients of rows and of both ends; at an entry that is zero the derivative is that of the lower line."""
        rows, lower, upper = ctx.saved_tensors
        g, h = (grad.contiguous() for grad in grads[:2])
        found = torch.empty_like(rows), torch.empty_like(lower), torch.empty_like(upper)
        _run("rectified_gradient", rows, (rows, lower, upper, g, h, *found))
        return found


def _run(name: str, rows: Tensor, tensors: tuple[Tensor, ...]) -> int:
    boxes, count = rows.shape[:2]
    size = rows[0, 0].numel() if boxes * count else 0
    threads = max(1, min(torch.get_num_threads(), rows.numel() // _GRAIN, boxes))
    sizes = [ctypes.c_int64(x) for x in (boxes, count, size)]
    addresses = [ctypes.c_void_p(x.data_ptr()) for x in tensors]
    return int(function(f"verif_{name}", rows.dtype)(*addresses, *sizes, ctypes.c_int32(threads)))
