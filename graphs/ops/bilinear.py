"""Products and quotients of two variables. Inputs are batched (B, *N)."""

from __future__ import annotations

import torch
from torch import Tensor

from graphs.ops.registry import Kind, op


@op(Kind.BILINEAR)
def mul(x: Tensor, y: Tensor) -> Tensor:
    """x y, elementwise, of two variables of equal rank (axes of size 1 broadcast)."""
    return x * y


@op(Kind.BILINEAR)
def matmul(x: Tensor, y: Tensor) -> Tensor:
    """Stack of matrix products of two variables of equal rank, at least 2 per sample (leading axes broadcast)."""
    return torch.matmul(x, y)


@op(Kind.BILINEAR)
def div(x: Tensor, y: Tensor) -> Tensor:
    """x / y, elementwise, of two variables of equal rank (axes of size 1 broadcast)."""
    return x / y
