"""Boxes met with a half-space: where a line that bounds an output from below leaves room for what is asked.

For any weight w >= 0, the points x of the box with s . x + b <= 0 satisfy r . x + c >= (r + w s) . x + c + w b, and the
right side is at least its minimum over the box: a bound for every w, concave in w (Lagrange; the same multipliers as
in Kotha et al. 2023, section 3.2, for lines that are known). Shape letters: E rows, n input numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relaxations.sets import Box

STEPS = 7  # of bisection between 2^-RANGE and 2^RANGE
RANGE = 5.0


@dataclass(frozen=True)
class CutBox(Box):
    """One box (1, n), of which only the points with slopes . x + bias <= 0 count; slopes (n,), bias ()."""

    slopes: Tensor
    bias: Tensor

    def least(self, rows: Tensor, bias: Tensor) -> Tensor:
        """Lower bounds (E,) of rows . x + bias, rows (E, n) and bias (E,), less what rounding may have added."""
        weight = self._weights(rows)
        size = torch.maximum(self.lower.abs(), self.upper.abs())[0]
        mixed = rows.abs()
        terms = mixed @ size + bias.abs() + weight * (self.slopes.abs() @ size + self.bias.abs())
        torch.addcmul(rows, weight[:, None], self.slopes, out=mixed)
        value = mixed @ self.center[0] + (bias + weight * self.bias)
        value -= mixed.abs_() @ self.radius[0]
        return value - (2 * rows.shape[1] + 8) * torch.finfo(rows.dtype).eps * terms

    def _weights(self, rows: Tensor) -> Tensor:
        """Weights (E,) near the best ones: where the minimiser of the mixture crosses the border of the half-space."""
        cut, radius, single = self.slopes.float(), self.radius[0].float(), rows.float()
        turns = cut * radius
        mixed = single.abs()  # one array for all steps: fresh pages took half of the time
        unit = (mixed @ radius) / turns.abs().sum()
        middle = float(self.slopes @ self.center[0] + self.bias)
        exponent, step = torch.zeros(len(rows)), RANGE / 2
        for _ in range(STEPS):
            torch.addcmul(single, (unit * 2**exponent)[:, None], cut, out=mixed)
            outside = middle - mixed.sign_() @ turns > 0
            exponent, step = exponent + torch.where(outside, step, -step), step / 2
        weight = (unit * 2**exponent).to(rows)
        return torch.where(weight.isfinite(), weight, 0.0)
