"""Lower bounds of Lipschitz constants: points with a large Jacobian, and pairs of points around them.

Shape letters: P points, S rows, n inputs.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relaxations.sets import Ball, Box
from verif.jacobians import LocalNorm

_SHARES = (1e-2, 1e-4, 1e-6)  # of the region that a pair spans
_FRESH = 512  # random points in each round
_ROWS, _EACH = 8, 4  # and the points that are kept: the best of the largest rows
_COPIES = 8
_NUMBERS = 1 << 22  # in all Jacobians of a round
_ROUNDING = 2.0**-48  # of the values whose difference counts: less may be rounding alone
_SHARE = 0.25  # of the time


@dataclass
class Climber:
    """The largest difference quotient so far, `lower`, of the points `pair` (2, n) of the region."""

    local: LocalNorm
    region: Box | Ball
    seed: int
    lower: float = 0.0
    spent: float = 0.0
    started: float = field(default_factory=time.monotonic)
    random: torch.Generator = field(default_factory=torch.Generator)

    def __post_init__(self) -> None:
        self.random.manual_seed(self.seed)
        self.elite = self.region.box().center
        self.pair = self.elite.repeat(2, 1)

    def climb(self, given: Tensor | None = None) -> None:
        """Look at variations of the best points, at random ones, and at `given` (P, n).

        Without `given` nothing happens where this has had its share of the time.
        """
        begun = time.monotonic()
        if given is None and self.spent > _SHARE * (begun - self.started):
            return
        fresh = min(_FRESH, max(16, self.most))
        parts = [self.elite, self._moved(self.elite), self.region.sample(fresh, self.random)[0]]
        points = torch.cat(parts if given is None else [*parts, given])
        with torch.no_grad():
            matrices = self.local.matrices(points)
            size, direction = self.local.norm.at(matrices)
        size = size.nan_to_num(nan=0.0, posinf=0.0)
        best = size.topk(4).indices
        if float(size[best[0]]) > self.lower:
            self._witness(points[best], direction[best])
        self.elite = torch.cat([points[best], points[_diverse(matrices, self.local.norm.p)]])
        self.spent += time.monotonic() - begun

    @property
    def most(self) -> int:
        """How many points have Jacobians of so many numbers."""
        f = self.local.f
        return int(_NUMBERS // (f[f.inputs[0]].size * f[f.outputs[0]].size))

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.random, dtype=torch.float64)

    def _moved(self, points: Tensor) -> Tensor:
        """Single coordinates to elsewhere or to an end, small steps, and steps along the norm's gradient."""
        copies = max(1, min(_COPIES, self.most // len(points)))
        count, n, box = copies * len(points), points.shape[1], self.region.box()
        base = points.repeat(copies, 1)
        pick = self._uniform(count, n) < 2 / n
        far = self.region.sample(count, self.random)[0]
        scale = 10.0 ** -(3 * self._uniform(count, 1))
        near = base + scale * box.width * (self._uniform(count, n) - 0.5)
        corner = torch.where(far > box.center, box.upper, box.lower)
        kind = torch.arange(count)[:, None] % 4
        moved = torch.where(pick, torch.where(kind == 0, far, corner), base)
        moved = torch.where(kind >= 2, near, moved)
        return self.region.project(torch.cat([moved, self._ascended(points)])[None])[0]

    def _ascended(self, points: Tensor) -> Tensor:
        """A step along the gradient of the norm, which is zero where the network is piecewise linear."""
        x = points.clone().requires_grad_()
        size, _ = self.local.norm.at(self.local.matrices(x))
        if not size.requires_grad:
            return points
        (slope,) = torch.autograd.grad(size.nan_to_num().sum(), x, materialize_grads=True)
        step = 10.0 ** -(4 * self._uniform(len(points), 1))
        return points + step * self.region.box().width * slope.nan_to_num().sign()

    def _witness(self, points: Tensor, directions: Tensor) -> None:
        """Pairs of points along directions of l_p norm 1, moved a little to the centre so that both are inside."""
        box, norm = self.region.box(), self.local.norm
        half = (box.upper - box.center).minimum(box.center - box.lower)
        directions = torch.where(half > 0, directions, 0.0)
        if isinstance(self.region, Ball):
            length = torch.linalg.vector_norm(directions, self.region.norm, dim=-1, keepdim=True)
            reach = self.region.radius / length.clamp(min=1e-300)
        else:
            reach = torch.where(directions == 0, math.inf, half / directions.abs()).amin(-1, keepdim=True)
        reach = torch.where(reach.isfinite(), reach, 0.0)
        for share in _SHARES:
            near = box.center + (1 - share) * (points - box.center)
            ends = torch.cat([near + share * reach * directions, near - share * reach * directions])
            first, second = self.region.project(ends[None])[0].chunk(2)
            with torch.no_grad():
                values = self.local.f(first)[0], self.local.f(second)[0]
            distance = torch.linalg.vector_norm(first - second, norm.p, dim=-1)
            noise = _ROUNDING * torch.linalg.vector_norm(values[0].abs() + values[1].abs(), norm.q, dim=-1)
            rise = (torch.linalg.vector_norm(values[0] - values[1], norm.q, dim=-1) - noise).clamp(min=0)
            quotient = torch.where(distance > 0, rise / distance, 0.0).nan_to_num(posinf=0.0)
            best = int(quotient.argmax())
            if float(quotient[best]) > self.lower:
                self.lower, self.pair = float(quotient[best]), torch.stack([first[best], second[best]])


def _diverse(matrices: Tensor, p: float) -> Tensor:
    """Positions among matrices (P, S, n) of those with the largest rows, of several rows and of several sizes each:
    many points of a piecewise linear network have the very same Jacobian.
    """
    sizes = torch.linalg.vector_norm(matrices, {1: math.inf, 2: 2, math.inf: 1}[p], dim=2).nan_to_num(posinf=0.0)
    found = []
    for row in sizes.amax(0).topk(min(_ROWS, sizes.shape[1])).indices.tolist():
        ordered, order = sizes[:, row].sort(descending=True)
        fresh = torch.ones_like(ordered, dtype=torch.bool)
        fresh[1:] = ordered[:-1] - ordered[1:] > 1e-9 * ordered[0]
        found.append(order[fresh][:_EACH])
    return torch.cat(found)
