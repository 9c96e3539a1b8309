"""Certified losses: the largest that bounds of the logits allow: cross-entropies of softmax and StableMax, comp-sum and
spherical losses.

Shape letters: B samples, K classes. Losses are one a sample and differentiable; cross-entropies are in nats.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphs import GraphBuilder
from graphs.ops.scalar import signed_log
from relaxations import RULES, Call, Interval
from relaxations.norms import squares


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


def comp_sum(margins: Tensor, tau: float) -> Tensor:
    """The largest comp-sum loss (Mao, Mohri and Zhong 2023, arXiv 2304.07288) where the label's logit exceeds the
    others' by at least margins (B, K - 1): (B,), exact.

    With p the label's softmax share it is (p^(tau - 1) - 1) / (1 - tau): tau = 0 the sum of exponentials, 1 the
    cross-entropy, 1 + q the generalised cross-entropy (1 - p^q) / q (Zhang and Sabuncu 2018), 2 the absolute error.
    """
    return comp_sum_of_entropy(F.softplus((-margins).logsumexp(1)), tau)


def comp_sum_of_entropy(entropy: Tensor, tau: float) -> Tensor:
    """The comp-sum loss, which rises in the cross-entropy -log p (B,): (B,)."""
    return entropy if tau == 1 else torch.expm1((1 - tau) * entropy) / (1 - tau)


def spherical_cross_entropy(lower: Tensor, upper: Tensor, label: Tensor, eps: float = 1e-6) -> Tensor:
    """The largest -log((x_y^2 + eps) / sum of (x_j^2 + eps)) over boxes of logits (B, K): (B,), exact (de Brebisson and
    Vincent 2016, arXiv 1511.05042, the spherical softmax).
    """
    square = squares(Interval(lower, upper))
    logs = Interval(*((end + eps).log() for end in square))
    return F.cross_entropy(worst_logits(*logs, label), label, reduction="none")


def z_loss(lower: Tensor, upper: Tensor, label: Tensor, a: float = 0.1, b: float = 10.0, eps: float = 1e-6) -> Tensor:
    """An upper bound of the Z-loss softplus(a (b - z_y)) / a, z the logits (B, K) minus their mean over the root of
    their variance and eps: (B,) (de Brebisson and Vincent 2016, arXiv 1604.08859, the spherical family).
    """
    graph = GraphBuilder()
    normed = graph.add("layer_norm", [graph.input("x", lower.shape[1:])], attrs={"axes": (0,), "eps": eps})
    built = graph.build([normed])
    z = RULES["layer_norm"].interval(Call.of(built, built[normed]), [Interval(lower, upper)])
    return F.softplus(a * (b - z.lower.gather(1, label.unsqueeze(1))[:, 0])) / a
