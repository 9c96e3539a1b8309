"""Losses of logits, and the bounds of logits that they take: every certified method works with every one of them.

Each is the largest loss that the bounds allow (one a sample, differentiable); at points, where the bounds meet, it is
the plain loss. Shape letters: B samples, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relaxations.sets import InputSet
from verif import losses
from verif.training.compiled import Method, Step
from verif.training.regions import check_labels, margins


class Logits(NamedTuple):
    """What is known of the logits of labels (B,): a box (B, K), and lower bounds (B, K - 1) of the label's logit minus
    each other one, in the order of classes.
    """

    labels: Tensor
    lower: Tensor
    upper: Tensor
    margins: Tensor

    @classmethod
    def at(cls, logits: Tensor, labels: Tensor) -> Logits:
        """Of logits (B, K) themselves."""
        check_labels(labels, logits.shape[1])
        return cls(labels, logits, logits, _others(logits.gather(1, labels[:, None]) - logits, labels))

    @classmethod
    def bounded(cls, step: Step, region: InputSet, labels: Tensor, method: Method = "ibp") -> Logits:
        """Over a region: margins by a method, the box by intervals."""
        check_labels(labels, step.count, len(region))
        if method == "ibp":
            found = _others(step.margins(region, labels).lower, labels)
        else:
            found = step.lower(region, margins(labels, step.count), method)
        return cls(labels, *step.outer(region), found)

    def mixed(self, other: Logits, share: float) -> Logits:
        """A share of the other's, and the rest of these."""
        parts = (own + share * (more - own) for own, more in zip(self[1:], other[1:], strict=True))
        return Logits(self.labels, *parts)


def _others(values: Tensor, labels: Tensor) -> Tensor:
    """Values (B, K) without the label's own, (B, K - 1)."""
    return values[F.one_hot(labels, values.shape[1]) == 0].reshape(len(labels), -1)


Head = Callable[[Logits], Tensor]  # the loss (B,)


@dataclass(frozen=True)
class CrossEntropy:
    """Of softmax, in nats."""

    def __call__(self, logits: Logits) -> Tensor:
        """(B,)."""
        return losses.cross_entropy_of_margins(logits.margins)


@dataclass(frozen=True)
class CompSum:
    """Comp-sum losses (Mao, Mohri & Zhong 2023): tau 0 is the sum of exponentials, 1 the cross-entropy, 1 + q the
    generalised cross-entropy (1 - p^q) / q, 2 the absolute error 1 - p; margins are divided by rho.
    """

    tau: float = 1.0
    rho: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.tau <= 2 or self.rho <= 0:
            raise ValueError(f"tau lies in [0, 2] and rho is above 0, not {self.tau:g} and {self.rho:g}")

    def __call__(self, logits: Logits) -> Tensor:
        """(B,)."""
        return losses.comp_sum(logits.margins / self.rho, self.tau)


@dataclass(frozen=True)
class StableMax:
    """The StableMax cross-entropy (Prieto et al. 2025): from the box and the margins."""

    def __call__(self, logits: Logits) -> Tensor:
        """(B,)."""
        others = F.one_hot(logits.labels, logits.lower.shape[1]) == 0
        whole = torch.zeros_like(logits.lower).masked_scatter(others, logits.margins)
        return losses.stablemax_cross_entropy_of_margins(logits.lower, logits.upper, logits.labels, whole)


@dataclass(frozen=True)
class Spherical:
    """The cross-entropy of the spherical softmax (de Brebisson & Vincent 2016): from the box."""

    eps: float = 1e-6

    def __call__(self, logits: Logits) -> Tensor:
        """(B,)."""
        return losses.spherical_cross_entropy(logits.lower, logits.upper, logits.labels, self.eps)


@dataclass(frozen=True)
class ZLoss:
    """The Z-loss (de Brebisson & Vincent 2016): from the box."""

    a: float = 0.1
    b: float = 10.0

    def __call__(self, logits: Logits) -> Tensor:
        """(B,)."""
        found = losses.z_loss(logits.lower, logits.upper, logits.labels, self.a, self.b)
        known = (logits.lower.isfinite() & logits.upper.isfinite()).all(1)  # it is bounded whatever the logits
        return torch.where(known, found, torch.nan)


@dataclass(frozen=True)
class Drift:
    """The square of the logits' log-sum-exp, to be added to a loss with a small factor (Chowdhery et al. 2022, section
    5, take 1e-4): logits that do not drift. Log-sum-exp rises in every logit, so the ends of the box tell.
    """

    def __call__(self, logits: Logits) -> Tensor:
        """(B,)."""
        return torch.stack([logits.lower.logsumexp(1), logits.upper.logsumexp(1)]).square().amax(0)
