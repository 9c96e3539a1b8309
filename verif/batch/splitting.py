"""Splitting what has no answer over the workers: parts are instances like others, with limits and rows of their own.

The whole is violated where a part is, which ends it; it holds where every part does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from verif import __version__
from verif.batch.questions import Question
from verif.batch.runner import Batch, Told, Workers
from verif.batch.store import Outcome
from verif.splits import Split, parts
from verif.verdict import Verdict

OPEN = (Verdict.TIMEOUT.label, Verdict.UNKNOWN.label)
LEVELS, FEW = 3, 4  # how often parts are split again, and only where one in so many is open: else it is hopeless


@dataclass
class Splitting:
    """A run's instances that have no answer, each to be halved at most `halvings` times."""

    batch: Batch
    halvings: int
    _wholes: dict[str, tuple[Question, Outcome]] = field(default_factory=dict)
    _found: dict[str, dict[int, Outcome]] = field(default_factory=dict)

    def run(self, questions: Sequence[Question], workers: Workers, told: Told) -> None:
        """Split, decide the parts that are not decided yet, and record what they say of the whole."""
        outcomes = {row.entry.key: row.outcome for row in self.batch.store.rows(self.batch.run)}
        keyed = {question.key(): question for question in questions if question.searched()}
        known = {key: (question, outcome) for key, question in keyed.items() if (outcome := outcomes[key]) is not None}
        self._level({key: held for key, held in known.items() if held[1].verdict in OPEN}, workers, told, LEVELS)

    def _level(self, wholes: Mapping[str, tuple[Question, Outcome]], workers: Workers, told: Told, left: int) -> None:
        """Split all of these; where few parts stay open, split them again."""
        self._wholes |= wholes
        self._plan(wholes, workers)
        todo, known = dict[str, dict[str, Question]](), dict[str, dict[str, Outcome]]()
        again = dict[str, tuple[Question, Outcome]]()
        for key in wholes:
            todo[key] = self._parts(key)
            known[key] = self.batch.store.add([part.entry() for part in todo[key].values()])
            self._found[key] = {
                _number(part): known[key][name] for name, part in todo[key].items() if name in known[key]
            }
            self._settle(key, told)

        def take(question: Question, outcome: Outcome) -> None:
            told(question, outcome)
            self._found[question.whole()][_number(question)] = outcome
            self._settle(question.whole(), told)

        waiting = [item for key, keyed in todo.items() for item in keyed.items() if item[0] not in known[key]]
        self.batch.decide(waiting, workers, take)
        for key in self._open(wholes):
            found = self._found[key]
            still = {name: (part, found[n]) for name, part in todo[key].items() if (n := _number(part)) in found}
            still = {name: held for name, held in still.items() if held[1].verdict in OPEN}
            again |= still if len(found) == len(todo[key]) >= FEW * len(still) else {}
        if again and left > 1:
            self._level(again, workers, told, left - 1)
        for key in self._open(wholes):
            if todo[key] and len(self._found[key]) == len(todo[key]):
                self.batch.store.record(key, combined(self._wholes[key][1], self._found[key], len(todo[key])))

    def _plan(self, wholes: Mapping[str, tuple[Question, Outcome]], workers: Workers) -> None:
        """Ask where to halve what was not halved so often before, by this version."""
        todo = []
        for key, (question, outcome) in wholes.items():
            if len(outcome.splits) != self.halvings or any(version != __version__ for *_, version in outcome.splits):
                todo.append((key, replace(question, halvings=self.halvings)))
        for key, question, (planned, _) in self.batch.answers(todo, workers, lambda _: True):
            if planned.splits and question.key() == key:
                outcome = replace(wholes[key][1], splits=planned.splits)
                self._wholes[key] = wholes[key][0], outcome
                self.batch.store.record(key, outcome)

    def _parts(self, key: str) -> dict[str, Question]:
        question, outcome = self._wholes[key]
        splits = [Split(*split) for split in outcome.splits]
        title = question.title.removesuffix(str(question.part or ""))
        made = parts(key, splits, question.part) if splits else []
        asked = [replace(question, part=part, title=f"{title}{part}") for part in made]
        return {part.key(): part for part in asked}

    def _open(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if key not in self.batch.over]

    def _close(self, key: str) -> None:
        """No part of it is to be decided any more, nor parts of these."""
        self.batch.over.add(key)
        for below in self._open(name for name, (question, _) in self._wholes.items() if question.whole() == key):
            self._close(below)

    def _settle(self, key: str, told: Told) -> None:
        """Record a whole as soon as its parts decide it, which may decide the one that it is a part of."""
        (question, before), found = self._wholes[key], self._found[key]
        total = 1 << len(before.splits)
        if key in self.batch.over or not found or not before.splits:
            return
        outcome = combined(before, found, total)
        if outcome.verdict in OPEN:
            return
        self._close(key)
        self.batch.store.record(key, outcome)
        told(question, outcome)
        if question.part is not None:
            self._found[question.whole()][_number(question)] = outcome
            self._settle(question.whole(), told)


def _number(question: Question) -> int:
    assert question.part is not None
    return question.part.number


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
