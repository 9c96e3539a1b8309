"""Deciding one instance: the same function in every worker, here or on another machine."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graphs.errors import VerifError
from verif.batch.questions import Around, Question, Rising, Steepness, digest
from verif.batch.store import Outcome
from verif.properties import robustness
from verif.query import Network, Query, compile_query
from verif.replay import Replay, replay
from verif.sides import within
from verif.strategy import Strategy
from verif.verdict import Verdict
from verif.verify import Counterexample, verify

if TYPE_CHECKING:
    from verif.bab import Progress

KEPT_MODELS = 2  # that a worker keeps loaded: instances come sorted by model
PICTURED = 50_000  # input numbers up to which the middle of the set is kept beside a counterexample
TRACE = 200  # points of a search's progress that are kept, at most twice as many

Point = tuple[float, ...]
Array = np.ndarray[Any, Any]


@dataclass
class Trace:
    """The progress of a search, thinned out as it grows."""

    points: list[tuple[float, float, float, int, int]] = field(default_factory=list)
    every: int = 1
    seen: int = 0
    widths: tuple[tuple[str, float], ...] = ()

    def __call__(self, event: Progress) -> None:
        """Take one event."""
        self.seen, self.widths = self.seen + 1, event.widths or self.widths
        if self.seen % self.every == 0 and math.isfinite(event.worst):
            self.points.append((event.seconds, event.worst, event.proved_share, event.open, event.done))
        if len(self.points) >= 2 * TRACE:
            self.points, self.every = self.points[::2], 2 * self.every


@dataclass
class Answerer:
    """Decides instances in this process, and keeps the last models loaded, by path and content."""

    _models: dict[tuple[Path, str], Network] = field(default_factory=dict)
    _datasets: dict[tuple[Path, str], tuple[Array, Array]] = field(default_factory=dict)

    def answer(self, question: Question, hints: Sequence[Point] = ()) -> tuple[Outcome, Point | None]:
        """The outcome, and the point that violates the property; an exception is an outcome like any other.

        `hints` are points that violated other properties of the same models: they are replayed first.
        """
        started = time.monotonic()
        try:
            if isinstance(question.about, Rising | Steepness):
                return self._slope(question, question.about, started), None
            return self._answer(question, hints, started)
        except VerifError as error:
            reason = str(error)
        except Exception as error:
            reason = f"internal error, no verdict: {type(error).__name__}: {error}"
        return Outcome(Verdict.ERROR.label, reason, seconds=time.monotonic() - started, timeout=question.timeout), None

    def _answer(self, question: Question, hints: Sequence[Point], started: float) -> tuple[Outcome, Point | None]:
        query = self._compile(question)
        if question.halvings:
            return self._planned(question, query), None
        settings, trace, begun = question.settings, Trace(), time.monotonic()
        found = _sibling(query, hints)
        if found is not None:
            seconds = time.monotonic() - started
            outcome = Outcome(
                Verdict.VIOLATED.label, seconds=seconds, timeout=question.timeout, strategy="none: a sibling's point"
            )
        else:
            result = verify(
                None,
                query,
                timeout=max(0.0, question.timeout - (begun - started)),
                strategy=Strategy(settings.strategy, settings.seed, question.tactic, question.part),
                device=settings.device,
                memory=settings.memory,
                on_event=trace,
            )
            found, now = result.counterexample, time.monotonic()
            share = 1.0 if result.verdict is Verdict.HOLDS else trace.points[-1][2] if trace.points else None
            outcome = Outcome(
                result.verdict.label,
                result.reason,
                result.lower_bound,
                share,
                result.domains,
                result.strategy,
                search_seconds=now - begun,
                seconds=now - started,
                timeout=question.timeout,
                tactic=question.tactic,
                trace=tuple(trace.points),
                widths=trace.widths,
            )
        if found is None:
            return outcome, None
        middle = self._middle(question, query, found)
        kept = {"counterexample": _npz(found), "inputs": tuple(found.inputs), "middle": middle}
        return Outcome(**{**outcome.__dict__, **kept}), tuple(found.point.double().tolist())

    def _slope(self, question: Question, about: Rising | Steepness, started: float) -> Outcome:
        """A question about derivatives."""
        from verif.batch import slopes

        network = self._network(question.models[0][1])
        given = slopes.Given(network, question.timeout - (time.monotonic() - started), question.settings.seed)
        if isinstance(about, Rising):
            found = slopes.rising(given, about)
        else:
            found = slopes.steepness(given, about, self._data(question.property)[0][about.index])
        return replace(found, seconds=time.monotonic() - started, timeout=question.timeout)

    @staticmethod
    def _planned(question: Question, query: Query) -> Outcome:
        """Where to halve the set of a query that nobody has decided."""
        from verif.parts import plan

        strategy = Strategy(question.settings.strategy, question.settings.seed, part=question.part)
        splits = plan(query, question.halvings, question.timeout, strategy)
        return Outcome(Verdict.UNKNOWN.label, splits=tuple(splits))

    def _compile(self, question: Question) -> Query:
        query = self._whole(question)
        return query if question.part is None else within(query, question.part)

    def _whole(self, question: Question) -> Query:
        if len(question.models) > 1 or question.models[0][0]:
            return compile_query(question.property, dict(question.models))
        network = self._network(question.models[0][1])
        around = question.about
        if not isinstance(around, Around):
            return compile_query(question.property, network)
        x, y = self._data(question.property)
        asked = robustness(
            network, x[around.index], around.eps, norm=around.norm, label=int(y[around.index]), clip=around.clip
        )
        return compile_query(asked, network)

    def _middle(self, question: Question, query: Query, found: Counterexample) -> bytes | None:
        """What the counterexample changed: the sample, or the middle of its region, with the outputs there."""
        point, around = found.point.double().cpu(), question.about
        if len(point) > PICTURED:
            return None
        if isinstance(around, Around):
            middle = torch.from_numpy(self._data(question.property)[0][around.index].astype(np.float64)).flatten()
        else:
            lower, upper = (bound.double() for bound in query.outer())
            inside = ((point >= lower) & (point <= upper)).all(1).nonzero()[:1, 0]
            middle = ((lower[inside] + upper[inside]) / 2).flatten()
        try:
            return _npz(replay(query, middle)) if len(middle) and bool(middle.isfinite().all()) else None
        except Exception:  # it only illustrates a verdict that stands
            return None

    def _network(self, path: Path) -> Network:
        """A model, loaded once for its instances."""
        key = path, digest(path)
        if key not in self._models:
            from graphs.onnx import load

            while len(self._models) >= KEPT_MODELS:
                del self._models[next(iter(self._models))]
            self._models[key] = Network("", load(path), path)
        return self._models[key]

    def _data(self, path: Path) -> tuple[Array, Array]:
        """Samples and labels of the last dataset."""
        key = path, digest(path)
        if key not in self._datasets:
            with np.load(path, allow_pickle=False) as file:
                self._datasets = {key: (file["x"], file["y"])}
        return self._datasets[key]


def _sibling(query: Query, hints: Sequence[Point]) -> Counterexample | None:
    """A counterexample among points that broke other properties of these models."""
    lower, upper = query.outer()
    for hint in hints:
        point = torch.tensor(hint, dtype=torch.float64)
        if len(point) != lower.shape[1] or not bool(((point >= lower) & (point <= upper)).all(1).any()):
            continue
        seen = replay(query, point)
        if seen.violated:
            return Counterexample(seen.point, seen.inputs, seen.outputs)
    return None


def _npz(found: Counterexample | Replay) -> bytes:
    file = io.BytesIO()
    arrays: dict[str, Any] = {**found.inputs, **found.outputs}
    np.savez(file, **arrays)
    return file.getvalue()
