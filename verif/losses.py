"""Certified losses: the largest cross-entropy that bounds of the logits allow, for softmax and StableMax.

Shape letters: B samples, K classes. Losses are in nats, one a sample, exact over boxes of logits, and
differentiable.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphs.ops.scalar import signed_log


def worst_logits(lower: Tensor, upper: Tensor, label: Tensor) -> Tensor:
    """The corner of the box (B, K) with the label's lower end and the others' upper ends: the worst for both losses."""
    own = F.one_hot(label, lower.shape[-1]) > 0
    return torch.where(own, lower, upper)


def cross_entropy(lower: Tensor, upper: Tensor, label: Tensor) -> Tensor:
    """The largest softmax cross-entropy over boxes of logits (B, K), labels (B,): (B,)."""
    return F.cross_entropy(worst_logits(lower, upper, label), label, reduction="none")


def cross_entropy_of_margins(margins: Tensor) -> Tensor:
    """The largest softmax cross-entropy where the label's logit exceeds the others' by at least margins (B, K - 1)."""
    return torch.cat([torch.zeros_like(margins[:, :1]), -margins], 1).logsumexp(1)


def stablemax_cross_entropy(lower: Tensor, upper: Tensor, label: Tensor) -> Tensor:
    """The largest StableMax cross-entropy over boxes of logits (B, K), labels (B,): (B,)."""
    return F.cross_entropy(signed_log(worst_logits(lower, upper, label)), label, reduction="none")


def stablemax_cross_entropy_of_margins(lower: Tensor, upper: Tensor, label: Tensor, margins: Tensor) -> Tensor:
    """An upper bound of the StableMax cross-entropy from a box of logits and margins, both (B, K), the label's being 0.

    `margins` are lower bounds of the label's logit minus each other one. StableMax is not invariant under shifts, so
    the box is needed too: the logit x_j is at most x_y - m_j, and s(x - m) / s(x) is largest over x in [l_y, u_y] at an
    end where m >= 0, and at m / 2 (cut to the interval) where m < 0.
    """
    own = F.one_hot(label, lower.shape[-1]) > 0
    low, high = (end.gather(1, label.unsqueeze(1)) for end in (lower, upper))

    def log_ratio(x: Tensor) -> Tensor:
        return signed_log(x - margins) - signed_log(x)

    ends = torch.maximum(log_ratio(low), log_ratio(high))
    inside = log_ratio(torch.minimum(torch.maximum(margins / 2, low), high))
    found = torch.minimum(torch.where(margins >= 0, ends, inside), signed_log(upper) - signed_log(low))
    return torch.where(own, 0, found).logsumexp(1)
