"""The kinks of a network in its derivative graph: on which side of each a part of a box lies.

Shape letters: B boxes, M kinks (all entries of all values with one kink each, flat, in order), n inputs.
A side is -1 (left of the kink), 1 (right of it) or 0 (either).
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


class Kink(NamedTuple):
    """A value with a kink at `at` in every entry, the node of its slope, and the slopes left and right of it."""

    value: str
    slope: str
    at: float
    left: float
    right: float
    shape: tuple[int, ...]


def _pair(slopes: Sequence[float]) -> tuple[float, float]:
    left, right = slopes
    return left, right


@dataclass(frozen=True)
class Kinks:
    """All kinks of a graph."""

    found: Sequence[Kink]

    @classmethod
    def of(cls, graph: Graph) -> Kinks:
        """Those of piecewise linear functions with two pieces, such as ReLU."""
        nodes = [node for node in graph if node.op == "clarke" and len(node.attrs["at"]) == 1]
        return cls([Kink(n.inputs[0], n.name, n.attrs["at"][0], *_pair(n.attrs["slopes"]), n.shape) for n in nodes])

    @property
    def count(self) -> int:
        """M."""
        return sum(math.prod(kink.shape) for kink in self.found)

    def within(self, sides: Tensor) -> dict[str, Interval]:
        """What sides (B, M) hold values and slopes within; the slope in a kink is that of the side (almost everywhere
        on the set where a value stays in its kink it has no slope itself: any factor will do).
        """
        limits: dict[str, Interval] = {}
        for kink, side in self._parts(sides):
            inf = torch.full(side.shape, math.inf, dtype=torch.float64)
            held = limits.get(kink.value, Interval(-inf, inf))
            at, low, high = kink.at, min(kink.left, kink.right), max(kink.left, kink.right)
            own = Interval(torch.where(side > 0, at, -inf), torch.where(side < 0, at, inf))
            limits[kink.value] = held.meet(own)
            fixed = torch.where(side > 0, kink.right, kink.left).to(torch.float64)
            limits[kink.slope] = Interval(torch.where(side == 0, low, fixed), torch.where(side == 0, high, fixed))
        return limits

    def open(self, intervals: Mapping[str, Interval]) -> Tensor:
        """Which kinks (B, M) may lie on either side, by the intervals of their slopes."""
        widths = [intervals[kink.slope].width for kink in self.found]
        return torch.cat([width.reshape(len(width), -1) > 0 for width in widths], 1)

    def rows(self, sides: Tensor, forward: Mapping[str, Affine]) -> Rows:
        """The conditions (B, M rows) on the input that sides imply, by linear bounds of the values."""
        parts = []
        for kink, side in self._parts(sides):
            form = forward[kink.value]
            lower, upper = (slope.flatten(2).mT for slope in (form.lower_slope, form.upper_slope))
            low, high = (bias.flatten(1) for bias in (form.lower_bias, form.upper_bias))
            flat = side.flatten(1)
            right = flat > 0
            limit = torch.where(flat == 0, math.inf, 0.0).to(low)
            slopes = torch.where(right[..., None], -upper, lower)
            parts.append((slopes, torch.where(right, kink.at - high, low - kink.at), limit))
        return Rows(*(torch.cat(tensors, 1) for tensors in zip(*parts, strict=True)))

    def _parts(self, sides: Tensor) -> list[tuple[Kink, Tensor]]:
        sizes = [math.prod(kink.shape) for kink in self.found]
        parts = torch.split(sides, sizes, 1)
        return [(k, part.reshape(-1, *k.shape)) for k, part in zip(self.found, parts, strict=True)]
