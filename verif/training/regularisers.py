"""The regularisers of Shi et al. 2021 (section 3.2), for the first steps of interval training.

Shape letters: B samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from relaxations import Interval
from relaxations.sets import InputSet
from verif.training.compiled import Step


@dataclass(frozen=True)
class WarmUp:
    """How much the intervals widen up to each ReLU, and how unbalanced active and inactive neurons are; 0 where neither
    passes the tolerance. Added to a loss with 0.5 (1 - radius / last radius).
    """

    tolerance: float = 0.5

    def __call__(self, step: Step, region: InputSet) -> Tensor:
        """A number; 0 where the network has no ReLU."""
        first = region.box().width.mean()
        parts = [self._wide(found, first) + self._unbalanced(found) for found in _relus(step, region)]
        return torch.stack(parts).mean() if parts else first.new_zeros(())

    def _wide(self, found: Interval, first: Tensor) -> Tensor:
        width = (found.upper - found.lower).mean()
        share = torch.where(width > 0, first / torch.where(width > 0, width, 1.0), 1.0)
        return self._below(share)

    def _unbalanced(self, found: Interval) -> Tensor:
        center = (found.lower + found.upper) / 2
        active, inactive = found.lower > 0, found.upper < 0
        spread = (center - center.mean()).square()
        return self._below(_balance(center, active, inactive)) + self._below(_balance(spread, active, inactive))

    def _below(self, share: Tensor) -> Tensor:
        return (self.tolerance - share).clamp(min=0) / self.tolerance


def _relus(step: Step, region: InputSet) -> Iterator[Interval]:
    found = step.intervals(region)
    return (found[node.inputs[0]] for node in step.graph if node.op == "relu")


def _balance(value: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The smaller sum of |value| over the larger, over two sets of entries; 0 where one is empty."""
    sums = torch.stack([(value * mask).sum().abs() for mask in (first, second)])
    return sums.amin() / sums.amax().clamp(min=torch.finfo(value.dtype).tiny)
