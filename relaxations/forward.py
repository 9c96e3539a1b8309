"""Forward mode: what linear bounds in the input say about a box of it."""

from __future__ import annotations

import torch
from torch import Tensor

from relaxations.rule import Affine


def least_and_most(form: Affine, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """The least lower bound and the greatest upper one, each (B, *N), over boxes center +- radius, each (B, K).

    NaN where a bound could not be computed.
    """
    weight = torch.cat([center, radius], 1).unsqueeze(1)
    low = _total(form.lower_slope, form.lower_bias, weight, -1)
    return low, _total(form.upper_slope, form.upper_bias, weight, 1)


def _total(slope: Tensor, bias: Tensor, weight: Tensor, side: int) -> Tensor:
    """bias + slope . center + side |slope| . radius: one product of small matrices a box."""
    size = slope.abs() if side > 0 else slope.abs().neg_()
    terms = torch.cat([slope, size], 1).reshape(len(slope), 2 * slope.shape[1], -1)
    return torch.baddbmm(bias.reshape(len(bias), 1, -1), weight, terms).reshape(bias.shape)
