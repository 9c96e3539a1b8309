"""Intervals in front of one layer's ReLUs, by branch-and-bound over the signs of the layers before it.

Boosting bounds of single neurons by exact solvers is due to Singh et al. 2019 (ICLR); here a neuron's two ends are rows
like any others, and all of a layer are searched together. Whatever is left of a row's cases when time is up has a
bound, so that every end is as good as the time allowed. Shape letters: K open entries, S = 2 K rows, n inputs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphs import Graph
from graphs.passes.dead import drop_dead
from relaxations import Interval
from relaxations.sets import Box
from verif.bounds import Engine, Pass
from verif.signs import LARGEST_BATCH, SignSearch

STEPS = 20  # of descents towards the ends of a value
SHORT = 0.2  # of the way from what descents reach to the known end, that is left: the last of it takes most cases


class FrontSearch(SignSearch):
    """The search over rows of values inside a network: what is left of them has a bound."""

    def _by_hulls(self, result: Pass) -> None:
        """Not for rows of which there are many."""

    def lows(self) -> Tensor:
        """Lower bounds (S,) of the rows, at most their limits."""
        low, left = self.limit.clone(), self.open.joined(self.stuck)
        if self.sweeps is None:
            return torch.full_like(low, -torch.inf)
        for index in torch.arange(len(left)).split(LARGEST_BATCH):
            cases = left.where(index)
            found, slack = self._sure(self.sweeps.exact, cases, 1, 0.0)
            sure = found.low - slack if found.complete else torch.full_like(slack, -torch.inf)
            low.scatter_reduce_(0, cases.row, torch.nan_to_num(sure, nan=-torch.inf), "amin")
        return low


@dataclass(frozen=True)
class Ends:
    """Open entries (K,) of one value, flat, and the rows for their ends: of which entry each is (S,), and its sign."""

    held: Interval
    place: Tensor
    sign: Tensor

    @classmethod
    def of(cls, engine: Engine, box: Box, held: Interval) -> tuple[Ends, Tensor]:
        """The rows for the output of an engine's graph, and what is worth to be shown of each (S,)."""
        lower, upper = (end.flatten() for end in held)
        place = ((lower < 0) & (upper > 0)).nonzero()[:, 0]
        count = len(place)
        both = cls(held, place.repeat(2), torch.ones(2 * count, dtype=lower.dtype))
        both.sign[count:] = -1.0
        reached = _reached(engine, box, both.place, both.sign)
        known = both.of_interval(held)
        wanted = (reached - SHORT * (reached - known)).maximum(known)
        certain = reached > 0  # then only the sign counts
        wanted = torch.where(certain, 0.0, wanted)
        needed = ~certain.roll(count)
        return cls(held, both.place[needed], both.sign[needed]), wanted[needed]

    def of_interval(self, held: Interval) -> Tensor:
        """The rows' least values by an interval, (S,)."""
        lower, upper = (end.flatten()[self.place] for end in held)
        return torch.where(self.sign > 0, lower, -upper)

    def rows(self) -> Tensor:
        """The rows themselves, (1, S, M)."""
        made = torch.zeros(len(self.place), self.held.lower.numel(), dtype=self.sign.dtype)
        made[torch.arange(len(made)), self.place] = self.sign
        return made[None]

    def interval(self, low: Tensor) -> Interval:
        """The interval where the rows have lower bounds (S,)."""
        lower, upper = (end.flatten().clone() for end in self.held)
        first, last = self.sign > 0, self.sign < 0
        lower[self.place[first]] = lower[self.place[first]].maximum(low[first])
        upper[self.place[last]] = upper[self.place[last]].minimum(-low[last])
        shape = self.held.lower.shape
        return Interval(lower.reshape(shape), upper.reshape(shape))


def before(engine: Engine, name: str) -> Engine:
    """An engine for the network up to one value."""
    graph = drop_dead(replace(engine.graph, outputs=(name,)))
    errors, crossing = (
        {node: held for node, held in of.items() if node in graph.nodes} for of in (engine.errors, engine.crossing)
    )
    return Engine(graph, chunk_bytes=engine.chunk_bytes, errors=errors, crossing=crossing)


def _reached(engine: Engine, box: Box, place: Tensor, sign: Tensor) -> Tensor:
    """The lowest values (S,) of sign * entry that signed gradient steps from the middle of the box find."""
    graph, single = engine.graph.to(torch.float32), box.to(torch.float32)
    found = [
        _descend(graph, single, place[part], sign[part].float())
        for part in torch.arange(len(place)).split(engine.limit(box.lower))
    ]
    return torch.cat([*found, torch.empty(0)]).to(sign)


def _descend(graph: Graph, box: Box, place: Tensor, sign: Tensor) -> Tensor:
    points = box.center.expand(len(place), -1)
    lowest = torch.full((len(place),), torch.inf)
    for step in range(STEPS + 1):
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            value = graph(points)[0].flatten(1).gather(1, place[:, None])[:, 0] * sign
            (gradient,) = torch.autograd.grad(value.sum(), points)
        lowest = lowest.minimum(value.detach())
        share = 1.0 if step == 0 else 0.5 * (1 - step / STEPS) ** 2
        moved = points.detach() - share * box.width * gradient.sign()
        points = moved.maximum(box.lower).minimum(box.upper)
    return lowest


@dataclass
class Front:
    """The search for the ends of the value `name` over the box of `search`, which knows the intervals before it."""

    name: str
    ends: Ends
    wanted: Tensor
    work: FrontSearch
    steps: Iterator[None]
    low: Tensor

    @classmethod
    def of(cls, search: SignSearch, name: str) -> Front:
        """Nothing is searched yet."""
        engine = before(search.engine, name)
        held = Interval(*(end.contiguous() for end in search.ranges[name]))
        ends, wanted = Ends.of(engine, search.box, held)
        known = {front: ends for front, ends in search.ranges.items() if front in engine.graph.nodes and front != name}
        limit = wanted + cls._error(engine)[ends.place]
        store = max(1, search.store_bytes - search.open.nbytes)
        work = FrontSearch(engine, search.box, ends.rows(), limit, search.deadline, store, chance=search.chance)
        work.ranges = known
        return cls(name, ends, wanted, work, work.run(), ends.of_interval(held))

    @staticmethod
    def _error(engine: Engine) -> Tensor:
        """What bounds of the output may be off by, (M,), and as much again."""
        size = engine.graph[engine.output].size
        held = engine.errors.get(engine.output, torch.zeros(size))
        return 2 * held.double().flatten()

    @property
    def best(self) -> Interval:
        """The interval if all that is wanted were shown."""
        return self.ends.interval(self.wanted)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be searched."""
        return self.work.sweeps is not None and not len(self.work.open)

    def run(self, seconds: float) -> Iterator[None]:
        """Search for some time, at least for one step."""
        until = time.monotonic() + seconds
        for _ in self.steps:
            yield
            if time.monotonic() > until:
                break
        self.low = self.work.lows() - self._error(self.work.engine)[self.ends.place]

    @property
    def left(self) -> float:
        """How much of what is wanted is not shown, in all."""
        return float((self.wanted - self.low).clamp(min=0).sum())

    @property
    def found(self) -> Interval:
        """The interval by what is known."""
        return self.ends.interval(self.low)
