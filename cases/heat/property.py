"""How well the network solves the heat equation, anywhere on the rod and at any time."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from verif import Box, Condition, Expression, Range, certified_range, function, grad, variables
from verif.proofs import bounds_over

MODEL = Path(__file__).parent / "model.onnx"
ALPHA = 0.1
LIMIT = 0.12


def residual() -> Expression:
    """u_t - ALPHA u_xx."""
    t, x = variables(t=(0, 1), x=(0, 1))
    u = function(MODEL)(t, x)
    return grad(u, t) - ALPHA * grad(grad(u, x), x)


def residual_is_small() -> Condition:
    """Holds."""
    return abs(residual()) <= LIMIT


def residual_is_tiny() -> Condition:
    """Is violated."""
    return abs(residual()) <= LIMIT / 2


def bound(timeout: float = 60.0) -> Range:
    """All values of the residual, to a hundredth of their spread."""
    return certified_range(residual(), timeout=timeout)


def bounds_on_cells(cells: int, parts: int) -> Tensor:
    """Bounds of its size on the cells of a grid, (cells, cells), t first; each is cut into parts x parts."""
    ends = torch.linspace(0, 1, cells * parts + 1, dtype=torch.float64)
    sides = torch.stack([ends[:-1], ends[1:]], 1)
    t, x = sides.repeat_interleave(len(sides), 0), sides.repeat(len(sides), 1)
    pairs = torch.stack([t, x], 1)
    lower, upper = bounds_over(residual(), Box(pairs[..., 0], pairs[..., 1]))
    size = (-lower).maximum(upper).reshape(cells, parts, cells, parts)
    return size.amax((1, 3))
