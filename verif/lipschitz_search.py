"""Branch-and-bound for Lipschitz constants: boxes are cut along an axis, or parted at a kink.

Shape letters: K open domains, B domains of a batch, M pivots, n inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from relaxations import Interval
from relaxations.sets import Ball, Box, InputSet, Meet
from verif.bounds import Pass
from verif.cells import cell_of, inside
from verif.clip import combined, shrink
from verif.jacobians import LocalNorm
from verif.lipschitz_climb import Climber
from verif.pivots import Pivots

_BATCH, _SMOOTH = 64, 256  # boxes parted at once: few where a cell can end the search, else as many as are fast
_MOST = 256  # pivots up to which their limits cut boxes


@dataclass(frozen=True)
class Parts:
    """Domains: boxes (K, n), limits of pivots (K, M), each inside the other's reach, and upper bounds (K,)."""

    lower: Tensor
    upper: Tensor
    low: Tensor
    high: Tensor
    bound: Tensor

    def __len__(self) -> int:
        return len(self.bound)

    @property
    def box(self) -> Box:
        """The boxes."""
        return Box(self.lower, self.upper)

    def take(self, index: Tensor) -> Parts:
        """Those at positions, or in a mask."""
        return Parts(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def join(cls, parts: Sequence[Parts]) -> Parts:
        """One after the other."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass
class Search:
    """`open` domains with their bounds, and the largest bound of `closed` ones; `known` are intervals of f's values."""

    local: LocalNorm
    region: Box | Ball
    climber: Climber
    tolerance: float
    deadline: float
    known: Mapping[str, Interval]
    closed: float = 0.0
    first: float = math.inf
    done: int = 0

    def __post_init__(self) -> None:
        box = self.region.box()
        self.pivots: Pivots = self.local.pivots
        self.batch = _BATCH if self.pivots.count else _SMOOTH
        low, high = self.pivots.limits(self.known)
        self.open = Parts(box.lower, box.upper, low, high, low.new_full((1,), math.inf))

    @property
    def upper(self) -> float:
        """The bound that is proved."""
        return max(self.closed, self.climber.lower, float(self.open.bound.max()) if len(self.open) else 0.0)

    def begin(self) -> None:
        """Bound the whole region, to the end even where that takes longer than there is time."""
        self.open = self.bounded(self.open, math.inf)
        self.first = float(self.open.bound)
        self.climber.climb()

    def bounded(self, parts: Parts, deadline: float) -> Parts:
        """Domains with their bounds, and with what the pass found as limits of their pivots; empty ones dropped."""
        within = self.pivots.within(parts.low, parts.high)
        bound, found = self.local.upper(self.met(parts.box), within, deadline)
        self.done += len(parts)
        low, high = parts.low, parts.high
        if self.pivots.count:
            low, high = self.pivots.ranges(found.intervals)
        if self.done == 1:  # the whole region is never empty
            bound = torch.where(bound == -math.inf, math.inf, bound)
        kept = Parts(parts.lower, parts.upper, low, high, bound.minimum(parts.bound))
        if self.done == 1:
            return kept
        alive = (bound > -math.inf) & self.undecided(kept, found)
        return kept.take(alive)

    def undecided(self, parts: Parts, found: Pass) -> Tensor:
        """Close the cells, domains in which every pivot has its side: empty ones go, of others a point is looked at.

        In a cell of a piecewise linear network the Jacobian is constant, and the bound its norm. Returns the domains
        (B,) that stay open.
        """
        stay = torch.ones(len(parts), dtype=torch.bool)
        if not self.pivots.count or found.part is None:
            return stay
        _, possible = self.pivots.cuts(parts.low, parts.high)
        decided = ~possible.any(1) & (parts.bound > self.climber.lower * (1 + self.tolerance))
        for index in decided.nonzero()[:, 0].tolist():
            if float(parts.bound[index]) <= self.climber.lower * (1 + self.tolerance):
                continue
            cell = cell_of(self.pivots, (parts.low[index], parts.high[index]), found.part.forward, index)
            if cell is None:
                continue
            stay[index] = False
            may, point = inside(cell, self.region.box())
            if point is not None:
                self.climber.climb(self.region.project(point[None, None])[0])
            if may:
                self.closed = max(self.closed, float(parts.bound[index]))
        return stay

    def settle(self) -> bool:
        """Close the domains that the lower bound reaches; whether others are left."""
        over = self.open.bound > self.climber.lower * (1 + self.tolerance)
        if not bool(over.all()):
            self.closed = max(self.closed, float(self.open.bound[~over].max()))
            self.open = self.open.take(over)
        return len(self.open) > 0

    def met(self, box: Box) -> InputSet:
        """Boxes met with the ball, where the region is one."""
        if isinstance(self.region, Box):
            return box
        return Meet(box, self.region.take(torch.zeros(len(box), dtype=torch.long)))

    def step(self) -> None:
        """Part the domains with the largest bounds and bound what they are parted to."""
        order = self.open.bound.argsort(descending=True)
        parents, rest = self.open.take(order[: self.batch]), self.open.take(order[self.batch :])
        children = self.children(parents)
        if len(children):
            children = self.bounded(children, self.deadline)
        self.open = Parts.join([rest, children])
        self.climber.climb()

    def children(self, parents: Parts) -> Parts:
        """Each domain twice, parted where its bound falls most; without those of which nothing is left."""
        gains, ranges, found = self.gains(parents)
        axis = gains.max(1)
        along = torch.where(axis.values > 0, axis.indices, (parents.upper - parents.lower).argmax(1))
        inner = torch.zeros(len(parents), dtype=torch.bool)
        made = []
        if self.pivots.count:
            pivot = ranges.max(1)
            inner = pivot.values > axis.values
            made.append(self.parted(parents, inner.nonzero()[:, 0], pivot.indices, found))
        whole = parents.take(~inner)
        halves = whole.box.split(along[~inner])
        low, high, bound = whole.low.repeat(2, 1), whole.high.repeat(2, 1), whole.bound.repeat(2)
        return Parts.join([*made, Parts(halves.lower, halves.upper, low, high, bound)])

    def parted(self, parents: Parts, chosen: Tensor, pivot: Tensor, found: Pass) -> Parts:
        """Both sides of a pivot (B,) for domains `chosen`, their boxes cut to where the sides can be."""
        at, _ = self.pivots.cuts(parents.low, parents.high)
        left, right = (parents.take(chosen) for _ in range(2))
        place = pivot[chosen][:, None]
        at = at[place]
        left = replace(left, high=left.high.scatter(1, place, at))
        right = replace(right, low=right.low.scatter(1, place, at))
        made = Parts.join([left, right])
        forward = {} if found.part is None else found.part.forward
        if not len(made) or self.pivots.count > _MOST or not all(p.value in forward for p in self.pivots.found):
            return made
        with torch.no_grad():
            rows = self.pivots.rows(made.low, made.high, forward, chosen.repeat(2))
            fresh = torch.cat([place, place + self.pivots.count], 1).repeat(2, 1)  # others have cut the box before
            lower, upper, empty = shrink(made.lower, made.upper, rows.take(fresh))
            alive = ~(empty | combined(lower, upper, rows))
        return replace(made, lower=lower, upper=upper).take(alive)

    def gains(self, parents: Parts) -> tuple[Tensor, Tensor, Pass]:
        """By how much bounds fall at first order for the halves of axes (B, n), and for the sides of pivots (B, M)."""
        lower, upper = (end.clone().requires_grad_() for end in (parents.lower, parents.upper))
        within, ends = self.pivots.ends(parents.low, parents.high)
        bound, found = self.local.upper(self.met(Box(lower, upper)), within, self.deadline)
        total = bound.nan_to_num(posinf=0.0, neginf=0.0).sum()
        gains = torch.zeros_like(parents.lower)
        ranges = torch.zeros_like(parents.low)
        if total.requires_grad:
            flat = [end for own in ends for end in own]
            down, up, *rest = torch.autograd.grad(total, [lower, upper, *flat], materialize_grads=True)
            gains = (up - down).nan_to_num().clamp(min=0) * (parents.upper - parents.lower) / 4
            if ends:  # the limits are what the slopes are anyway: of two equal ends each has half of the gradient
                falls = [
                    ((b - a).nan_to_num().clamp(min=0) * own.width.detach()).flatten(1)
                    for a, b, own in zip(rest[::2], rest[1::2], ends, strict=True)
                ]
                _, possible = self.pivots.cuts(parents.low, parents.high)
                ranges = torch.cat(falls, 1) * possible
        return gains, ranges, found
