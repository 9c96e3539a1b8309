"""Projected gradient descent inside an input set, on the network of one step (Madry et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from relaxations.sets import InputSet
from verif.training.compiled import Step
from verif.training.regions import check_labels


@dataclass(frozen=True)
class Attack:
    """`steps` sign steps, each a share `rate` of the set's width (then a tenth of it from the middle on), from a random
    point of the set.
    """

    steps: int = 8
    rate: float = 0.25

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """Points (B, n) of the set with a large cross-entropy; without gradients."""
        check_labels(labels, step.count, len(region))
        return self.climb(region, lambda points: F.cross_entropy(step.at(points), labels, reduction="sum"))

    def climb(self, region: InputSet, objective: Callable[[Tensor], Tensor]) -> Tensor:
        """Points (B, n), one in each set, at which `objective` (a sum over them) is large; without gradients."""
        with torch.no_grad():
            width = region.box().width
            points = region.sample(1)[:, 0]
        for turn in range(self.steps):
            rate = self.rate if 2 * turn < self.steps else 0.1 * self.rate
            with torch.enable_grad():
                leaf = points.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(objective(leaf), leaf)
            with torch.no_grad():
                points = region.project((points + rate * width * gradient.nan_to_num().sign())[:, None])[:, 0]
        return points.detach()
