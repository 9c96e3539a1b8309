"""Local Lipschitz constants: the largest operator norm of the Jacobian over a region, between two bounds that close in.

Upper bounds come from linear relaxation of the backward graph (Shi et al. 2022) and branch-and-bound over input boxes;
lower ones from pairs of points, whose difference quotient no Lipschitz constant can be below, whatever the kinks.
Shape letters: B boxes, P points, n inputs, S rows, m outputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relaxations.sets import Ball, Box
from verif.bounds import Engine, Rounds
from verif.bounds.engine import OutOfTime
from verif.errors import PropertyError, require_kind
from verif.jacobians import LocalNorm, flat_rows, require_defined
from verif.lipschitz_climb import Climber
from verif.lipschitz_search import Search
from verif.lipschitz_vertices import Goal, VertexSearch
from verif.networks import Networks
from verif.operator_norms import OperatorNorm
from verif.properties import Model

_NORMS = (1, 2, math.inf)
_ROUNDS = Rounds(20, 0)  # of slope optimisation for the forward half; the backward half has no slopes to choose
_ALONE = 64  # rows up to which each has a search of its own


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
    require_kind(region, (Box, Ball), "the region is a verif.Box or a verif.Ball")
    network = Networks.of(model).load("")
    f, norm = flat_rows(network, rows), OperatorNorm(float(input_norm), float(output_norm))
    n, count = f[f.inputs[0]].size, f[f.outputs[0]].size
    box = region.box().to(torch.float64)
    if len(region) != 1 or box.lower.shape[1] != n:
        raise PropertyError("P104", f"the region has {box.lower.shape[1]} numbers, the network takes {n}")
    if bool(box.is_empty()) or not bool((box.lower.isfinite() & box.upper.isfinite()).all()):
        raise PropertyError("P112", "the region must be finite and not empty")
    region = region.to(torch.float64)
    require_defined(f, region)
    each = [f]
    if norm.q == math.inf and norm.p != 1 and 1 < count <= _ALONE:  # the norm is that of the worst row
        weight = torch.eye(count, dtype=torch.float64) if rows is None else torch.as_tensor(rows, dtype=torch.float64)
        each = [flat_rows(network, row[None]) for row in weight]
    climber = Climber(LocalNorm(f, norm), region, settings.seed)
    deadline = math.inf if settings.timeout is None else time.monotonic() + settings.timeout
    known = Engine(f).bound(region, rounds=_ROUNDS).intervals  # the forward half's, once for all rows
    goal = Goal()

    def search(local: LocalNorm) -> Search:
        given = local, region, climber, settings.tolerance, deadline, known
        chain = VertexSearch.chain_of(local)
        return Search(*given) if chain is None else VertexSearch(*given, chain=chain, goal=goal)

    return _run([search(LocalNorm(one, norm)) for one in each], climber, deadline, settings)


def _run(searches: Sequence[Search], climber: Climber, deadline: float, settings: Settings) -> Lipschitz:
    """Always the search with the largest bound, until the gap is closed or the time is over."""
    threads, interrupted = torch.get_num_threads(), False

    def known() -> Lipschitz:
        upper, first = (max(getattr(search, name) for search in searches) for name in ("upper", "first"))
        done = sum(search.done for search in searches)
        seconds = time.monotonic() - climber.started
        return Lipschitz(climber.lower, upper, first, climber.pair, done, seconds, interrupted)

    try:
        for search in searches:
            search.begin()
            if settings.on_event is not None:
                settings.on_event(known())
        while (left := [s for s in searches if s.settle()]) and time.monotonic() < deadline:
            max(left, key=lambda search: float(search.open.bound.max())).step()
            if settings.on_event is not None:
                settings.on_event(known())
            if sum(search.done for search in searches) >= settings.boxes:
                break
    except OutOfTime:
        pass
    except KeyboardInterrupt:
        interrupted = True
    finally:
        torch.set_num_threads(threads)
    return known()
