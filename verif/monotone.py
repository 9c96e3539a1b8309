"""Monotonicity: does an output never fall (or rise) in a feature, anywhere in a box?

Proved on the derivative graph: f is Lipschitz, so a slope that is not negative almost everywhere suffices (Fubini).
Refuted by two points that differ in that feature only, which the user's own model has run.
Shape letters: n input numbers, m outputs, P points, K places along a line.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from graphs import Graph
from graphs.derivatives import jacobian
from relaxations.sets import Box
from verif.bab import Progress
from verif.directions import directions
from verif.errors import PropertyError, require_kind
from verif.floats import down, element, nearest, up
from verif.jacobians import flat_rows, require_defined, undefined
from verif.networks import Networks
from verif.properties import Model, linear
from verif.query import Network, compile_query
from verif.runners import runner
from verif.verdict import Verdict
from verif.verify import Result, verify

_ROUNDING = 1e-9  # a smaller step of a pair, as a share of the largest output, may be rounding alone
_LINES, _PLACES = 512, 17  # of the search for pairs


@dataclass(frozen=True)
class Monotone:
    """What is known of one feature: `sign` 1 is increasing, -1 decreasing; `share` of the box's volume is proved.

    VIOLATED comes with `pair` (2, n), in the model's own type, first the lower value of the feature, and the outputs
    (2,) that the model gave there.
    """

    feature: int
    sign: int
    verdict: Verdict
    share: float
    seconds: float
    reason: str = ""
    pair: Tensor | None = None
    outputs: tuple[float, float] | None = None


@dataclass(frozen=True)
class Budget:
    """Seconds for each feature (None: no limit), and the seed of every random choice."""

    timeout: float | None = 60.0
    seed: int = 0
    on_event: Callable[[Progress], None] | None = None


DEFAULT = Budget()


def monotone(
    model: Model,
    box: Box,
    *,
    increasing: Sequence[int] = (),
    decreasing: Sequence[int] = (),
    output: int = 0,
    budget: Budget = DEFAULT,
) -> list[Monotone]:
    """For every feature (a number of the flat input) whether output `output` is monotone in it, over one box (1, n).

    Raises PropertyError where the sizes do not fit or the model is not defined on all of the box, and UnsupportedError
    (G301) where an op has no derivative.
    """
    network = Networks.of(model).load("")
    size = network.graph[network.graph.outputs[0]].size
    if not 0 <= output < size:
        raise PropertyError("P112", f"output {output} is not one of the network's {size} outputs")
    row = torch.zeros(1, size, dtype=torch.float64)
    row[0, output] = 1.0
    f = flat_rows(network, row)
    n, box = f[f.inputs[0]].size, box.to(torch.float64)
    if len(box) != 1 or box.lower.shape[1] != n:
        raise PropertyError("P104", f"the box has {box.lower.shape[1]} numbers, the network takes {n}")
    if bool(box.is_empty()):
        raise PropertyError("P112", "the box is empty: a lower end is above its upper end")
    for feature in (*increasing, *decreasing):
        require_kind(feature, (SupportsIndex,), "a feature is the number of an input, counted from 0")
        if not 0 <= feature < n:
            raise PropertyError("P112", f"feature {feature} is not one of the network's {n} inputs")
    require_defined(f, box)
    question = _Question(network, f, jacobian(f), box, output, budget)
    signs = [(feature, 1) for feature in increasing] + [(feature, -1) for feature in decreasing]
    return [question.answer(feature, sign) for feature, sign in signs]


@dataclass(frozen=True)
class _Question:
    """One output of a model over one box; `f` (n,) to (1,) and its derivative (1, n) in float64."""

    network: Network
    f: Graph
    derivative: Graph
    box: Box
    output: int
    budget: Budget

    def answer(self, feature: int, sign: int) -> Monotone:
        """Read the weights' signs, then look for a pair, a proof, and a pair at the point that spoilt the proof."""
        started = time.monotonic()
        rises, falls = directions(self.network.graph, feature, self.output)
        if not (falls if sign > 0 else rises):
            return self._holds(feature, sign, started)
        pair = self.pair(self.starts(), feature, sign)
        if pair is not None:
            return self._violated(feature, sign, pair, started)
        result, share = self.proof(feature, sign)
        verdict, reason = result.verdict, result.reason
        if verdict is Verdict.HOLDS:
            return self._holds(feature, sign, started)
        if verdict is Verdict.VIOLATED and result.counterexample is not None:
            arrays = result.counterexample.inputs.values()
            point = torch.cat([torch.as_tensor(array, dtype=torch.float64).reshape(-1) for array in arrays])
            pair = self.pair(point[None], feature, sign)
            if pair is not None:
                return self._violated(feature, sign, pair, started)
            verdict, reason = Verdict.UNKNOWN, "the slope has the wrong sign at a point, but no pair of points shows it"
        return Monotone(feature, sign, verdict, share, time.monotonic() - started, reason)

    def _holds(self, feature: int, sign: int, started: float) -> Monotone:
        """The slope is right wherever there is one: enough where all values are finite."""
        if not self.undefined:
            return Monotone(feature, sign, Verdict.HOLDS, 1.0, time.monotonic() - started)
        reason = f"the slope is right, but '{self.undefined}' is not proved to be defined on all of the box"
        return Monotone(feature, sign, Verdict.UNKNOWN, 0.0, time.monotonic() - started, reason)

    @cached_property
    def undefined(self) -> str:
        """An op that may have no value somewhere."""
        return undefined(self.f, self.box)

    def starts(self) -> Tensor:
        """Points (P, n): the centre, corners and random ones."""
        random = torch.Generator().manual_seed(self.budget.seed)
        points = self.box.sample(_LINES, random)[0]
        corners = torch.where(points[: _LINES // 4] > self.box.center, self.box.upper, self.box.lower)
        return torch.cat([self.box.center, corners, points])

    def proof(self, feature: int, sign: int) -> tuple[Result, float]:
        """Whether the slope is nowhere negative."""
        row = torch.zeros(1, self.box.lower.shape[1], dtype=torch.float64)
        row[0, feature] = sign
        network = Network("", self.derivative, None)
        unsafe = linear(network, self.box.lower, self.box.upper, row, 0.0, strict=True)
        shares = [0.0]

        def watch(event: Progress) -> None:
            shares.append(event.proved_share)
            if self.budget.on_event is not None:
                self.budget.on_event(event)

        query = compile_query(unsafe, network)
        result = verify(None, query, timeout=self.budget.timeout, seed=self.budget.seed, on_event=watch)
        return result, 1.0 if result.verdict is Verdict.HOLDS else shares[-1]

    def pair(self, points: Tensor, feature: int, sign: int) -> Tensor | None:
        """Of all pairs on the lines through points (P, n) along a feature the one with the largest wrong step, (2, n).

        None where the user's model shows no wrong step for it.
        """
        low, high = float(self.box.lower[0, feature]), float(self.box.upper[0, feature])
        places = torch.linspace(low, high, _PLACES, dtype=torch.float64)
        near = points[:, feature, None] + (high - low) * torch.tensor([[-1e-2, -1e-3, -1e-4, 0, 1e-4, 1e-3, 1e-2]])
        along = torch.cat([places.expand(len(points), -1), near.clamp(low, high)], 1).sort(1).values
        lines = points[:, None].repeat(1, along.shape[1], 1)
        lines[..., feature] = along
        lines = self._representable(lines)
        with torch.no_grad():
            values = sign * self.f(lines.flatten(0, 1))[0].reshape(along.shape)
        best = values.nan_to_num(nan=-math.inf).cummax(1)
        fall = torch.where(values.isfinite() & best.values.isfinite(), best.values - values, 0.0)
        level = _ROUNDING * float(values.nan_to_num(posinf=0.0, neginf=0.0).abs().max())  # less may be rounding alone
        for place in fall.flatten().topk(4).indices.tolist():
            line, end = divmod(place, along.shape[1])
            found = torch.stack([lines[line, int(best.indices[line, end])], lines[line, end]])
            if float(fall[line, end]) > level and self._wrong(found, sign) is not None:
                return found
        return None

    def _representable(self, points: Tensor) -> Tensor:
        """Points moved to numbers of the model's own type, inside the box where it has any."""
        dtype = element(str(self.f[self.f.inputs[0]].attrs.get("dtype", "float32")))
        ends = up(self.box.lower.numpy(), dtype), down(self.box.upper.numpy(), dtype)
        inside = torch.from_numpy(nearest(points.numpy(), dtype))
        return inside.maximum(torch.from_numpy(ends[0])).minimum(torch.from_numpy(ends[1]))

    def _wrong(self, pair: Tensor, sign: int) -> tuple[float, float] | None:
        """The outputs of the user's own model at a pair, if they go the wrong way."""
        graph = self.network.graph
        sizes = [graph[name].size for name in graph.inputs]
        run, outputs = runner(self.network), []
        for point in pair:
            parts = zip(graph.inputs, point.split(sizes), strict=True)
            arrays: list[Any] = [
                part.numpy().astype(str(graph[name].attrs.get("dtype", "float32"))).reshape(graph[name].shape)
                for name, part in parts
            ]
            outputs.append(float(run(arrays)[0].reshape(-1)[self.output]))
        first, second = outputs
        return (first, second) if sign * first > sign * second else None

    def _violated(self, feature: int, sign: int, pair: Tensor, started: float) -> Monotone:
        return Monotone(
            feature, sign, Verdict.VIOLATED, 0.0, time.monotonic() - started, "", pair, self._wrong(pair, sign)
        )
