"""Entries of bounds: in which order they are swept, and what of two bounds is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from graphs.ops import OPS, Kind
from relaxations import RULES, Call, Interval
from verif.bounds.found import Pass


@dataclass(frozen=True)
class Seen:
    """What a pass said about values inside a network: mean widths, how many kinks are open (see `open_kinks`), and the
    signs (B, size) of sums in front of nonlinear ops, by node, 0 where they are open.
    """

    widths: tuple[tuple[str, float], ...] = ()
    kinks: int = 0
    signs: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, found: Pass) -> Seen:
        """Of a pass over a graph."""
        signs = {
            name: (ends.lower >= 0).flatten(1).to(torch.int8) - (ends.upper <= 0).flatten(1).to(torch.int8)
            for name, ends in in_front(graph, found.intervals).items()
        }
        return cls(found.widths, open_kinks(graph, found.intervals), signs)


def open_kinks(graph: Graph, intervals: Mapping[str, Interval]) -> int:
    """Entries in front of nonlinear ops whose side the intervals of a pass leave open, in all boxes together."""
    count = 0
    for node in graph:
        if node.op != INPUT and OPS[node.op].kind is not Kind.AFFINE:
            masks = RULES[node.op].undecided(Call.of(graph, node), [intervals[name] for name in node.inputs])
            count += sum(int(mask.sum()) for mask in masks if mask is not None)
    return count


def in_front(graph: Graph, intervals: Mapping[str, Interval]) -> dict[str, Interval]:
    """The intervals of sums in front of nonlinear ops, of a pass: another over the same boxes leaves those that they
    decide out (`Engine.bound(known=...)`), and only has rows for what is open.
    """
    kinds = {node.name: None if node.op == INPUT else OPS[node.op].kind for node in graph}
    bent = (node for node in graph if kinds[node.name] not in (None, Kind.AFFINE))
    return {name: intervals[name] for node in bent for name in node.inputs if kinds[name] is Kind.AFFINE}


def by_pixel(mask: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Boxes and flat entries in a mask (B, C * H * W), ordered so that rows of one pixel stand together."""
    boxes, places = mask.reshape(len(mask), channels, -1).transpose(1, 2).flatten(1).nonzero(as_tuple=True)
    return boxes, places % channels * (mask.shape[1] // channels) + places // channels


def meet(held: Interval, lower: Tensor, upper: Tensor) -> Interval:
    """Intersection that ignores NaN (a bound that could not be computed)."""
    return ordered(torch.fmax(held.lower, lower), torch.fmin(held.upper, upper))


def ordered(lower: Tensor, upper: Tensor) -> Interval:
    """Two sound bounds may cross by rounding only: then both ends are kept, in order."""
    return Interval(torch.minimum(lower, upper), torch.maximum(lower, upper))
