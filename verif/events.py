"""What a search tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """What a search knows so far. `worst` is the lowest open gap, `proved_share` of the volume of all regions, `widths`
    the mean width of each value's interval over the first boxes, in the order of the graph.
    """

    open: int
    done: int
    worst: float
    proved_share: float
    boxes_per_second: float
    seconds: float
    widths: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A point (n,) that floating-point evaluation calls a counterexample; only a replay can confirm it."""

    point: Tensor
    region: int
