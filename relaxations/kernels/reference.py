"""The kernels in plain torch: any device, differentiable by tape; what the faster versions are tested against.

Shape letters: B boxes, S rows, N one node's shape, n input numbers. A leading 1 stands for all boxes alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def relax(
    rows: Tensor, lower_slope: Tensor, lower_bias: Tensor | None, upper_slope: Tensor, upper_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Rows and biases as in `relaxations.kernels.relax`.

    Without a lower bias (ReLU) rows are read five times and written three times in all; with one the positive part is
    kept apart too, so that no line's rounding reaches an entry that takes the other.
    """
    negative = rows.clamp(max=0)
    positive = None if lower_bias is None else rows.clamp(min=0)
    bias = _bias(rows, (positive, lower_bias), (negative, upper_bias))
    lower, upper = lower_slope.unsqueeze(1), upper_slope.unsqueeze(1)
    first, k, second = positive, lower, (negative, upper)
    if first is None:  # negative (k_up - k_low) + rows k_low
        first, k, second = negative, upper - lower, (rows, lower)
    in_place = lower.shape[0] in (1, rows.shape[0]) and not any(x.requires_grad for x in (rows, lower, upper, bias))
    pulled = (first.mul_(k) if in_place else first * k).addcmul_(*second)
    return pulled, bias.expand(len(pulled), -1)


def minimize(rows: Tensor, center: Tensor, radius: Tensor) -> Tensor:
    """Minimum over boxes as in `relaxations.kernels.minimize`: rows are read three times and written once."""
    return _dot(rows, center) - _dot(rows.abs(), radius)


def gradient(
    rows: Tensor, lines: Sequence[Tensor | None], grads: tuple[Tensor, Tensor], needs: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradient of `relax` as in `direct.py`; no tape. At an entry that is zero it is that of the lower line."""
    low_slope, low_bias, up_slope, up_bias = (
        rows.new_zeros(1, *[1] * (rows.dim() - 1)) if x is None else x.unsqueeze(1) for x in lines
    )
    low_bias, up_bias = (torch.where(x.isfinite(), x, 0) for x in (low_bias, up_bias))
    g, h = grads[0], grads[1].reshape(*grads[1].shape, *[1] * (rows.dim() - 2))
    negative = rows < 0
    out = g * torch.where(negative, up_slope, low_slope) + h * torch.where(negative, up_bias, low_bias)
    up = rows.clamp(max=0)
    low = rows.clamp(min=0)
    products = zip((g, h, g, h), (low, low, up, up), needs, strict=True)
    return out, [(x * part).sum(1) if need else None for x, part, need in products]


def _bias(rows: Tensor, *sides: tuple[Tensor | None, Tensor | None]) -> Tensor:
    """Sum of the lower biases times positive entries and the upper biases times negative ones: (B, S)."""
    bias: Tensor | None = None
    for part, side in sides:
        if part is not None and side is not None:
            share = _dot(_flat(part, 2), _flat(side, 1))
            bias = share if bias is None else bias + share
    if bias is None:
        return rows.new_zeros(rows.shape[:2])
    if not bool(bias.isnan().any()):
        return bias
    # Some bias is infinite: entries that are zero must not see it, and what is still undefined is unknown.
    total = torch.zeros_like(bias)
    for part, side in sides:
        if part is not None and side is not None:
            share = torch.where(part == 0, 0, part * side.unsqueeze(1))
            total = total + _flat(share, 2).sum(2)
    return torch.where(total.isnan(), -math.inf, total)


def _flat(x: Tensor, lead: int) -> Tensor:
    """All axes after the first ones as one, also where there are none."""
    return x.flatten(lead) if x.dim() > lead else x.unsqueeze(lead)


def _dot(rows: Tensor, vector: Tensor) -> Tensor:
    """rows (B, S, n) times vector (B or 1, n): (B, S); one matrix-vector product where the vector is shared."""
    if len(vector) == 1:
        return rows @ vector[0]
    return torch.matmul(rows, vector.unsqueeze(-1)).squeeze(-1)
