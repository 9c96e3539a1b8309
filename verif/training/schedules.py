"""Schedules of radius and weights, and the initial weights that interval bounds need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Ramp:
    """A value that goes from `start` to `end` between two steps; smooth at both ends, or a straight line."""

    start: float
    end: float
    first: int
    last: int
    smooth: bool = True

    def __call__(self, step: float) -> float:
        """The value at a step, or at a share of the training."""
        share = min(max((step - self.first) / max(self.last - self.first, 1), 0.0), 1.0)
        if self.smooth:
            share = share * share * (3 - 2 * share)
        return self.start + (self.end - self.start) * share


def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Weights with which interval bounds neither grow nor vanish from layer to layer (Shi et al. 2021, section 3.1).

    Of fan-in n they are normal with variance 2 pi / n^2: then E |w| summed over the inputs is 2, and ReLU halves it.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                fan_in = part.weight[0].numel()
                part.weight.normal_(0.0, math.sqrt(2 * math.pi) / fan_in, generator=generator)
                if part.bias is not None:
                    part.bias.zero_()
