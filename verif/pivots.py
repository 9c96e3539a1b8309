"""Values inside a network that are parted at a kink: below it, or above.

Shape letters: B boxes, M pivots (all entries of all such values, flat, in order), n inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphs import Graph
from relaxations import Affine, Interval
from verif.clip import Rows


class Pivot(NamedTuple):
    """A value with a kink at `at` in every entry, and the nodes of its slope, which is `left` or `right` there."""

    value: str
    shape: tuple[int, ...]
    at: float
    slopes: tuple[str, ...]
    left: float
    right: float


@dataclass(frozen=True)
class Pivots:
    """All pivots of a derivative graph."""

    found: Sequence[Pivot]

    @classmethod
    def of(cls, derivative: Graph) -> Pivots:
        """Kinks between two pieces, such as ReLU's."""
        found: dict[object, Pivot] = {}
        for node in derivative:
            if node.op == "clarke" and len(node.attrs["at"]) == 1:
                (at,), (left, right) = node.attrs["at"], node.attrs["slopes"]
                key = node.inputs[0], at, left, right
                names = (*(found[key].slopes if key in found else ()), node.name)
                found[key] = Pivot(node.inputs[0], node.shape, at, names, left, right)
        return cls(list(found.values()))

    @property
    def count(self) -> int:
        """M."""
        return sum(math.prod(pivot.shape) for pivot in self.found)

    def within(self, low: Tensor, high: Tensor) -> dict[str, Interval]:
        """What limits (B, M) hold values and slopes within; the slope in a kink is that of the side (almost everywhere
        on the set where a value stays in its kink it has no slope itself: any factor will do).
        """
        limits: dict[str, Interval] = {}
        for pivot, lower, upper in self.parts(low, high):
            own = Interval(lower, upper)
            limits[pivot.value] = limits[pivot.value].meet(own) if pivot.value in limits else own
            right, left = lower >= pivot.at, upper <= pivot.at
            least, most = min(pivot.left, pivot.right), max(pivot.left, pivot.right)
            fixed = torch.where(right, torch.full_like(lower, pivot.right), pivot.left)  # not in float32
            either = ~(right | left)
            for name in pivot.slopes:
                limits[name] = Interval(torch.where(either, least, fixed), torch.where(either, most, fixed))
        return limits

    def ends(self, low: Tensor, high: Tensor) -> tuple[dict[str, Interval], list[Interval]]:
        """`within`, and for each pivot the limits of its slope as leaves that bounds can be differentiated by."""
        limits = self.within(low, high)
        ends = []
        for pivot in self.found:
            ends.append(Interval(*(end.clone().requires_grad_() for end in limits[pivot.slopes[0]])))
            limits |= dict.fromkeys(pivot.slopes, ends[-1])
        return limits, ends

    def limits(self, known: Mapping[str, Interval]) -> tuple[Tensor, Tensor]:
        """Limits (1, M) from intervals of some values over one box; infinite for others."""
        low, high = (torch.full((1, self.count), end, dtype=torch.float64) for end in (-math.inf, math.inf))
        for pivot, lower, upper in self.parts(low, high):
            if pivot.value in known:
                lower.copy_(known[pivot.value].lower)  # views of both
                upper.copy_(known[pivot.value].upper)
        return low, high

    def ranges(self, intervals: Mapping[str, Interval]) -> Interval:
        """The intervals of the values, (B, M)."""
        parts = [intervals[pivot.value] for pivot in self.found]
        return Interval(*(torch.cat([end.flatten(1) for end in ends], 1) for ends in zip(*parts, strict=True)))

    def cuts(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The kinks (M,), and which of the ranges (B, M) hold theirs inside."""
        at = torch.cat([torch.full((math.prod(p.shape),), p.at, dtype=torch.float64) for p in self.found])
        return at, (low < at) & (at < high)

    def rows(self, low: Tensor, high: Tensor, forward: Mapping[str, Affine], owner: Tensor) -> Rows:
        """Conditions (B, 2 M rows) on the input that limits (B, M) imply, by linear bounds over boxes `owner` (B,).

        First those of all lower limits, then those of all upper ones.
        """
        first, second = [], []
        for pivot, lower, upper in self.parts(low, high):
            form = Affine(*(tensor[owner] for tensor in forward[pivot.value]))
            below, above = (slope.flatten(2).mT for slope in (form.lower_slope, form.upper_slope))
            first.append((-above, (lower.flatten(1) - form.upper_bias.flatten(1))))
            second.append((below, (form.lower_bias.flatten(1) - upper.flatten(1))))
        slopes, bias = (torch.cat(tensors, 1) for tensors in zip(*first, *second, strict=True))
        known = bias.isfinite() & slopes.isfinite().all(-1)
        limit = torch.where(known, 0.0, math.inf).to(bias)
        return Rows(torch.where(known[..., None], slopes, 0.0), torch.where(known, bias, 0.0), limit)

    def parts(self, low: Tensor, high: Tensor) -> list[tuple[Pivot, Tensor, Tensor]]:
        """Each pivot with its share of two tensors (B, M), (B, *N)."""
        sizes = [math.prod(pivot.shape) for pivot in self.found]
        parts = zip(self.found, torch.split(low, sizes, 1), torch.split(high, sizes, 1), strict=True)
        return [(p, lower.reshape(-1, *p.shape), upper.reshape(-1, *p.shape)) for p, lower, upper in parts]
