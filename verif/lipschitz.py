"""Local Lipschitz constants: the largest operator norm of the Jacobian over a region, between two bounds that close in.

Upper bounds come from linear relaxation of the backward graph (Shi et al. 2022) and branch-and-bound over input boxes;
lower ones from pairs of points, whose difference quotient no Lipschitz constant can be below, whatever the kinks.
Shape letters: B boxes, P points, n inputs, S rows, m outputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from relaxations.sets import Ball, Box, InputSet, Meet
from verif.bounds import Rounds
from verif.bounds.engine import OutOfTime
from verif.errors import PropertyError
from verif.jacobians import LocalNorm, flat_rows
from verif.networks import Networks
from verif.operator_norms import OperatorNorm
from verif.properties import Model

_NORMS = (1, 2, math.inf)
_STEPS = (1e-2, 1e-4, 1e-6)  # of a difference quotient, in radii of the region
_FRESH = 512  # random points in each round of the search for a lower bound
_ROWS, _EACH = 8, 4  # and the points that it keeps: the best of the largest rows
_BATCH = 64
_SHARE = 0.25  # of the time, for the lower bound


@dataclass(frozen=True)
class Lipschitz:
    """The constant lies between `lower` and `upper`; `pair` (2, n) are points whose difference quotient is `lower`.

    `first` is the upper bound of the first pass. `boxes` were bounded in `seconds`.
    """

    lower: float
    upper: float
    first: float
    pair: Tensor
    boxes: int
    seconds: float
    interrupted: bool = False

    @property
    def gap(self) -> float:
        """upper / lower - 1; inf where the lower bound is 0 and the upper one is not."""
        if self.upper <= self.lower:
            return 0.0
        return self.upper / self.lower - 1 if self.lower > 0 else math.inf


@dataclass(frozen=True)
class Settings:
    """How far to go: to `tolerance` of the gap, `timeout` seconds (None: no limit), or so many `boxes`."""

    timeout: float | None = 60.0
    tolerance: float = 1e-4
    boxes: float = math.inf
    seed: int = 0
    on_event: Callable[[Lipschitz], None] | None = None


DEFAULT = Settings()


def lipschitz(
    model: Model,
    region: Box | Ball,
    input_norm: float = math.inf,
    output_norm: float = math.inf,
    *,
    rows: Any = None,
    settings: Settings = DEFAULT,
) -> Lipschitz:
    """The least L with |f(x) - f(y)|_output <= L |x - y|_input for all x, y of the region (one box or ball).

    Norms are 1, 2 or inf. `rows` (S, m) replace the output by rows . output, such as the margins e_label - e_j.
    Raises PropertyError where the sizes do not fit, and UnsupportedError (G301) where an op has no derivative.
    """
    if input_norm not in _NORMS or output_norm not in _NORMS:
        raise PropertyError("P112", f"norms must be 1, 2 or inf, they are {input_norm} and {output_norm}")
    network = Networks.of(model).load("")
    f = flat_rows(network, rows)
    n = f[f.inputs[0]].size
    box = region.box().to(torch.float64)
    if len(region) != 1 or box.lower.shape[1] != n:
        raise PropertyError("P104", f"the region has {box.lower.shape[1]} numbers, the network takes {n}")
    if bool(box.is_empty()) or not bool((box.lower.isfinite() & box.upper.isfinite()).all()):
        raise PropertyError("P112", "the region must be finite and not empty")
    local = LocalNorm(f, OperatorNorm(float(input_norm), float(output_norm)), Rounds(20, 0))
    return Search(local, region.to(torch.float64), settings).run()


@dataclass
class Search:
    """Branch-and-bound: open boxes (K, n) with their upper bounds (K,), and the best pair of points so far."""

    local: LocalNorm
    region: Box | Ball
    settings: Settings
    started: float = field(default_factory=time.monotonic)
    lower: float = 0.0
    closed: float = 0.0
    first: float = math.inf
    done: int = 0
    climbed: float = 0.0

    def __post_init__(self) -> None:
        box = self.region.box()
        self.boxes, self.upper = box, torch.full((1,), math.inf, dtype=torch.float64)
        self.random = torch.Generator().manual_seed(self.settings.seed)
        self.elite = box.center
        self.pair = box.center.repeat(2, 1)

    @property
    def deadline(self) -> float:
        """In time.monotonic() seconds."""
        return math.inf if self.settings.timeout is None else self.started + self.settings.timeout

    def run(self) -> Lipschitz:
        """Until the gap is closed, or the time over."""
        threads = torch.get_num_threads()
        interrupted = False
        try:
            self.bound_first()
            self.climb()
            while self.open() and time.monotonic() < self.deadline and self.done < self.settings.boxes:
                self.step()
                if self.climbed < _SHARE * (time.monotonic() - self.started):
                    self.climb()
                if self.settings.on_event is not None:
                    self.settings.on_event(self.result())
        except OutOfTime:
            pass
        except KeyboardInterrupt:
            interrupted = True
        finally:
            torch.set_num_threads(threads)
        return self.result(interrupted)

    def result(self, interrupted: bool = False) -> Lipschitz:
        """What is known."""
        upper = max(self.closed, float(self.upper.max()) if len(self.upper) else 0.0)
        seconds = time.monotonic() - self.started
        return Lipschitz(self.lower, max(upper, self.lower), self.first, self.pair, self.done, seconds, interrupted)

    def open(self) -> bool:
        """Close the boxes that the lower bound reaches, and whether others are left."""
        over = self.upper > self.lower * (1 + self.settings.tolerance)
        if not bool(over.all()):
            self.closed = max(self.closed, float(self.upper[~over].max()))
            self.boxes, self.upper = self.boxes.take(over.nonzero()[:, 0]), self.upper[over]
        return len(self.upper) > 0

    def met(self, box: Box) -> InputSet:
        """Boxes met with the ball, where the region is one."""
        if isinstance(self.region, Box):
            return box
        return Meet(box, self.region.take(torch.zeros(len(box), dtype=torch.long)))

    def bound_first(self) -> None:
        """The whole region, to the end even where that takes longer than there is time."""
        self.upper = self.local.upper(self.met(self.boxes))
        self.first, self.done = float(self.upper), 1

    def step(self) -> None:
        """Cut the boxes with the largest bounds, each along the axis that its bound depends on most."""
        order = self.upper.argsort(descending=True)
        batch, rest = order[:_BATCH], order[_BATCH:]
        parents, bounds = self.boxes.take(batch), self.upper[batch]
        halves = parents.split(self.axes(parents))
        upper = self.local.upper(self.met(halves), self.deadline).minimum(bounds.repeat(2))
        self.done += len(upper)
        self.boxes = Box(*(torch.cat([a[rest], b]) for a, b in zip(_ends(self.boxes), _ends(halves), strict=True)))
        self.upper = torch.cat([self.upper[rest], upper])

    def axes(self, boxes: Box) -> Tensor:
        """Per box (B,) the axis along which the bound grows most over the width of the box."""
        lower, upper = (end.clone().requires_grad_() for end in _ends(boxes))
        total = self.local.upper(self.met(Box(lower, upper))).nan_to_num(posinf=0.0).sum()
        if not total.requires_grad:
            return boxes.width.argmax(1)
        down, up = torch.autograd.grad(total, (lower, upper), allow_unused=True)
        slope = sum((g * sign for g, sign in ((down, -1), (up, 1)) if g is not None), torch.zeros_like(boxes.lower))
        score = slope.nan_to_num().clamp(min=0) * boxes.width
        return torch.where(score.amax(1) > 0, score.argmax(1), boxes.width.argmax(1))

    def climb(self) -> None:
        """Move the best points: single coordinates to elsewhere, small steps, and along the norm's gradient."""
        begun = time.monotonic()
        points = torch.cat([self.elite, self.moved(self.elite), self.region.sample(_FRESH, self.random)[0]])
        with torch.no_grad():
            matrices = self.local.matrices(points)
            size, direction = self.local.norm.at(matrices)
        size = size.nan_to_num(nan=0.0, posinf=0.0)
        best = size.topk(4).indices
        if float(size[best[0]]) > self.lower:
            self.witness(points[best], direction[best])
        self.elite = torch.cat([points[best], points[_diverse(matrices, self.local.norm.p)]])
        self.climbed += time.monotonic() - begun

    def moved(self, points: Tensor) -> Tensor:
        """Variations (P, n) of points, inside the region."""
        count, n = 8 * len(points), points.shape[1]
        base, box = points.repeat(8, 1), self.region.box()
        pick = torch.rand(count, n, generator=self.random, dtype=torch.float64) < 2 / n
        far = self.region.sample(count, self.random)[0]
        scale = 10.0 ** -(3 * torch.rand(count, 1, generator=self.random, dtype=torch.float64))
        near = base + scale * box.width * (torch.rand(count, n, generator=self.random, dtype=torch.float64) - 0.5)
        corner = torch.where(far > box.center, box.upper, box.lower)
        kind = torch.arange(count)[:, None] % 4
        moved = torch.where(kind == 0, torch.where(pick, far, base), torch.where(pick, corner, base))
        moved = torch.where(kind >= 2, near, moved)
        return self.region.project(torch.cat([moved, self.ascended(points)])[None])[0]

    def ascended(self, points: Tensor) -> Tensor:
        """A step along the gradient of the norm, which is zero where the network is piecewise linear."""
        x = points.clone().requires_grad_()
        size, _ = self.local.norm.at(self.local.matrices(x))
        if not size.requires_grad:
            return points
        (slope,) = torch.autograd.grad(size.nan_to_num().sum(), x, materialize_grads=True)
        step = 10.0 ** -(4 * torch.rand(len(points), 1, generator=self.random, dtype=torch.float64))
        return points + step * self.region.box().width * slope.nan_to_num().sign()

    def witness(self, points: Tensor, directions: Tensor) -> None:
        """Pairs of points along directions of l_p norm 1, inside the region; the largest difference quotient counts."""
        radius = self.region.box().width.amax() / 2
        for step in _STEPS:
            ends = self.region.project(
                torch.cat([points + side * step * radius * directions for side in (1, -1)])[None]
            )
            first, second = ends[0].chunk(2)
            with torch.no_grad():
                rise = self.local.f(first)[0] - self.local.f(second)[0]
            p, q = self.local.norm.p, self.local.norm.q
            distance = torch.linalg.vector_norm(first - second, p, dim=-1)
            rise = torch.linalg.vector_norm(rise, q, dim=-1)
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


def _ends(box: Box) -> tuple[Tensor, Tensor]:
    return box.lower, box.upper
