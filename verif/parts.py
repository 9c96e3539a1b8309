"""Where to halve a query's input set so that its parts can be searched apart."""

from __future__ import annotations

import math
import time

import torch

from verif import __version__
from verif.bounds.engine import OutOfTime
from verif.cases import Cases
from verif.query import Query
from verif.refined import RefinedSearch
from verif.signs import SignSearch
from verif.splits import INPUT, Split
from verif.strategy import Strategy
from verif.verify import Run

SHARE = 0.5  # of the time limit that choosing may take


def plan(query: Query, count: int, timeout: float, strategy: Strategy) -> list[Split]:
    """Up to `count` halvings: of neurons that the search over signs splits first, else of inputs that matter most."""
    started = time.monotonic()
    any_inputs = _inputs(query, torch.ones(query.property.lower.shape[1]), count)
    try:
        return _best(query, count, Run(query, started, SHARE * timeout, strategy)) or any_inputs
    except OutOfTime:
        return any_inputs


def _best(query: Query, count: int, run: Run) -> list[Split]:
    """What first bounds, or the beginning of a search over signs, say; none where nothing is left to search."""
    search = run.search_of_regions()
    domains = search.domains.pop(min(search.batch, len(search.domains)))
    gaps, result, survivors, atoms = search.bound(domains)
    if not len(survivors):
        return []
    other = search.alone(survivors, gaps, atoms)
    found: list[Split] = []
    if isinstance(other, RefinedSearch):
        found = _neurons(other.search, count, run.deadline)
    return found or _inputs(query, search.scores(gaps, result, atoms).sum(0), count)


def _inputs(query: Query, scores: torch.Tensor, count: int) -> list[Split]:
    """The inputs by which bounds change most over their range, halved at a number of float32."""
    lower, upper = query.property.lower.amin(0), query.property.upper.amax(0)
    middle = (lower + (upper - lower) / 2).float().double()
    scores = torch.where((lower < middle) & (middle < upper), scores.double() * (upper - lower), -math.inf)
    best = torch.topk(scores, min(count, len(scores)))
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [Split(INPUT, axis, float(middle[axis]), __version__) for score, axis in pairs if score > -math.inf]


def _neurons(search: SignSearch, count: int, deadline: float) -> list[Split]:
    """The next signs of the lowest case that has so many more, or of the deepest there is when time is up."""
    known = 0 if search.base is None else int(search.base.depth[0])
    chosen, wanted = Cases.none(), known + count
    for _ in search.run():
        if len(search.open):
            deep = search.open.where(search.open.depth >= min(wanted, int(search.open.depth.max())))
            chosen = deep.where(deep.bound.argmin()[None])
        if not len(search.open) or int(chosen.depth) >= wanted or time.monotonic() > deadline:
            break
    sweep = search.engine.tiles.sweep(search.engine.output, search.box.lower)
    if sweep is None or not len(chosen):
        return []
    pairs = list(zip(chosen.slot[0].tolist(), chosen.entry[0].tolist(), strict=True))[known:wanted]
    return [Split(str(sweep.program.slots[slot].scalar), entry, 0.0, __version__) for slot, entry in pairs if slot >= 0]
