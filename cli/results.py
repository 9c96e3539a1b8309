"""Results of batches, as VNN-COMP writes them: one row an instance, and what several runs have in common."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cli import files
from cli.errors import UsageError
from verif.batch.store import Entry, Outcome, RunRecord, Store
from verif.verdict import Verdict

_SQLITE = b"SQLite format 3\0"
WORDS = {verdict.vnncomp: verdict for verdict in Verdict}


@dataclass(frozen=True)
class Row:
    """One instance of a run."""

    category: str
    model: str
    spec: str
    verdict: Verdict
    seconds: float
    digest: str = ""  # of the contents of its files, "" where it is not known
    outcome: Outcome | None = None  # what a store knows besides
    entry: Entry | None = None  # and what was asked

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is about."""
        return self.category, self.model, self.spec

    @property
    def solved(self) -> bool:
        """Whether it has an answer."""
        return self.verdict in (Verdict.HOLDS, Verdict.VIOLATED)


@dataclass(frozen=True)
class Run:
    """The rows of one file."""

    name: str
    rows: tuple[Row, ...]
    pending: int = 0  # instances that a store has no outcome of yet
    record: RunRecord | None = None  # machine, versions and command, where a store has them

    @property
    def solved(self) -> list[Row]:
        """The rows with an answer."""
        return [row for row in self.rows if row.solved]

    def counts(self) -> dict[str, int]:
        """How many rows have each verdict, those that occur."""
        found = {v.label: sum(row.verdict is v for row in self.rows) for v in Verdict}
        return {label: count for label, count in found.items() if count}


@dataclass(frozen=True)
class Family:
    """What a run did in one category."""

    name: str
    count: int
    solved: int
    median: float
    longest: float


def read(path: Path) -> Run:
    """The last run of a store, or a results file.

    Raises UsageError C109 with file:line where a row is not one of six columns, StoreError where a store is damaged.
    """
    with files.require(path).open("rb") as head:
        if head.read(len(_SQLITE)) == _SQLITE:
            return _stored(path)
    rows: list[Row] = []
    with path.open(newline="", encoding="utf-8", errors="replace") as source:
        reader = csv.reader(source)
        for row in reader:
            try:
                category, model, spec, before, word, seconds = (cell.strip() for cell in row)
                times = float(before), float(seconds)
                if word not in WORDS or not all(math.isfinite(t) and t >= 0 for t in times):
                    raise ValueError
            except ValueError:
                instances = len(row) == 3 and row[0].strip().endswith((".onnx", ".onnx.gz"))
                raise UsageError(
                    "C109",
                    "a row of results is category, model, property, preparation time, result, run time",
                    where=f"{path}:{reader.line_num}",
                    notes=[f"results are {', '.join(WORDS)}"],
                    help=f"this is a list of instances: verify batch {path}" if instances else "",
                ) from None
            rows.append(Row(category, model, spec, WORDS[word], sum(times)))
    return Run(path.stem, tuple(rows))


def _stored(path: Path) -> Run:
    labels, rows, pending = {verdict.label: verdict for verdict in Verdict}, [], 0
    with Store(path) as store:
        for held in store.rows():
            entry, outcome = held.entry, held.outcome
            if outcome is None:
                pending += 1
                continue
            verdict, digest = labels[outcome.verdict], json.dumps(dict(entry.hashes), sort_keys=True)
            names = entry.category, entry.model, entry.property
            rows.append(Row(*names, verdict, outcome.seconds, digest, outcome, entry))
        records = store.runs()
    return Run(path.stem, tuple(rows), pending, records[-1] if records else None)


def aligned(first: Run, second: Run) -> tuple[Run, Run]:
    """Two runs with files named alike: results.csv names them from the list's folder, a store from the working one."""
    named = {row.key for row in first.rows}
    if first.rows and not any(row.key in named for row in second.rows):
        for row in second.rows:
            for one, other in ((first.rows[0], row), (row, first.rows[0])):
                ahead = other.model.removesuffix(one.model)
                if ahead.endswith("/") and other.spec == ahead + one.spec:
                    if other is row:
                        return first, _without(second, ahead)
                    return _without(first, ahead), second
    return first, second


def _without(run: Run, ahead: str) -> Run:
    rows = (replace(r, model=r.model.removeprefix(ahead), spec=r.spec.removeprefix(ahead)) for r in run.rows)
    return replace(run, rows=tuple(rows))


def families(run: Run) -> list[Family]:
    """By category, in the order of the file."""
    found = []
    for name in dict.fromkeys(row.category for row in run.rows):
        own = [row for row in run.rows if row.category == name]
        times = [row.seconds for row in own if row.solved]
        median, longest = (statistics.median(times), max(times)) if times else (math.nan, math.nan)
        found.append(Family(name, len(own), len(times), median, longest))
    return found


def disagreements(first: Run, second: Run) -> list[tuple[Row, Row]]:
    """Instances that one run calls HOLDS and the other VIOLATED."""
    held = {row.key: row for row in first.rows}
    both = [(held[row.key], row) for row in second.rows if row.key in held]
    return [(a, b) for a, b in both if a.solved and b.solved and a.verdict is not b.verdict]


def changes(first: Run, second: Run) -> list[tuple[Row, Row]]:
    """Instances whose verdict differs between two runs."""
    held = {row.key: row for row in first.rows}
    return [(held[b.key], b) for b in second.rows if b.key in held and held[b.key].verdict is not b.verdict]


def cactus(runs: Sequence[Run]) -> list[tuple[str, list[float]]]:
    """For each run the times of its solved instances, rising."""
    return [(run.name, sorted(row.seconds for row in run.solved)) for run in runs]
