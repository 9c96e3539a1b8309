"""Input sets around samples, and rows of margins. Shape letters: B samples, n input numbers, K classes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from relaxations.sets import Ball, Box, InputSet, Meet
from verif.errors import PropertyError


def around(
    x: Tensor, radius: float | Tensor, norm: float = math.inf, least: float | None = None, most: float | None = None
) -> InputSet:
    """The points within `radius` (a number, or (B,) one for each) of samples x (B, *shape), between least and most.

    `norm` is 1, 2 or inf. Gradients flow to the samples and the radius. Raises PropertyError for a negative radius.
    """
    flat = x.flatten(1)
    size = radius.to(flat) if isinstance(radius, Tensor) else flat.new_full((len(flat),), float(radius))
    if not bool((size >= 0).all()):
        raise PropertyError("P116", f"a radius must be at least 0, not {float(size.min()):g}")
    wide = size.reshape(-1, 1).expand(len(flat), 1)
    lower, upper = flat - wide, flat + wide
    if least is not None:
        lower, upper = lower.clamp(min=least), upper.clamp(min=least)
    if most is not None:
        lower, upper = lower.clamp(max=most), upper.clamp(max=most)
    if math.isinf(norm):
        return Box(lower, upper)
    ball = Ball(flat, wide[:, 0], norm)
    return ball if least is None and most is None else Meet(Box(lower, upper), ball)


def check_labels(labels: Tensor, classes: int, samples: int | None = None) -> None:
    """Raises PropertyError for labels that are not numbers of the K classes, one for each of the samples."""
    if labels.dtype != torch.int64 or labels.dim() != 1:
        kind = str(labels.dtype).removeprefix("torch.")
        raise PropertyError("P116", f"labels are int64 of one axis, not {kind} of shape {list(labels.shape)}")
    if samples is not None and len(labels) != samples:
        raise PropertyError("P116", f"there are {samples} samples and {len(labels)} labels")
    if not bool(((labels >= 0) & (labels < classes)).all()):
        raise PropertyError(
            "P116", f"labels must lie between 0 and {classes - 1}; found {labels.min()} to {labels.max()}"
        )


def margins(labels: Tensor, classes: int) -> Tensor:
    """Rows (B, K - 1, K): the label's logit minus each other one, in the order of classes.

    Raises PropertyError for a label that is not one of the K classes.
    """
    check_labels(labels, classes)
    own = F.one_hot(labels, classes)
    rows = own[:, None] - torch.eye(classes, dtype=own.dtype, device=own.device)
    others = own == 0
    return rows[others].reshape(len(labels), classes - 1, classes).to(torch.get_default_dtype())
