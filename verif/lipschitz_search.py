"""Branch-and-bound for Lipschitz constants: boxes are cut along an axis, or parted by the side of a kink.

Shape letters: K open domains, B domains of a batch, M kinks, n inputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relaxations import Interval
from relaxations.sets import Ball, Box, InputSet, Meet
from verif.bounds import Pass
from verif.clip import combined, shrink
from verif.jacobians import LocalNorm
from verif.kinks import Kinks
from verif.lipschitz_climb import Climber

_BATCH = 64
_SHARE = 0.25  # of the time, for the lower bound
_MOST_ROWS = 256  # kinks up to which their sides' conditions cut boxes


@dataclass(frozen=True)
class Parts:
    """Domains: boxes (K, n), sides of kinks (K, M) and upper bounds (K,)."""

    lower: Tensor
    upper: Tensor
    sides: Tensor
    bound: Tensor

    def __len__(self) -> int:
        return len(self.bound)

    @property
    def box(self) -> Box:
        """The boxes."""
        return Box(self.lower, self.upper)

    def take(self, index: Tensor) -> Parts:
        """Those at positions, or in a mask."""
        return Parts(self.lower[index], self.upper[index], self.sides[index], self.bound[index])

    @classmethod
    def join(cls, parts: Sequence[Parts]) -> Parts:
        """One after the other."""
        fields = ("lower", "upper", "sides", "bound")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


@dataclass
class Search:
    """`open` domains with their bounds, the largest bound of `closed` ones, and the best pair of points."""

    local: LocalNorm
    region: Box | Ball
    climber: Climber
    tolerance: float
    deadline: float
    started: float = field(default_factory=time.monotonic)
    closed: float = 0.0
    first: float = math.inf
    done: int = 0
    climbed: float = 0.0

    def __post_init__(self) -> None:
        box = self.region.box()
        self.kinks: Kinks = self.local.kinks
        sides = torch.zeros(1, self.kinks.count, dtype=torch.int8)
        self.open = Parts(box.lower, box.upper, sides, torch.full((1,), math.inf, dtype=torch.float64))

    @property
    def upper(self) -> float:
        """The bound that is proved."""
        return max(self.closed, self.climber.lower, float(self.open.bound.max()) if len(self.open) else 0.0)

    def begin(self) -> None:
        """Bound the whole region, to the end even where that takes longer than there is time."""
        bound, _ = self.local.upper(self.met(self.open.box))
        self.open = Parts(self.open.lower, self.open.upper, self.open.sides, bound)
        self.first, self.done = float(bound), 1
        self.climb()

    def settle(self) -> bool:
        """Close the domains that the lower bound reaches; whether others are left."""
        over = self.open.bound > self.climber.lower * (1 + self.tolerance)
        if not bool(over.all()):
            self.closed = max(self.closed, float(self.open.bound[~over].max()))
            self.open = self.open.take(over)
        return len(self.open) > 0

    def climb(self, given: Tensor | None = None) -> None:
        """A round of the search for a lower bound, if it has not had its share of the time, or points are given."""
        begun = time.monotonic()
        if given is not None or self.climbed <= _SHARE * (begun - self.started):
            self.climber.climb(given)
            self.climbed += time.monotonic() - begun

    def met(self, box: Box) -> InputSet:
        """Boxes met with the ball, where the region is one."""
        if isinstance(self.region, Box):
            return box
        return Meet(box, self.region.take(torch.zeros(len(box), dtype=torch.long)))

    def step(self) -> None:
        """Part the domains with the largest bounds and bound what they are parted to."""
        order = self.open.bound.argsort(descending=True)
        parents, rest = self.open.take(order[:_BATCH]), self.open.take(order[_BATCH:])
        children = self.children(parents)
        if len(children):
            within = self.kinks.within(children.sides)
            bound, _ = self.local.upper(self.met(children.box), within, self.deadline)
            self.done += len(bound)
            children = Parts(children.lower, children.upper, children.sides, bound.minimum(children.bound))
            children = children.take(children.bound > -math.inf)
        self.open = Parts.join([rest, children])
        self.climb()

    def children(self, parents: Parts) -> Parts:
        """Each domain twice, parted where its bound falls most; without those of which nothing is left."""
        gains, sides, found = self.gains(parents)
        axis, kink = gains.max(1), sides.max(1) if sides.shape[1] else None
        by_kink = torch.zeros(len(parents), dtype=torch.bool)
        if kink is not None:
            by_kink = kink.values > axis.values
        made = []
        if bool((~by_kink).any()):
            whole = parents.take(~by_kink)
            width = whole.upper - whole.lower
            along = torch.where(axis.values[~by_kink] > 0, axis.indices[~by_kink], width.argmax(1))
            halves = whole.box.split(along)
            made.append(Parts(halves.lower, halves.upper, whole.sides.repeat(2, 1), whole.bound.repeat(2)))
        if kink is not None and bool(by_kink.any()):
            made.append(self.parted(parents, by_kink, kink.indices, found))
        return Parts.join(made)

    def parted(self, parents: Parts, chosen: Tensor, kink: Tensor, found: Pass) -> Parts:
        """The two sides of a kink (B,) for the chosen domains (B,), their boxes cut to where the sides can be."""
        index = chosen.nonzero()[:, 0]
        twice = index.repeat(2)
        sides = parents.sides[twice].clone()
        place = kink[twice][:, None]
        sides.scatter_(1, place, torch.tensor([1, -1], dtype=torch.int8).repeat_interleave(len(index))[:, None])
        lower, upper = parents.lower[twice], parents.upper[twice]
        alive = torch.ones(len(twice), dtype=torch.bool)
        forward = {} if found.part is None else found.part.forward
        if sides.shape[1] <= _MOST_ROWS and all(kink.value in forward for kink in self.kinks.found):
            with torch.no_grad():
                held = {
                    k.value: type(forward[k.value])(*(t[twice] for t in forward[k.value])) for k in self.kinks.found
                }
                rows = self.kinks.rows(sides, held)
                lower, upper, empty = shrink(lower, upper, rows)
                alive = ~(empty | combined(lower, upper, rows))
        made = Parts(lower, upper, sides, parents.bound[twice])
        return made.take(alive)

    def gains(self, parents: Parts) -> tuple[Tensor, Tensor, Pass]:
        """By how much bounds fall at first order for either half of each axis (B, n), or side of each kink (B, M)."""
        lower, upper = (end.clone().requires_grad_() for end in (parents.lower, parents.upper))
        within = self.kinks.within(parents.sides)
        slopes = [kink.slope for kink in self.kinks.found]
        ends = [end.requires_grad_() for name in slopes for end in within[name]]
        within |= {name: Interval(*ends[2 * i : 2 * i + 2]) for i, name in enumerate(slopes)}
        bound, found = self.local.upper(self.met(Box(lower, upper)), within, self.deadline)
        total = bound.nan_to_num(posinf=0.0, neginf=0.0).sum()
        gains = torch.zeros_like(parents.lower)
        sides = torch.zeros(len(parents), self.kinks.count, dtype=torch.float64)
        if total.requires_grad:
            down, up, *rest = torch.autograd.grad(total, [lower, upper, *ends], materialize_grads=True)
            gains = (up - down).nan_to_num().clamp(min=0) * (parents.upper - parents.lower) / 4
            flat = [g.nan_to_num().reshape(len(parents), -1) for g in rest]
            if flat:
                sides = torch.cat([b - a for a, b in zip(flat[::2], flat[1::2], strict=True)], 1)
                sides = sides.clamp(min=0) * self.kinks.open(found.intervals)
        return gains.detach(), sides.detach(), found
