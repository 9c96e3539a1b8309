"""Gradients as products of matrices and slopes: the largest l1 norm when every slope is free in its interval.

The gradient of a network of layers one after the other is W_0 (d_1 * W_1 (d_2 * ... W_k d_(k+1))), d the slopes of its
activations. Its norm is convex in every slope alone, so the largest one is at an end of each interval: branch-and-bound
fixes slopes to one end or the other, and signs of entries, and is finite however many slopes there are. What it
ignores is that slopes depend on each other through the input.
Shape letters: B boxes or domains, R starts, n inputs (entries of the gradient), h slopes of a layer, F free numbers:
the signs of entries (n) and the slopes of all layers but the first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from graphs.ir import INPUT
from graphs.ops import OPS, Kind
from relaxations import Interval

_PRODUCTS = ("smooth_chain", "chain")
_MOST = 1 << 22  # entries of all matrices
_NARROW = 1e-4  # of an interval's ends: below this width a chord's slope would be noise
_SINGLE = 1e-3  # of a limit that rounding in float32 may take
_BATCH = 2048
_SWEEPS = 8


@dataclass(frozen=True)
class Chain:
    """`weights` W_0 ... W_k and the names of d_1 ... d_(k+1) in the graph of the gradient."""

    weights: Sequence[Tensor]
    slopes: Sequence[str]

    @classmethod
    def of(cls, gradient: Graph) -> Chain | None:
        """From the derivative graph of one output; None where it is not of this form or too large."""
        weights, slopes, last = list[Tensor](), list[str](), gradient.outputs[0]
        while True:
            start = _affine_start(gradient, last)
            node = gradient[start]
            if node.op == INPUT or node.size * gradient[last].size > _MOST:
                return None
            weight = _matrix(gradient, start, last)
            if weight is None:
                return None
            weights.append(weight)
            if node.op not in _PRODUCTS:
                slopes.append(start)
                return cls(weights, slopes)
            last, slope = node.inputs
            if not gradient[last].size == gradient[slope].size == node.size:
                return None
            slopes.append(slope)

    def to(self, dtype: torch.dtype) -> Chain:
        """The same in another precision."""
        return Chain([weight.to(dtype) for weight in self.weights], self.slopes)

    def ranges(self, intervals: Mapping[str, Interval]) -> list[Interval]:
        """The slopes' intervals of a pass, each (B, h)."""
        return [Interval(*(end.flatten(1) for end in intervals[name])) for name in self.slopes]

    def ascended(self, ranges: Sequence[Interval], starts: int, random: torch.Generator) -> Vertex:
        """A vertex with a large norm for each box: every slope in turn goes to its better end, from random starts."""
        shape = len(ranges[0].lower), starts
        ends = [Interval(*(end[:, None] for end in one)) for one in ranges]
        at = [
            torch.where(torch.rand(*shape, one.lower.shape[2], generator=random) < 0.5, *one).to(one.lower)
            for one in ends
        ]
        for _ in range(_SWEEPS):
            inner = self._inner(at)
            row = _signs(inner[0])
            for k, one in enumerate(ends):
                row = row @ self.weights[k]
                at[k] = torch.where(row * inner[k + 1] > 0, one.upper, one.lower)
                row = row * at[k]
        size = self._inner(at)[0].abs().sum(-1)
        best = size.argmax(1)
        box = torch.arange(len(best))
        return Vertex(size[box, best], [d[box, best] == one.upper for d, one in zip(at, ranges, strict=True)])

    def norm(self, ranges: Sequence[Interval], high: Sequence[Tensor]) -> Tensor:
        """The norms (B,) at vertices, `high` (B, h) saying which slopes are at their upper ends."""
        at = [torch.where(up, one.upper, one.lower) for up, one in zip(high, ranges, strict=True)]
        return self._inner(at)[0].abs().sum(-1)

    def _inner(self, at: Sequence[Tensor]) -> list[Tensor]:
        """What each W_k is followed by: the gradient, then the factors of d_1, d_2, ...; the last factors are 1."""
        found = [torch.ones_like(at[-1])]
        for weight, d in zip(reversed(self.weights), reversed(at), strict=True):
            found.insert(0, (found[0] * d) @ weight.T)
        return found


class Vertex(NamedTuple):
    """The norm (B,) where the slopes are at their upper ends (where `high`, each (B, h)) or lower ones."""

    norm: Tensor
    high: Sequence[Tensor]


class Domains(NamedTuple):
    """Parts of boxes `owner` (B,) in which free numbers are at one end: `lower` and `upper` (B, F) are equal there."""

    owner: Tensor
    lower: Tensor
    upper: Tensor

    def take(self, index: Tensor | slice) -> Domains:
        """Those at positions, or in a mask."""
        return Domains(*(part[index] for part in self))

    def parted(self, axis: Tensor) -> Domains:
        """Each twice, a free number `axis` (B,) at its lower end and at its upper one."""
        axis = axis[:, None]
        lower = self.lower.scatter(1, axis, self.upper.gather(1, axis))
        upper = self.upper.scatter(1, axis, self.lower.gather(1, axis))
        return Domains.join([Domains(self.owner, self.lower, upper), Domains(self.owner, lower, self.upper)])

    @classmethod
    def join(cls, parts: Sequence[Domains]) -> Domains:
        """One after the other."""
        return cls(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Trees:
    """Branch-and-bound over the ends of slopes in boxes with `ranges`, each (B, h).

    What a domain proves: s . gradient is below the limit for all signs s that it allows, where the slopes that it fixes
    are at their ends and all others as they are at any input. Bounds of entries must hold there too, so they come from
    the ranges alone.
    """

    chain: Chain
    ranges: Sequence[Interval]

    def below(self, limit: float, most: int, deadline: float) -> Tensor:
        """In which boxes (B,) the norm is proved to be at most the limit, by no more than about `most` domains each."""
        size = self._size()
        rounding = self._rounding(torch.float32) * size
        chosen = self
        if float(rounding.max()) < _SINGLE * limit:
            chosen = Trees(self.chain.to(torch.float32), [Interval(*(end.float() for end in r)) for r in self.ranges])
        else:
            rounding = self._rounding(torch.float64) * size
        return chosen._proved(limit - rounding, most, deadline)

    def _size(self) -> Tensor:
        """The norm (B,) if nothing cancelled: no value of a bound is larger, and rounding errors are parts of it."""
        sizes = [torch.maximum(one.lower.abs(), one.upper.abs()) for one in self.ranges]
        size = torch.ones_like(sizes[-1])
        for weight, d in zip(reversed(self.chain.weights), reversed(sizes), strict=True):
            size = (size * d) @ weight.abs().T
        return size.sum(1)

    def _rounding(self, dtype: torch.dtype) -> float:
        """The part of `_size` that rounding may add to a bound: in each layer less than a unit for every term of its
        sums and ten for the rest, in the values, in their intervals twice and in the chords' slopes.
        """
        terms = sum(max(weight.shape) + 10 for weight in self.chain.weights)
        return 4 * terms * torch.finfo(dtype).eps

    def _proved(self, limits: Tensor, most: int, deadline: float) -> Tensor:
        boxes, entries = len(limits), self.entries
        used, failed = torch.zeros(boxes, dtype=torch.long), torch.zeros(boxes, dtype=torch.bool)
        ones = torch.ones_like(entries.lower)
        left = Domains(
            torch.arange(boxes),
            torch.cat([-ones, *(one.lower for one in self.ranges[1:])], 1),
            torch.cat([ones, *(one.upper for one in self.ranges[1:])], 1),
        )
        while len(left.owner):
            batch, left = left.take(slice(-_BATCH, None)), left.take(slice(0, -_BATCH))
            if time.monotonic() > deadline:
                failed[batch.owner] = failed[left.owner] = True
                break
            bound, axis = self._bound(batch, entries)
            used.index_add_(0, batch.owner, torch.ones_like(batch.owner))
            over = ~(bound.double() <= limits[batch.owner])
            failed[batch.owner[over & ((axis < 0) | (used[batch.owner] > most))]] = True
            over &= ~failed[batch.owner]
            left = Domains.join([left, batch.take(over).parted(axis[over])])
            if bool(failed.any()):
                left = left.take(~failed[left.owner])
        return ~failed

    @property
    def entries(self) -> Interval:
        """Bounds (B, n) of the gradient's entries by chords."""
        factors = self._factors(self.ranges)
        low, high = factors[0]
        units = torch.eye(low.shape[1]).to(low)
        for sign in (-1.0, 1.0):
            rows = sign * units.repeat(len(low), 1)
            each = [
                [Interval(*(end.repeat_interleave(len(units), 0) for end in one)) for one in parts]
                for parts in (self.ranges, factors[1:])
            ]
            most = self._upper(rows, *each)[0].reshape(low.shape)
            low, high = (low, high.minimum(most)) if sign > 0 else (low.maximum(-most), high)
        return Interval(low, high)

    def _bound(self, domains: Domains, entries: Interval) -> tuple[Tensor, Tensor]:
        """Upper bounds (B,), and the number that should be fixed next, (B,); -1 where all are."""
        n = entries.lower.shape[1]
        ranges = [Interval(*(end[domains.owner] for end in self.ranges[0]))]
        widths = [one.lower.shape[1] for one in self.ranges[1:]]
        ranges += [
            Interval(*ends) for ends in zip(*(part[:, n:].split(widths, 1) for part in domains[1:]), strict=True)
        ]
        factors = self._factors(ranges)
        known = factors[0].meet(Interval(*(end[domains.owner] for end in entries)))
        sign, extra, dead = self._signs(domains, known)
        bound, rows = self._upper(sign, ranges, factors[1:])
        fall = torch.cat([torch.where(extra > 0, known.width, 0.0), *self._falls(rows, ranges, factors[1:])], 1)
        best = torch.where(domains.lower < domains.upper, fall, -math.inf).max(1)
        axis = torch.where(best.values > -math.inf, best.indices, -1)
        return torch.where(dead, -math.inf, bound + extra.sum(1)), axis

    def _falls(self, rows: Sequence[Tensor], ranges: Sequence[Interval], factors: Sequence[Interval]) -> list[Tensor]:
        """About how much bounds fall where a slope is fixed, (B, h) for all layers but the first: its own term's range,
        and what it adds to the widths of chords with a kink in front of it.
        """
        found, kinks = [], None
        for k, (row, d, a) in enumerate(zip(rows, ranges, factors, strict=True)):
            size = a.lower.abs().maximum(a.upper.abs())
            own = row.abs()
            if kinks is not None:
                wide = kinks @ self.chain.weights[k].abs()
                found.append((own + wide) * size * d.width)
                kinks = wide * d.upper.abs().maximum(d.lower.abs())
            astride = (a.lower < 0) & (a.upper > 0)
            kink = torch.where(astride, own * d.width / 2, 0.0)
            kinks = kink if kinks is None else kinks + kink
        return found

    def _factors(self, ranges: Sequence[Interval]) -> list[Interval]:
        """Intervals of the gradient and of what the slopes are factors of, as `Chain._inner`."""
        one = torch.ones_like(ranges[-1].lower)
        found = [Interval(one, one)]
        for weight, d in zip(reversed(self.chain.weights), reversed(ranges), strict=True):
            products = _products(found[0], d)
            middle, radius = (products.lower + products.upper) / 2, (products.upper - products.lower) / 2
            centre, spread = middle @ weight.T, radius @ weight.abs().T
            found.insert(0, Interval(centre - spread, centre + spread))
        return found

    def _signs(self, domains: Domains, entries: Interval) -> tuple[Tensor, Tensor, Tensor]:
        """|J| <= sign J + extra, both (B, n): chords where the sign is free; and which domains have no such signs."""
        n = entries.lower.shape[1]
        low, high = entries
        astride = (low < 0) & (high > 0)
        width = torch.where(astride, high - low, 1.0)
        sign = torch.where(astride, (high + low) / width, torch.where(low >= 0, 1.0, -1.0))
        extra = torch.where(astride, -2 * high * (low / width), 0.0)
        fixed = domains.lower[:, :n] == domains.upper[:, :n]
        chosen = domains.lower[:, :n]
        dead = (fixed & torch.where(chosen > 0, high < 0, low > 0)).any(1)
        return torch.where(fixed, chosen, sign), torch.where(fixed, 0.0, extra), dead

    def _upper(
        self, sign: Tensor, ranges: Sequence[Interval], factors: Sequence[Interval]
    ) -> tuple[Tensor, list[Tensor]]:
        """The largest value (B,) of sign . gradient: row . (d * a) is at most a chord in a, being convex in it; and the
        rows.
        """
        total, row, rows = torch.zeros_like(sign[:, 0]), sign, []
        for weight, d, a in zip(self.chain.weights, ranges, factors, strict=True):
            row = row @ weight
            rows.append(row)
            left, right = (torch.maximum(row * end * d.lower, row * end * d.upper) for end in a)
            width = a.upper - a.lower
            wide = width > _NARROW * (a.lower.abs() + a.upper.abs())
            slope = torch.where(wide, (right - left) / torch.where(wide, width, 1.0), 0.0)
            level = torch.where(wide, left - slope * a.lower, torch.maximum(left, right))
            total, row = total + level.sum(1), slope
        return total, rows


def _products(a: Interval, d: Interval) -> Interval:
    corners = torch.stack([x * y for x in a for y in d])
    return Interval(corners.amin(0), corners.amax(0))


def _signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x)


def _affine_start(graph: Graph, name: str) -> str:
    """The value that affine ops, one after the other, make `name` from."""
    while graph[name].op != INPUT and OPS[graph[name].op].kind is Kind.AFFINE and len(graph[name].inputs) == 1:
        (name,) = graph[name].inputs
    return name


def _matrix(graph: Graph, start: str, end: str) -> Tensor | None:
    """How `end` depends on `start` by affine ops; None where it does not vanish with it."""
    path = [end]
    while path[-1] != start:
        path.extend(graph[path[-1]].inputs)
    builder = GraphBuilder(constants=dict(graph.constants))
    value = builder.input(start, graph[start].shape)
    nodes = {value: builder.nodes[value]} | {name: graph[name] for name in reversed(path[:-1])}
    part = Graph(nodes, (value,), (end,), graph.constants)
    size = graph[start].size
    units = torch.cat([torch.eye(size), torch.zeros(1, size)]).to(_dtype(graph))
    with torch.no_grad():
        (found,) = part(units.reshape(-1, *graph[start].shape))
    found = found.flatten(1)
    return None if bool(found[-1].any()) else found[:-1].T.contiguous()


def _dtype(graph: Graph) -> torch.dtype:
    return next((c.dtype for c in graph.constants.values() if c.is_floating_point()), torch.float64)
