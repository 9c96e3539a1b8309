"""Questions about derivatives in a batch: monotonicity of one feature, the Lipschitz constant around one sample."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relaxations.sets import Ball, Box
from verif.batch.questions import Rising, Steepness
from verif.batch.store import Outcome
from verif.bounds.engine import OutOfTime
from verif.lipschitz import Lipschitz, Settings, lipschitz
from verif.monotone import Budget, monotone
from verif.query import Network
from verif.runners import runner
from verif.verdict import Verdict

PAIR = "a pair of points, replayed"
STRETCHES = (1.0, 1e2, 1e4, 1e6)  # of a pair: in the model's own type the outputs of close points are all rounding
PULLS = (1.0, 0.99, 0.5)  # of its middle towards the sample: rounded to that type, points at the edge fall outside
UNSEEN = "the constant is larger, but the model's own outputs at a pair of points do not show it"


Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Given:
    """A model, seconds and the seed of random choices."""

    network: Network
    seconds: float
    seed: int


def rising(given: Given, about: Rising) -> Outcome:
    """Whether an output is monotone in a feature."""
    box = Box(*(torch.tensor([ends], dtype=torch.float64) for ends in (about.lower, about.upper)))
    signs = {"increasing" if about.sign > 0 else "decreasing": [about.feature]}
    budget = Budget(max(given.seconds, 0.0), given.seed)
    (found,) = monotone(given.network, box, **signs, output=about.output, budget=budget)
    kept: dict[str, Any] = {"share": found.share, "search_seconds": found.seconds}
    if found.pair is not None and found.outputs is not None:
        kept |= _pair(found.pair, np.array(found.outputs)) | {"strategy": PAIR}
    return Outcome(found.verdict.label, found.reason, **kept)


def steepness(given: Given, about: Steepness, sample: Array) -> Outcome:
    """Whether the constant around a sample is at most a number; the search ends as soon as that is known."""
    centre = torch.as_tensor(sample, dtype=torch.float64).reshape(1, -1)
    ends = centre - about.eps, centre + about.eps, torch.full((1,), about.eps, dtype=torch.float64)
    lower, upper, radius = map(torch.nextafter, ends, (torch.tensor(way * math.inf).double() for way in (-1, 1, 1)))
    region = Box(lower, upper) if about.norm == math.inf else Ball(centre, radius, about.norm)

    def watch(known: Lipschitz) -> None:
        if known.upper <= about.most or known.lower > about.most:
            raise OutOfTime

    settings = Settings(max(given.seconds, 0.0), seed=given.seed, on_event=watch)
    found = lipschitz(given.network, region, about.norm, about.output_norm, settings=settings)
    verdict, reason, kept = Verdict.TIMEOUT, "the time was used up", dict[str, Any]()
    if found.upper <= about.most:
        verdict, reason = Verdict.HOLDS, ""
    elif found.lower > about.most:
        verdict, reason = Verdict.UNKNOWN, UNSEEN
        seen = _steeper(given.network, about, centre, found.pair)
        if seen:
            verdict, reason, kept = Verdict.VIOLATED, "", seen
    kept |= {"bound": about.most - found.upper, "domains": found.boxes, "search_seconds": found.seconds}
    strategy = f"the constant is at least {found.lower:.5g}, at most {found.upper:.5g}"
    return Outcome(verdict.label, reason, strategy=strategy, **kept)


def _steeper(network: Network, about: Steepness, centre: Tensor, pair: Tensor) -> dict[str, Any]:
    """The pair, or one further apart, as the model can read it and its outputs, if they show a larger constant."""
    run, half = _flat(network), (pair[0] - pair[1]) / 2
    for pull, stretch in product(PULLS, STRETCHES):
        middle = centre[0] + pull * (pair.mean(0) - centre[0])
        points, outputs = zip(*(run(middle + way * stretch * half) for way in (1, -1)), strict=True)
        inside = all(np.linalg.norm(point - centre[0].numpy(), about.norm) <= about.eps for point in points)
        step, rise = points[0] - points[1], outputs[0] - outputs[1]
        if inside and np.linalg.norm(rise, about.output_norm) > about.most * np.linalg.norm(step, about.norm):
            return _pair(torch.from_numpy(np.stack(points)), np.stack(outputs))
    return {}


def _flat(network: Network) -> Callable[[Tensor], tuple[Array, Array]]:
    """A point (n,) as the model can read it, and its outputs (m,), both in float64."""
    graph, run = network.graph, runner(network)
    sizes = [graph[name].size for name in graph.inputs]

    def at(point: Tensor) -> tuple[Array, Array]:
        arrays = [
            part.numpy().astype(str(graph[name].attrs.get("dtype", "float32"))).reshape(graph[name].shape)
            for name, part in zip(graph.inputs, point.split(sizes), strict=True)
        ]
        outputs = run(arrays)[0].reshape(-1).astype(np.float64)
        return np.concatenate([array.reshape(-1).astype(np.float64) for array in arrays]), outputs

    return at


def _pair(points: Tensor, outputs: Array) -> dict[str, Any]:
    file, names = io.BytesIO(), ("x", "y")
    arrays: dict[str, Any] = dict(zip(names, points.numpy(), strict=True))
    arrays |= {f"f({name})": output for name, output in zip(names, outputs, strict=True)}
    np.savez(file, **arrays)
    return {"counterexample": file.getvalue(), "inputs": names}
