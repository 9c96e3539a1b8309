"""Branch-and-bound for rows of smooth networks: boxes are cut until trees over the ends of slopes prove a target.

Linear bounds of products with slopes are far looser than the largest norm at vertices of the slopes' intervals, which
trees find (see slope_chains.py). A point's ascent over vertices tells before whether a tree can succeed.
Shape letters: B boxes, n inputs.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from graphs import GraphBuilder
from graphs.passes.dead import drop_dead
from relaxations import Interval
from relaxations.sets import Box
from verif.bounds import Engine
from verif.jacobians import LocalNorm
from verif.lipschitz_search import Parts, Search
from verif.slope_chains import Chain, Trees, Vertex

_NUMBERS = 1 << 20  # entries times slopes of the boxes that have trees at once
_SMALLEST, _LARGEST = 256, 65_536  # domains that a tree may have
_STARTS = 16  # of an ascent
_ROOM = 0.003  # of the target between a vertex and it that a tree needs, else it is too large
_PAUSE = 32  # steps without trees, at most
_FIRST = 1.05  # target, of the largest vertex of the whole region
_SHARES = 1 / 64, 1 / 2  # by how much of the gap the target falls, at least and at most
_QUICK, _SLOW = 0.05, 1.0  # parts of the time so far in which a target is reached soon, and late
_SOON = 2.0  # seconds that are never late


@dataclass
class Goal:
    """A bound that is being proved for all rows: `target`, since the time `since`, by trees of `most` domains.

    For `rest` steps they are not tried, after the next failure for `pause`.
    """

    searches: list[VertexSearch] = field(default_factory=list)
    target: float = math.inf
    share: float = 1 / 4
    most: int = 16_384
    rest: int = 0
    pause: int = 1
    started: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)

    def aim(self, low: float) -> float:
        """The next target where this one is reached, by more of the gap to `low` where that was quick; one between this
        and what is proved where it takes long. The first one is a little above the vertices of the whole region.
        """
        now, high = time.monotonic(), max(search.upper for search in self.searches)
        took, before = now - self.since, self.since - self.started
        if self.target == math.inf:
            self.target, self.since = _FIRST * max(search.vertex() for search in self.searches), now
        if high <= self.target:
            if took < _QUICK * before:
                self.share = min(2 * self.share, _SHARES[1])
            self.target, self.since = low + (high - low) * (1 - self.share), now
        elif took > max(_SOON, _SLOW * before):
            self.share = max(self.share / 2, _SHARES[0])
            self.target, self.since = (self.target + high) / 2, now
        return self.target

    def count(self, trees: int, proved: int) -> None:
        """Trees may be larger where nearly all of them prove their target; where few do they must be smaller, and where
        the smallest fail they are not tried again for more and more steps.
        """
        if proved > 0.9 * trees:
            self.most = min(2 * self.most, _LARGEST)
        if proved < 0.5 * trees:
            if self.most == _SMALLEST:
                self.rest, self.pause = self.pause, min(2 * self.pause, _PAUSE)
            self.most = max(self.most // 4, _SMALLEST)
        elif proved:
            self.pause = 1


@dataclass
class VertexSearch(Search):
    """One row of several with the same goal."""

    chain: Chain | None = None
    goal: Goal = field(default_factory=Goal)
    random: torch.Generator = field(default_factory=torch.Generator)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.goal.searches.append(self)

    def vertex(self) -> float:
        """The largest norm of a vertex that an ascent finds in the whole region."""
        return float(self.looked(self.open)[0].norm.max()) if len(self.open) else 0.0

    @staticmethod
    def chain_of(local: LocalNorm) -> Chain | None:
        """The slopes of one row of a smooth network whose l1 norm counts; None for others."""
        rows = local.f[local.f.outputs[0]].size
        if rows != 1 or local.norm.group != 1 or local.norm.by_columns or local.pivots.count:
            return None
        return Chain.of(local.jacobian)

    @cached_property
    def slopes(self) -> Engine:
        """Bounds of the slopes."""
        assert self.chain is not None
        builder = GraphBuilder.extend(self.local.jacobian)
        graph = self.local.jacobian
        flat = [builder.add("reshape", [s], attrs={"shape": (graph[s].size,)}) for s in self.chain.slopes]
        return Engine(drop_dead(builder.build([builder.add("concat", flat, attrs={"axis": 0})])))

    def step(self) -> None:
        """Some boxes above the target: those of which a tree proves it have that bound, the others are cut."""
        assert self.chain is not None
        if self.goal.rest:
            self.goal.rest -= 1
            super().step()
            return
        target = self.goal.aim(self.climber.lower * (1 + self.tolerance / 2))
        over = self.open.bound > target
        order = self.open.bound.argsort(descending=True)
        count = max(1, min(self.batch, int(over.sum())))
        parents, rest = self.open.take(order[:count]), self.open.take(order[count:])
        vertex, ranges, gains = self.looked(parents)
        near = (vertex.norm <= target * (1 - _ROOM)).nonzero()[:, 0]
        proved = torch.zeros(len(parents), dtype=torch.bool)
        for part in near.split(max(1, _NUMBERS // self.chain.weights[0].numel())) if len(near) else ():
            own = [Interval(*(end[part] for end in one)) for one in ranges]
            proved[part] = Trees(self.chain, own).below(target, self.goal.most, self.deadline)
        self.goal.count(len(near), int(proved.sum()))
        missed = near[~proved[near]]
        if len(missed):
            gains[missed] = self.gains(parents.take(missed))[0]
        held = parents.take(proved)
        held = replace(held, bound=held.bound.clamp(max=target))
        self.open = Parts.join([rest, held, parents.take(~proved)])
        if not bool(proved.all()):
            halves = self.bounded(self.halves(parents.take(~proved), gains[~proved]), self.deadline)
            self.open = Parts.join([rest, held, halves])
        self.climber.climb()

    def looked(self, parents: Parts) -> tuple[Vertex, list[Interval], Tensor]:
        """The best vertex of each box, the slopes' intervals, and by how much halves of axes (B, n) lower its norm."""
        assert self.chain is not None
        with torch.enable_grad():
            lower, upper = (end.clone().requires_grad_() for end in (parents.lower, parents.upper))
            none = torch.zeros(1, self.slopes.graph[self.slopes.output].size, dtype=lower.dtype)
            found = self.slopes.bound(self.met(Box(lower, upper)), none, deadline=self.deadline).intervals
            ranges = self.chain.ranges(found)
            held = [Interval(one.lower.detach(), one.upper.detach()) for one in ranges]
            vertex = self.chain.ascended(held, _STARTS, self.random)
            total = self.chain.norm(ranges, vertex.high).nan_to_num().sum()
            down, up = torch.autograd.grad(total, [lower, upper], materialize_grads=True)
        return vertex, held, (up - down).nan_to_num().clamp(min=0) * (parents.upper - parents.lower)

    def halves(self, parents: Parts, gains: Tensor) -> Parts:
        """Boxes cut where their vertices' norms fall most."""
        best = gains.max(1)
        along = torch.where(best.values > 0, best.indices, (parents.upper - parents.lower).argmax(1))
        cut = parents.box.split(along)
        low, high = parents.low.repeat(2, 1), parents.high.repeat(2, 1)
        return Parts(cut.lower, cut.upper, low, high, parents.bound.repeat(2))
