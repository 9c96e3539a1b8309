"""The perpendicular gradient of "Grokking at the Edge of Numerical Stability" (Prieto et al. 2025, section 5)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def perpendicular(parameters: Iterable[Tensor]) -> None:
    """Take from every parameter's gradient its part along the parameter, and keep its length: between `backward` and
    `optimizer.step`.

    A network whose training samples are all right lowers the cross-entropy by growing its weights alone, until float32
    rounds the loss to 0; this direction is what is taken away. Gradients that point along the parameter only become 0,
    parameters that are 0 keep theirs.
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        square = parameter.square().sum()
        along = torch.where(square > 0, (parameter * gradient).sum() / square, 0.0)
        rest = gradient - along * parameter
        length, left = gradient.norm(), rest.norm()
        noise = torch.finfo(gradient.dtype).eps * length  # of the subtraction: what is left below it has no direction
        gradient.copy_(rest * torch.where(left > noise, length / left, 0.0))
