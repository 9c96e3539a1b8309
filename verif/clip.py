"""What the linear bounds of a pass say about where a conjunction of atoms can still hold inside a box.

The rows are slopes . x + bias <= limit, all of which a counterexample satisfies. Shape letters: N boxes, S rows,
n inputs. Every test leaves a margin for rounding: `margin` of the terms summed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SLACK = 1e-5
ROUNDS = 3
STEPS = 12


@dataclass(frozen=True)
class Rows:
    """slopes (N, S, n), bias and limit (N, S); a limit of +inf is no condition."""

    slopes: Tensor
    bias: Tensor
    limit: Tensor

    def take(self, index: Tensor) -> Rows:
        """Rows `index` (N, T) of each box."""
        slopes = self.slopes.gather(1, index[..., None].expand(-1, -1, self.slopes.shape[2]))
        return Rows(slopes, self.bias.gather(1, index), self.limit.gather(1, index))


def margin(rows: Rows) -> float:
    """The share of the terms of a row that the rounding of their sum stays below, whatever its order (gamma of Higham,
    Accuracy and Stability of Numerical Algorithms, section 3.1, twice).
    """
    return float(max(SLACK, (rows.slopes.shape[-1] + rows.slopes.shape[-2] + 16) * torch.finfo(rows.slopes.dtype).eps))


def shrink(lower: Tensor, upper: Tensor, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, n) cut, axis by axis, to where every row can hold (Clip-and-Verify, Zhou et al. 2025), and which of
    them (N,) became empty: no point of those boxes satisfies all rows.
    """
    empty, slack = torch.zeros(len(lower), dtype=torch.bool, device=lower.device), margin(rows)
    scale = torch.where(rows.slopes == 0, torch.ones_like(rows.slopes), rows.slopes)
    for _ in range(ROUNDS):
        least = torch.minimum(rows.slopes * lower[:, None], rows.slopes * upper[:, None])
        total = least.sum(-1, keepdim=True)
        size = (least.abs().sum(-1) + rows.bias.abs() + rows.limit.abs())[..., None]
        room = (rows.limit - rows.bias)[..., None] - total + least + slack * size  # what slope_j x_j may be at most
        edge = room / scale
        usable = edge.isfinite()
        high = torch.where((rows.slopes > 0) & usable, edge, torch.inf).amin(1).minimum(upper)
        low = torch.where((rows.slopes < 0) & usable, edge, -torch.inf).amax(1).maximum(lower)
        empty = empty | (low > high).any(-1)
        lower, upper = torch.minimum(low, high), torch.maximum(low, high)
    return lower, upper, empty


def combined(lower: Tensor, upper: Tensor, rows: Rows) -> Tensor:
    """Whether some combination of the rows cannot hold in the box, (N,): a lower bound of sum w_i (row_i - limit_i) for
    multipliers w of the simplex, ascended by exponentiated gradients; every w is sound.
    """
    used = rows.limit.isfinite()
    gap = torch.where(used, rows.bias - rows.limit, 0.0)
    slopes = torch.where(used[..., None], rows.slopes, 0.0)
    size = (slopes.abs() @ torch.maximum(lower.abs(), upper.abs())[..., None]).squeeze(-1) + gap.abs() + rows.bias.abs()
    size = torch.where(used, size, 0.0)
    spread = size.amax(-1, keepdim=True).clamp(min=1e-30)
    score = torch.where(used, 0.0, -torch.inf).to(gap)
    slack = margin(rows)
    refuted = torch.zeros(len(lower), dtype=torch.bool, device=lower.device)
    for step in range(STEPS):
        weight = torch.softmax(score, -1)
        row = (weight[:, None] @ slopes).squeeze(1)
        point = torch.where(row > 0, lower, upper)
        value = gap + (slopes @ point[..., None]).squeeze(-1)  # each row at the minimiser of the combination
        refuted = refuted | ((weight * value).sum(-1) > slack * (weight * size).sum(-1))
        score = score + 40.0 / (1 + step) ** 0.5 * value / spread
    return refuted
