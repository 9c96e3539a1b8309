"""Accuracy by radius: natural, under attack, and certified by bounds and then by branch-and-bound.

Shape letters: N samples, n input numbers, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphs import Graph
from relaxations.sets import Box, InputSet
from verif.bounds import Engine
from verif.errors import PropertyError
from verif.jacobians import flat_rows
from verif.networks import Networks
from verif.properties import robustness
from verif.query import Network
from verif.rounding import TERMS
from verif.roundoff import errors
from verif.training.attacks import Attack
from verif.training.compiled import Compiled, Method, Step, compile
from verif.training.regions import around, margins
from verif.training.states import BROKEN, OPEN, PROVED, SEARCHED, UNSEEN, WRONG, Accuracy, States, digest_of
from verif.verdict import Verdict
from verif.verify import verify

Model = str | Path | Graph | Network | nn.Module | Compiled
OnEvent = Callable[[Accuracy], None]
_BATCH = 64


@dataclass(frozen=True)
class Judge:
    """How samples are judged: the norm, the ends of the data's range, the bounds (one after the other, for what is
    still open), the attack, and the seconds of branch-and-bound for each sample that is open then (0: none).
    """

    norm: float = math.inf
    least: float | None = None
    most: float | None = None
    methods: tuple[Method, ...] = ("crown-ibp", "alpha-crown")
    attack: Attack = field(default_factory=lambda: Attack(20))
    timeout: float = 0.0


def evaluate(
    model: Model,
    loader: Iterable[tuple[Any, Any]],
    radii: Sequence[float],
    judge: Judge = Judge(),
    *,
    results: str | Path | None = None,
    on_event: OnEvent | None = None,
) -> Iterator[Accuracy]:
    """For each radius, the smallest first. `loader` gives batches: samples (B, *shape) and labels (B,).

    A torch module must be in evaluation mode. With `results` (.json) every sample's answer is kept, and the same call
    goes on after an interruption; `on_event` sees what is known after each batch and each search. Raises PropertyError
    for labels that do not fit, and where the results are those of another model, samples, norm or range.
    """
    pairs = [(torch.as_tensor(x).detach(), torch.as_tensor(y).long()) for x, y in loader]
    for x, labels in pairs:
        if len(labels) != len(x):
            raise PropertyError("P116", f"there are {len(x)} samples and {len(labels)} labels")
    if not pairs:
        raise PropertyError("P116", "there are no samples")
    x, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    _require_inside(x, judge)
    run = _Evaluation(network_of(model, x), x.flatten(1).double(), labels, judge)
    kept = States.open(run.digest, len(x), None if results is None else Path(results))
    for radius in sorted(set(map(float, radii))):
        states = kept.at(radius, judge.timeout)
        for _ in run.judged(radius, states):
            kept.keep(radius, states, judge.timeout)
            if on_event is not None:
                on_event(Accuracy.of(radius, states, judge.timeout > 0))
        kept.keep(radius, states, judge.timeout, now=True)
        yield Accuracy.of(radius, states)


def _require_inside(x: Tensor, judge: Judge) -> None:
    """Samples outside the data's range would have nothing, or the wrong points, around them."""
    low, high = (-math.inf if judge.least is None else judge.least, math.inf if judge.most is None else judge.most)
    outside = ~((x >= low) & (x <= high))
    if bool(outside.any()):
        value = float(x[outside][0])
        raise PropertyError("P116", f"a sample holds {value:g}, outside the range from {low:g} to {high:g}")


def network_of(model: Model, x: Tensor) -> Network:
    """The network that a model is; a module is traced with samples x (N, *shape)."""
    if isinstance(model, nn.Module):
        if model.training:
            raise PropertyError("P116", "the module is in training mode", help="call its eval() first")
        first = next(model.parameters(), torch.empty(0))
        model = compile(model, x[:1].to(first))
    if isinstance(model, Compiled):
        return model.network()
    return model if isinstance(model, Network) else Networks.of(model).load("")


@dataclass
class _Evaluation:
    """Judges samples x (N, n) with labels (N,): a letter for each, changed in place."""

    network: Network
    x: Tensor
    labels: Tensor
    judge: Judge

    @cached_property
    def graph(self) -> Graph:
        """From (n,) to the logits, in float64."""
        return flat_rows(self.network)

    @property
    def digest(self) -> str:
        """What results depend on."""
        ends = (self.judge.norm, self.judge.least, self.judge.most)
        return digest_of(self.network.graph, (self.x, self.labels), *ends)

    def judged(self, radius: float, states: list[str]) -> Iterator[None]:
        """Bounds and attacks for batches of what is unseen, then searches for what is open; pauses after each."""
        unseen = torch.tensor([i for i, state in enumerate(states) if state == UNSEEN], dtype=torch.int64)
        if len(unseen):
            rounding = self._rounding(radius)
            for chosen in unseen.split(_BATCH):
                for i, state in zip(chosen.tolist(), self._bounded(radius, chosen, rounding), strict=True):
                    states[i] = state
                yield
        if not self.judge.timeout:
            return
        for i in [i for i, state in enumerate(states) if state == OPEN]:
            states[i] = self._searched(radius, i)
            yield

    @torch.no_grad()
    def _rounding(self, radius: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What rounding may do to bounds of a label's margins (K,), and to intervals of values inside.

        Bounds of it, for maximum norms and the ops that `errors` knows; else 0, and the measured allowance stands.
        """
        box = around(self.x, radius, self.judge.norm, self.judge.least, self.judge.most).box()
        hull = Box(box.lower.amin(0, keepdim=True), box.upper.amax(0, keepdim=True))
        classes = self.graph[self.graph.outputs[0]].size
        margin = flat_rows(
            self.network, 1 + torch.eye(classes, dtype=torch.float64)
        )  # no entry is less than a margin's
        inside, whole = (errors(graph, hull, torch.float64) for graph in (self.graph, margin))
        room = whole.nodes[margin.outputs[0]].flatten()
        if not inside.proved or not math.isinf(self.judge.norm) or bool(room.isinf().any()):
            return torch.zeros_like(room), {}
        return room, inside.nodes

    @torch.no_grad()
    def _bounded(self, radius: float, chosen: Tensor, rounding: tuple[Tensor, Mapping[str, Tensor]]) -> list[str]:
        """The letters of some samples; `rounding` is that of the radius."""
        x, labels, judge = self.x[chosen], self.labels[chosen], self.judge
        step = Step(self.graph, x)
        rows = margins(labels, step.count).to(x)
        engine = Engine(self.graph, errors=rounding[1])
        noise = TERMS * torch.finfo(x.dtype).eps * (1 + step.outputs.abs().amax(1, keepdim=True))
        noise = noise.maximum(rounding[0][labels][:, None])
        found = [OPEN if right else WRONG for right in (step.outputs.argmax(1) == labels).tolist()]

        def region(among: list[int]) -> InputSet:
            return around(x[among], radius, judge.norm, judge.least, judge.most)

        def settle(letter: str, among: list[int], mask: Tensor) -> None:
            for i, sure in zip(among, mask.tolist(), strict=True):
                found[i] = letter if sure else found[i]

        for turn, method in enumerate(judge.methods):
            among = [i for i, letter in enumerate(found) if letter == OPEN]
            if among:
                part = Step(self.graph, x[among])
                part.__dict__["engine"] = engine
                settle(PROVED, among, (part.lower(region(among), rows[among], method) > noise[among]).all(1))
            among = [i for i, letter in enumerate(found) if letter == OPEN]
            if turn == 0 and among:
                with torch.random.fork_rng(devices=()):
                    torch.manual_seed(0)  # the same call gives the same figures
                    logits = step.at(judge.attack(step, region(among), labels[among]))
                settle(BROKEN, among, ((rows[among] @ logits[..., None])[..., 0] <= 0).any(1))
        return found

    def _searched(self, radius: float, index: int) -> str:
        """The letter of one sample after branch-and-bound."""
        judge = self.judge
        ends = (-math.inf if judge.least is None else judge.least, math.inf if judge.most is None else judge.most)
        asked = robustness(
            self.network,
            self.x[index],
            radius,
            norm=judge.norm,
            label=int(self.labels[index]),
            clip=None if ends == (-math.inf, math.inf) else ends,
        )
        result = verify(self.network, asked, timeout=judge.timeout)
        if result.reason == "interrupted":
            raise KeyboardInterrupt
        return {Verdict.HOLDS: PROVED, Verdict.VIOLATED: BROKEN}.get(result.verdict, SEARCHED)
