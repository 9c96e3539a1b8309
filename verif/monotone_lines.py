"""Monotonicity along lines: one feature of a sample moves over its range, all others stay; and profiles of slopes.

Shape letters: D samples, n input numbers, K pieces of a feature's range, P points.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs import Graph
from graphs.derivatives import jacobian
from relaxations.sets import Box
from verif.bounds import Engine
from verif.errors import PropertyError
from verif.jacobians import flat_rows, require_defined
from verif.monotone import DEFAULT, Budget, Monotone, monotone
from verif.networks import Networks
from verif.properties import Model
from verif.query import Network
from verif.rounding import of_terms
from verif.verdict import Verdict

_LINES, _POINTS = 256, 64  # lines bounded at once, points seen in each piece
_ORDER = (Verdict.VIOLATED, Verdict.UNKNOWN, Verdict.TIMEOUT, Verdict.HOLDS)


@dataclass(frozen=True)
class Along:
    """What is known of one feature along each sample's line; `pairs` has (2, n) where a line is violated, else None."""

    feature: int
    sign: int
    verdicts: tuple[Verdict, ...]
    pairs: tuple[Tensor | None, ...]
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """The worst one of all lines."""
        return next(one for one in _ORDER if one in self.verdicts)

    def count(self, verdict: Verdict) -> int:
        """Of how many lines it is the verdict."""
        return self.verdicts.count(verdict)


def monotone_along(
    model: Model,
    box: Box,
    samples: Tensor,
    *,
    increasing: Sequence[int] = (),
    decreasing: Sequence[int] = (),
    output: int = 0,
    budget: Budget = DEFAULT,
) -> list[Along]:
    """Whether an output is monotone in a feature that moves over its range in `box` (1, n) from samples (D, n).

    Samples may lie outside of the box in other features. The budget is that of each feature. Raises what `monotone`
    does, and P104 or P112 where samples do not fit or are none.
    """
    network = Networks.of(model).load("")
    samples = samples.to(torch.float64)
    if samples.dim() != 2 or samples.shape[1] != box.lower.shape[1]:
        raise PropertyError("P104", f"the samples have the shape {list(samples.shape)}, not (D, {box.lower.shape[1]})")
    if not len(samples) or not bool(samples.isfinite().all()):
        raise PropertyError("P112", "there must be a sample, and no NaN or infinite number")
    monotone(network, box, output=output)  # its checks
    graph = jacobian(_one(network, output))
    signs = [(feature, 1) for feature in increasing] + [(feature, -1) for feature in decreasing]
    return [_feature(network, graph, (box.to(torch.float64), samples), sign, (output, budget)) for sign in signs]


def _feature(
    network: Network, graph: Graph, where: tuple[Box, Tensor], way: tuple[int, int], how: tuple[int, Budget]
) -> Along:
    """One pass over all lines; those that it leaves open one after the other."""
    (feature, sign), (output, budget), started = way, how, time.monotonic()
    lines = _lines(*where, feature)
    row = torch.zeros(1, lines.lower.shape[1], dtype=torch.float64)
    row[0, feature] = sign
    proved = torch.cat([_proved(graph, part, row) for part in _parts(lines)])
    deadline = None if budget.timeout is None else started + budget.timeout
    verdicts, pairs = list[Verdict](), list[Tensor | None]()
    for line, done in zip(range(len(lines)), proved.tolist(), strict=True):
        left = None if deadline is None else deadline - time.monotonic()
        if done or (left is not None and left <= 0):
            verdicts.append(Verdict.HOLDS if done else Verdict.TIMEOUT)
            pairs.append(None)
            continue
        box = Box(lines.lower[line : line + 1], lines.upper[line : line + 1])
        found = _alone(network, box, way, output, Budget(left, budget.seed, budget.on_event))
        verdicts.append(found.verdict)
        pairs.append(found.pair)
    return Along(feature, sign, tuple(verdicts), tuple(pairs), time.monotonic() - started)


def _alone(network: Network, box: Box, way: tuple[int, int], output: int, budget: Budget) -> Monotone:
    feature, sign = way
    named = {"increasing": [feature]} if sign > 0 else {"decreasing": [feature]}
    (found,) = monotone(network, box, output=output, budget=budget, **named)
    return found


def _lines(box: Box, samples: Tensor, feature: int) -> Box:
    """The lines of samples (D, n) along a feature, as boxes."""
    lower, upper = samples.clone(), samples.clone()
    lower[:, feature], upper[:, feature] = box.lower[0, feature], box.upper[0, feature]
    return Box(lower, upper)


def _parts(box: Box) -> list[Box]:
    pieces = zip(box.lower.split(_LINES), box.upper.split(_LINES), strict=True)
    return [Box(lower, upper) for lower, upper in pieces]


def _proved(graph: Graph, box: Box, row: Tensor) -> Tensor:
    """Boxes (B,) on which a row of the slopes is nowhere negative and every value is finite."""
    found = Engine(graph).bound(box, row)
    finite = torch.stack(
        [(i.lower.isfinite() & i.upper.isfinite()).flatten(1).all(1) for i in found.intervals.values()]
    )
    return finite.all(0) & (found.lower[:, 0] >= of_terms(found, box.lower, box.upper)[:, 0])


def _lower(graph: Graph, box: Box, rows: Tensor) -> Tensor:
    """Lower bounds (B, S) of rows of a graph's output in float64, less what rounding may have added."""
    found = Engine(graph).bound(box, rows)
    return found.lower - of_terms(found, box.lower, box.upper)  # a NaN passes no comparison


@dataclass(frozen=True)
class Profile:
    """The slope in a feature where it lies in piece k, [ends[k], ends[k + 1]], and all others anywhere in the box.

    `lower` and `upper` (K,) are certified, `least` and `most` (K,) were seen.
    """

    feature: int
    ends: Tensor
    lower: Tensor
    upper: Tensor
    least: Tensor
    most: Tensor


def profile(model: Model, box: Box, feature: int, *, output: int = 0, pieces: int = 48, seed: int = 0) -> Profile:
    """Bounds of an output's slope in a feature over pieces of its range, by one pass. Raises what `monotone` does."""
    network = Networks.of(model).load("")
    monotone(network, box, increasing=(), output=output)  # its checks
    f, box = _one(network, output), box.to(torch.float64)
    n = box.lower.shape[1]
    if not 0 <= feature < n:
        raise PropertyError("P112", f"feature {feature} is not one of the network's {n} inputs")
    require_defined(f, box)
    graph = jacobian(f)
    low, high = float(box.lower[0, feature]), float(box.upper[0, feature])
    ends = torch.linspace(low, high, pieces + 1, dtype=torch.float64)
    lower, upper = box.lower.repeat(pieces, 1), box.upper.repeat(pieces, 1)
    lower[:, feature], upper[:, feature] = ends[:-1], ends[1:]
    slabs, row = Box(lower, upper), torch.zeros(2, n, dtype=torch.float64)
    row[0, feature], row[1, feature] = 1.0, -1.0
    bounds = _lower(graph, slabs, row)
    points = slabs.sample(_POINTS, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        seen = graph(points.flatten(0, 1))[0].reshape(pieces, _POINTS, n)[..., feature]
    return Profile(feature, ends, bounds[:, 0], -bounds[:, 1], seen.amin(1), seen.amax(1))


def _one(network: Network, output: int) -> Graph:
    """One output of a network as a graph from the flat input, (n,) to (1,), in float64."""
    row = torch.zeros(1, network.graph[network.graph.outputs[0]].size, dtype=torch.float64)
    row[0, output] = 1.0
    return flat_rows(network, row)
