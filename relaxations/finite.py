"""Cheap tests for what is infinite or unknown: most passes meet neither, and should not pay for it entry by entry."""

from __future__ import annotations

import math

from torch import Tensor

from relaxations.rule import Interval


def all_finite(*parts: Tensor | None) -> bool:
    """Whether no entry is NaN or infinite; may say no by mistake where a sum overflows.

    One sum reads each part once and writes nothing, unlike masks.
    """
    return all(part is None or math.isfinite(part.detach().sum()) for part in parts)


def known(lower: Tensor, upper: Tensor) -> Interval:
    """The interval with NaN, an end that could not be computed, as infinite."""
    if all_finite(lower, upper):
        return Interval(lower, upper)
    return Interval(
        lower.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf),
        upper.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf),
    )
