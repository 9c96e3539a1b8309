"""Certified losses: one small object each, called with a step, a region and labels, to a number to be minimised.

All are means over the batch of the loss of logits that is their `head`. `kappa` is the share of the clean loss in those
that mix it in. Shape letters: B samples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from relaxations.sets import Box, InputSet
from verif.losses import comp_sum_of_entropy
from verif.training.attacks import Attack
from verif.training.compiled import Method, Step
from verif.training.heads import CompSum, CrossEntropy, Head, Logits
from verif.training.regions import margins

_NARROW = 1e-6  # width of a margin's interval up to which its largest value stands for it


def finite(loss: Tensor, step: Step, region: InputSet) -> Tensor:
    """The loss, or FloatingPointError where it is none; the error names the first module whose bounds are lost."""
    if not bool(loss.detach().isfinite()):
        raise FloatingPointError(
            f"the loss is not finite: {step.lost(region)}; the radius grew too fast, or the learning rate is too large"
        )
    return loss


def _with_clean(worst: Logits, step: Step, head: Head, kappa: float) -> Tensor:
    loss = head(worst).mean()
    return loss if kappa == 0 else kappa * head(Logits.at(step.outputs, worst.labels)).mean() + (1 - kappa) * loss


@dataclass(frozen=True)
class IBP:
    """Interval bounds (Gowal et al. 2018, equation 12): kappa clean + (1 - kappa) robust."""

    kappa: float = 0.0
    head: Head = field(default_factory=CrossEntropy)

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        loss = _with_clean(Logits.bounded(step, region, labels), step, self.head, self.kappa)
        return finite(loss, step, region)


@dataclass(frozen=True)
class CrownIBP:
    """CROWN-IBP (Zhang et al. 2020, equation 10): margins beta of linear bounds and 1 - beta of intervals."""

    beta: float = 1.0
    kappa: float = 0.0
    head: Head = field(default_factory=CrossEntropy)

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        worst = Logits.bounded(step, region, labels, "crown-ibp")
        if self.beta < 1:
            worst = worst.mixed(Logits.bounded(step, region, labels), 1 - self.beta)
        return finite(_with_clean(worst, step, self.head, self.kappa), step, region)


@dataclass(frozen=True)
class FusedCrownIBP:
    """CROWN-IBP with one row a sample instead of K - 1 (loss fusion: Xu et al. 2020, section 3.3), for comp-sum losses.

    The sum of e^(-margin) is convex in the margins: over their intervals it lies below its chords, whose sum is one
    linear function of the logits, and that is what is bounded.
    """

    head: CompSum = field(default_factory=CompSum)

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        upper, lower = (-end / self.head.rho for end in step.margins(region, labels))
        upper = upper.maximum(lower)
        top = upper.amax(1, keepdim=True).detach()  # taken off every exponent
        start, end = (lower - top).exp(), (upper - top).exp()
        width = upper - lower
        wide = width > _NARROW
        chord = torch.where(wide, (end - start) / torch.where(wide, width, 1.0), 0.0)
        offset = torch.where(wide, start - chord * lower, end).sum(1)
        row = torch.scatter_add(-chord, 1, labels[:, None], chord.sum(1, keepdim=True)) / self.head.rho
        worst = -step.lower(region, row[:, None], "crown-ibp")[:, 0]
        total = (offset + worst).clamp(min=torch.finfo(worst.dtype).tiny)
        loss = comp_sum_of_entropy(total.log() + top[:, 0], self.head.tau)
        return finite(loss.mean(), step, region)


@dataclass(frozen=True)
class SABR:
    """Intervals of a small box around an adversarial point (Mueller et al. 2023): `share` of the radius."""

    share: float = 0.1
    attack: Attack = field(default_factory=Attack)
    head: Head = field(default_factory=CrossEntropy)

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        return finite(self.head(Logits.bounded(step, self.small(step, region, labels), labels)).mean(), step, region)

    def small(self, step: Step, region: InputSet, labels: Tensor) -> Box:
        """Boxes of a share of the region's width, inside the region's box, around what an attack finds."""
        whole = region.box()
        half = 0.5 * self.share * whole.width
        point = self.attack(step, region, labels)
        center = torch.minimum(torch.maximum(point, whole.lower + half), whole.upper - half)
        return Box(center - half, center + half)


@dataclass(frozen=True)
class SmoothCompSum:
    """The smooth adversarial comp-sum loss (Mao, Mohri & Zhong 2023, section 5): the clean one, and `nu` times an upper
    bound of the largest Euclidean distance from the clean margins to those in the region.
    """

    head: CompSum = field(default_factory=CompSum)
    nu: float = 1.0
    method: Method = "ibp"

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        rows = margins(labels, step.count).to(step.clean.dtype)
        clean = Logits.at(step.outputs, labels)
        least, most = step.lower(region, torch.cat([rows, -rows], 1), self.method).chunk(2, 1)
        move = torch.maximum(clean.margins - least, -most - clean.margins).clamp(min=0)
        return finite((self.head(clean) + self.nu * torch.linalg.vector_norm(move, dim=1)).mean(), step, region)


@dataclass(frozen=True)
class _Mixed:
    """An adversarial and an interval loss, with the weight alpha of the latter (De Palma et al. 2024)."""

    alpha: float = 0.5
    attack: Attack = field(default_factory=Attack)
    head: Head = field(default_factory=CrossEntropy)

    def _both(self, step: Step, region: InputSet, labels: Tensor) -> tuple[Logits, Logits]:
        """At adversarial points, and over the region."""
        found = step.at(self.attack(step, region, labels))
        return Logits.at(found, labels), Logits.bounded(step, region, labels)


class CCIBP(_Mixed):
    """The loss of the convex combination of margins (equation 6)."""

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        found, worst = self._both(step, region, labels)
        return finite(self.head(found.mixed(worst, self.alpha)).mean(), step, region)


class MTLIBP(_Mixed):
    """The convex combination of both losses (equation 7)."""

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        found, worst = (self.head(part) for part in self._both(step, region, labels))
        return finite(((1 - self.alpha) * found + self.alpha * worst).mean(), step, region)


class ExpIBP(_Mixed):
    """The product of powers of both losses (equation 8)."""

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        found, worst = (self.head(part) for part in self._both(step, region, labels))
        tiny = torch.finfo(worst.dtype).tiny
        mixed = found.clamp(min=tiny) ** (1 - self.alpha) * worst.clamp(min=tiny) ** self.alpha
        return finite(mixed.mean(), step, region)
