"""Falsification: projected gradient descent on the clauses of a query, batched over starts (Madry et al. 2018).

Shape letters: P points, n input numbers, M atoms.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs import Graph
from relaxations.sets import Box
from verif.clauses import ClauseTable

LEAST, MOST = 32, 1 << 14  # starts of a descent
COST = 3  # of a step, in evaluations
FIRST, LAST = 0.5, 2e-3  # the first step of a descent as a share of the box, and the last as a share of the first
DRAWN = 8  # points drawn for each that descends
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Attacker:
    """Evaluates and descends the gap of points to the unsafe set; `graph` maps z (P, n) to atoms (P, M), `project`
    moves points (P, n) into the sets of their regions (P,), `most` points go through the graph at once.
    """

    graph: Graph
    table: ClauseTable
    project: Callable[[Tensor, Tensor], Tensor]
    most: int = 1 << 62

    def gap(self, points: Tensor, region: Tensor) -> Tensor:
        """Distance of each point to being a counterexample, (P,); at most 0: it is one (up to rounding)."""
        with torch.no_grad():
            atoms = torch.cat([self.graph(part)[0] for part in points.split(self.most)])
            return self.table.worst(self.table.gaps(atoms, region)[0])

    def descend(self, points: Tensor, width: Tensor, region: Tensor, budget: Budget) -> tuple[Tensor, Tensor]:
        """Signed gradient steps from `points` (P, n), steps in shares of `width` (P, n): best points and their gaps.

        Point p works on clause p modulo their number in each factor, so that restarts spread over a disjunction.
        """
        points = self.project(points, region)
        best, best_gap = points, points.new_full((len(points),), torch.inf, dtype=torch.float64)
        targets = torch.arange(len(points)).split(self.most)
        for step in range(budget.steps + 1):
            parts = zip(points.split(self.most), region.split(self.most), targets, strict=True)
            directions, gaps = zip(*(self._direction(*part) for part in parts), strict=True)
            gap = torch.cat(gaps)
            better = gap < best_gap
            best, best_gap = torch.where(better[:, None], points, best), torch.where(better, gap, best_gap)
            if bool((best_gap <= 0).any()) or time.monotonic() > budget.deadline:
                break
            points = self.project(points - budget.rates(len(points), step) * width * torch.cat(directions), region)
        return best, best_gap

    def _direction(self, points: Tensor, region: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Sign of the gradient of each point's own clause, and the gaps of the points."""
        with torch.enable_grad():
            variable = points.detach().requires_grad_()
            (atoms,) = self.graph(variable)
            gap = self.table.worst(self.table.gaps(atoms.detach(), region)[0])
            excess, _, there = self.table.excess(atoms, region)
            count = there.sum(-1).clamp(min=1)
            clause = (target[:, None] // 2 % count)[..., None, None].expand(-1, -1, 1, excess.shape[-1])
            chosen = excess.gather(2, clause).squeeze(2)
            # Half of the points lower the worst atom, the others the sum of all that fail.
            worst, total = chosen.amax(-1), chosen.clamp(min=0).sum(-1)
            loss = torch.where(target[:, None] % 2 == 0, worst, total).amax(-1)
            if not loss.requires_grad:  # behind a step function every gradient is zero
                return torch.zeros_like(points), gap
            (gradient,) = torch.autograd.grad(torch.where(loss.isfinite(), loss, 0.0).sum(), variable)
        return torch.nan_to_num(gradient).sign(), gap


@dataclass(frozen=True)
class Budget:
    """How long a descent may go on: steps, a monotonic deadline, and the first step as a share of the box.

    For half of the points steps fall with the square of those left: a first one of half the box carries every entry to
    its end at once where the gradient keeps its sign, in a fifth of the steps on image networks. For the others they
    fall geometrically, to small ones soon, which narrow valleys ask for.
    """

    steps: int
    deadline: float
    rate: float = FIRST

    def rates(self, count: int, step: int) -> Tensor:
        """The sizes (P, 1) of a step as shares of the box."""
        done = step / self.steps
        wide = self.rate * max((1 - done) ** 2, LAST)
        fine = self.rate / 2 * LAST**done
        mixed = torch.arange(count) * GOLDEN % 1 < 0.5  # no pattern shared with clauses, which go by remainders
        return torch.where(mixed, wide, fine)[:, None]


@dataclass(frozen=True)
class Pace:
    """How fast the model descends: points times steps a second (0: not known yet)."""

    speed: float = 0.0

    @classmethod
    def measured(cls, attacker: Attacker, points: Tensor, region: Tensor) -> Pace:
        """From points (P, n) evaluated twice: the first call of anything is slow."""
        for _ in range(2):
            begun = time.monotonic()
            attacker.gap(points, region)
        return cls(len(points) / COST / max(time.monotonic() - begun, 1e-6))

    def starts(self, steps: int, seconds: float, inputs: int) -> int:
        """How many points can make so many steps in about that time, within limits; few inputs have few valleys."""
        return min(max(int(self.speed * seconds / steps), min(LEAST, 1 + inputs)), MOST)


def starts(lower: Tensor, upper: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Starting points (D, count, n) in boxes (D, n): the centre, random corners, points of faces, uniform."""
    size = (len(lower), count, lower.shape[1])
    unit = torch.rand(size, generator=generator, dtype=lower.dtype)
    unit[:, 1::3] = unit[:, 1::3].round()
    edge = torch.rand(size, generator=generator, dtype=lower.dtype) < 0.5
    unit[:, 2::3] = torch.where(edge, unit.round(), unit)[:, 2::3]
    unit[:, 0] = 0.5
    points = lower[:, None] + unit * (upper - lower)[:, None]
    return torch.minimum(torch.maximum(points, lower[:, None]), upper[:, None])


def best_starts(
    attacker: Attacker,
    sources: Sequence[tuple[Box, Tensor]],
    count: int,
    generator: torch.Generator,
    drawn_for_each: int = DRAWN,
) -> tuple[Tensor, Tensor, Tensor]:
    """About `count` points (P, n) of boxes with their regions, the widths (P, n) of the boxes, and the regions (P,)."""
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    for box, region in sources:
        each = drawn_for_each * max(2, count // len(region) // len(sources))
        points = starts(box.lower, box.upper, each, generator).flatten(0, 1)
        drawn.append((points, box.width.repeat_interleave(each, 0), region.repeat_interleave(each)))
    points, width, region = (torch.cat(part) for part in zip(*drawn, strict=True))
    if drawn_for_each == 1:
        return points, width, region
    gap = attacker.gap(points, region)
    gap[:: 2 * drawn_for_each] = -math.inf  # half of the starts are those that look best, half are any
    best = torch.topk(gap, len(points) // drawn_for_each, largest=False).indices
    return points[best], width[best], region[best]
