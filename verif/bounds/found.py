"""What a pass of bounds hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from relaxations import Interval, Relaxation
from verif.bounds.part import Part


@dataclass(frozen=True)
class Pass:
    """What one pass found: lower bounds (B, S) of the rows, their slopes (B, S, n) and bias in the input, and the
    intervals and relaxations that it used. `steep` are the rows' slopes before they were optimised, which say along
    which inputs to cut: at an optimum they tell nothing, for there they tend to zero.
    """

    lower: Tensor
    slopes: Tensor
    bias: Tensor
    intervals: Mapping[str, Interval]
    relaxations: Mapping[str, Relaxation]
    steep: Tensor | None = None
    part: Part | None = None

    def kept(self, index: Tensor, like: Tensor) -> Pass:
        """The rows of the boxes at an index or mask, in the precision of `like`."""
        steep = self.slopes if self.steep is None else self.steep
        lower, slopes, bias, steep = (x[index].to(like) for x in (self.lower, self.slopes, self.bias, steep))
        return Pass(lower, slopes, bias, self.intervals, self.relaxations, steep)

    @property
    def widths(self) -> tuple[tuple[str, float], ...]:
        """Mean width of each value's interval, over its entries and all boxes; the rows' own are left out."""
        own = ((name, i) for name, i in self.intervals.items() if not name.startswith("atoms."))
        return tuple((name, float((i.upper - i.lower).double().mean())) for name, i in own)


class OutOfTime(Exception):
    """The deadline passed in the middle of a pass; what it had found is of no use."""
