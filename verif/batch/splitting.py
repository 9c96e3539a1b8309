"""Splitting what has no answer over the workers: parts are instances like others, with limits and rows of their own.

The whole is violated where a part is, which ends it; it holds where every part does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from verif import __version__
from verif.batch.questions import Question
from verif.batch.runner import Batch, Told, Workers
from verif.batch.store import Outcome
from verif.splits import Split, parts
from verif.verdict import Verdict

OPEN = (Verdict.TIMEOUT.label, Verdict.UNKNOWN.label)


@dataclass
class Splitting:
    """A run's instances that have no answer, each to be halved at most `halvings` times."""

    batch: Batch
    halvings: int
    _before: dict[str, Outcome] = field(default_factory=dict)
    _wholes: dict[str, Question] = field(default_factory=dict)
    _found: dict[str, dict[int, Outcome]] = field(default_factory=dict)

    def run(self, questions: Sequence[Question], workers: Workers, told: Told) -> None:
        """Split, decide the parts that are not decided yet, and record what they say of the whole."""
        outcomes = {row.entry.key: row.outcome for row in self.batch.store.rows(self.batch.run)}
        for question in questions:
            key = question.key()
            outcome = outcomes[key]
            if outcome is not None and outcome.verdict in OPEN and question.searched():
                self._before[key], self._wholes[key] = outcome, question
        self._plan(workers)
        todo = []
        for key, question in self._wholes.items():
            asked = self._parts(key, question)
            known = self.batch.store.add([part.entry() for part in asked])
            keyed = {part.key(): part for part in asked}
            self._found[key] = {
                part.part.number: known[name] for name, part in keyed.items() if part.part and name in known
            }
            todo += [item for item in keyed.items() if item[0] not in known]
            self._settle(key, told)

        def take(question: Question, outcome: Outcome) -> None:
            told(question, outcome)
            if question.part is not None:
                self._found[question.whole()][question.part.number] = outcome
                self._settle(question.whole(), told)

        self.batch.decide(todo, workers, take)

    def _plan(self, workers: Workers) -> None:
        """Ask where to halve what was not halved so often before, by this version."""
        todo = []
        for key, question in self._wholes.items():
            held = self._before[key].splits
            if len(held) != self.halvings or any(version != __version__ for *_, version in held):
                todo.append((key, replace(question, halvings=self.halvings)))
        for key, question, (planned, _) in self.batch.answers(todo, workers, lambda _: True):
            if planned.splits and question.key() == key:
                self._before[key] = replace(self._before[key], splits=planned.splits)
                self.batch.store.record(key, self._before[key])

    def _parts(self, key: str, question: Question) -> list[Question]:
        splits = [Split(*split) for split in self._before[key].splits]
        asked = parts(key, splits) if splits else []
        return [replace(question, part=part, title=f"{question.title}{part}") for part in asked]

    def _settle(self, key: str, told: Told) -> None:
        """Record the whole as soon as its parts decide it, or say all that they can."""
        found, before = self._found[key], self._before[key]
        total = 1 << len(before.splits)
        violated = any(outcome.verdict == Verdict.VIOLATED.label for outcome in found.values())
        if key in self.batch.over or not before.splits or not (violated or len(found) == total):
            return
        self.batch.over.add(key)
        outcome = combined(before, found, total)
        self.batch.store.record(key, outcome)
        if outcome.verdict != before.verdict:
            told(self._wholes[key], outcome)


def combined(before: Outcome, found: Mapping[int, Outcome], total: int) -> Outcome:
    """What the parts, by number, say of the whole."""
    held = [outcome for outcome in found.values() if outcome.verdict == Verdict.HOLDS.label]
    broken = [outcome for outcome in found.values() if outcome.verdict == Verdict.VIOLATED.label]
    bounds = [outcome.bound for outcome in found.values() if outcome.bound is not None]
    facts: dict[str, Any] = {
        "share": sum(1.0 if outcome in held else outcome.share or 0.0 for outcome in found.values()) / total,
        "bound": min(bounds, default=None),
        "domains": sum(outcome.domains for outcome in found.values()),
        "search_seconds": sum(outcome.search_seconds for outcome in found.values()),
        "seconds": sum(outcome.seconds for outcome in found.values()),
        "peak_bytes": max(outcome.peak_bytes for outcome in found.values()),
        "strategy": f"{total} parts: {next(iter(found.values())).strategy}",
        "tactic": None,
        "trace": (),
    }
    whole = Outcome(**{**before.__dict__, **facts})
    if broken:
        first = broken[0]
        kept: dict[str, Any] = {"counterexample": first.counterexample, "inputs": first.inputs, "middle": first.middle}
        return replace(whole, verdict=Verdict.VIOLATED.label, reason="", **kept)
    if len(held) == total == len(found):
        return replace(whole, verdict=Verdict.HOLDS.label, reason="")
    left = next((o for o in found.values() if o not in held), before)
    return replace(whole, reason=f"{len(held)} of {total} parts hold; another: {left.reason or left.verdict}")
