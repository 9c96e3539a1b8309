"""Passes over parts of boxes: where some values lie within given intervals, such as the signs of neurons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from graphs import Graph
from relaxations import Affine, Interval, Relaxation
from relaxations.planes import ConstantPlanes

CROSSING = 1e4  # units in the last place by which two bounds must cross for a part to be empty


def readers(graph: Graph, names: Iterable[str]) -> set[str]:
    """Nodes, and all whose values depend on theirs."""
    found = set(names)
    for node in graph:
        if not found.isdisjoint(node.inputs):
            found.add(node.name)
    return found


@dataclass
class Part:
    """Limits of values by node, each (B, *N); `empty` (B,) says of which boxes no part is left, `forward` holds the
    linear bounds of forward mode where it runs, `errors` what rounding may have done to bounds of values.
    """

    within: Mapping[str, Interval]
    forward: Mapping[str, Affine]
    boxes: int
    errors: Mapping[str, Tensor] = field(default_factory=dict)
    crossed: list[Tensor] = field(default_factory=list)

    @property
    def empty(self) -> Tensor:
        """Whether bounds crossed, bool (B,)."""
        if not self.crossed:
            return torch.zeros(self.boxes, dtype=torch.bool)
        return torch.stack(self.crossed).any(0)

    def cut(self, name: str, held: Interval) -> Interval:
        """An interval met with the limits of its value."""
        limit = self.within.get(name)
        if limit is None:
            return held
        low, high = held.lower.maximum(limit.lower), held.upper.minimum(limit.upper)
        self.compare(name, low, high, held.lower.abs().maximum(held.upper.abs()))
        return Interval(low.minimum(high), low.maximum(high))

    def compare(self, name: str, low: Tensor, high: Tensor, size: Tensor) -> None:
        """Note where bounds of a value, each (B, *N), cross by more than rounding does at that size."""
        slack = CROSSING * torch.finfo(low.dtype).eps * (1 + size)
        if name in self.errors:
            slack = slack + 2 * self.errors[name].to(slack)
        self.crossed.append((low - high > slack).detach().reshape(self.boxes, -1).any(1))

    def constant(self, relaxation: Relaxation, interval: Interval) -> Relaxation:
        """A relaxation by constants takes the tighter ones."""
        if not isinstance(relaxation, ConstantPlanes):
            return relaxation
        return replace(relaxation, lower=interval.lower, upper=interval.upper)
