"""Certified losses other than softmax cross-entropy, each an upper bound over the region, and the clean parts of them.

All are means over the batch. Shape letters: B samples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from relaxations.sets import InputSet
from verif.losses import stablemax_cross_entropy_of_margins
from verif.training.compiled import Method, Step
from verif.training.losses import finite
from verif.training.regions import margins


def comp_sum(margins: Tensor, tau: float = 1.0, rho: float = 1.0) -> Tensor:
    """The comp-sum loss (B,) of margins (B, K - 1), which falls in each (Mao, Mohri & Zhong 2023, section 2).

    Phi(sum of e^(-margin / rho)) with Phi(v) = ((1 + v)^(1 - tau) - 1) / (1 - tau): tau 0 is the sum of exponentials, 1
    the cross-entropy (logistic loss), between 1 and 2 the generalised cross-entropy (1 - p^q) / q with q = tau - 1,
    2 the mean absolute error 1 - p.
    """
    if not 0 <= tau <= 2 or rho <= 0:
        raise ValueError(f"tau lies in [0, 2] and rho is above 0, not {tau:g} and {rho:g}")
    logistic = F.softplus((-margins / rho).logsumexp(1))
    return logistic if tau == 1 else torch.expm1((1 - tau) * logistic) / (1 - tau)


@dataclass(frozen=True)
class CompSum:
    """The largest comp-sum loss that bounds of the margins allow; `tau` 1 + q for the generalised cross-entropy."""

    tau: float = 1.0
    rho: float = 1.0
    method: Method = "ibp"

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        lower = step.lower(region, margins(labels, step.count), self.method)
        return finite(comp_sum(lower, self.tau, self.rho).mean())


@dataclass(frozen=True)
class SmoothCompSum:
    """The smooth adversarial comp-sum loss (Mao, Mohri & Zhong 2023, section 5): the clean one, and `nu` times an upper
    bound of the largest Euclidean distance from the clean margins to those in the region.
    """

    tau: float = 1.0
    rho: float = 1.0
    nu: float = 1.0
    method: Method = "ibp"

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        rows = margins(labels, step.count).to(step.clean.dtype)
        clean = (rows @ step.outputs[..., None])[..., 0]
        least, most = step.lower(region, torch.cat([rows, -rows], 1), self.method).chunk(2, 1)
        move = torch.maximum(clean - least, -most - clean).clamp(min=0)
        return finite((comp_sum(clean, self.tau, self.rho) + self.nu * torch.linalg.vector_norm(move, dim=1)).mean())


@dataclass(frozen=True)
class StableMax:
    """The largest StableMax cross-entropy (Prieto et al. 2025) that bounds of margins and logits allow."""

    method: Method = "ibp"

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        lower, upper = step.outer(region)
        found = step.lower(region, margins(labels, step.count), self.method)
        others = F.one_hot(labels, step.count) == 0
        whole = torch.zeros_like(lower).masked_scatter(others, found)
        return finite(stablemax_cross_entropy_of_margins(lower, upper, labels, whole).mean())


@dataclass(frozen=True)
class ZLoss:
    """The largest square of the logits' log-sum-exp, to be added with a small factor (Chowdhery et al. 2022, section 5,
    take 1e-4): logits that do not drift. Log-sum-exp rises in every logit, so the ends of their intervals tell.
    """

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        ends = torch.stack([end.logsumexp(1) for end in step.outer(region)])
        return finite(ends.square().amax(0).mean())
