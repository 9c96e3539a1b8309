"""What a run hands back: a verdict and its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from verif.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Counterexample:
    """A replayed point: z (n,) float64, the inputs and outputs of every network by name, as the replay saw them."""

    point: Tensor
    inputs: Mapping[str, np.ndarray[Any, Any]]
    outputs: Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Result:
    """A verdict and its evidence. `lower_bound`: no point is nearer to a violation than this (0 when parts of the input
    set were cut off unmeasured), or the worst gap that is still open (negative) where the verdict is not HOLDS;
    `domains` counts the sub-problems bounded; `reason` says why the verdict is UNKNOWN or TIMEOUT; `strategy` which
    search decided, and why that one; `rounding` how far HOLDS allows for rounding: "proved", or why it is measured;
    `arithmetic` what the verdict is about: real numbers, or programs that compute in this type.
    """

    verdict: Verdict
    lower_bound: float | None = None
    counterexample: Counterexample | None = None
    domains: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    reason: str = ""
    strategy: str = ""
    rounding: str = ""
    arithmetic: str = "real"
