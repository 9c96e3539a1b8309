"""The store of batches: one SQLite file (write-ahead log) that outlives the death of whoever writes it.

`verif/batch/schema.py` describes its tables.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from graphs.errors import VerifError
from verif.batch.schema import SCHEMA, TABLES, UPGRADE

_LISTS = ("inputs", "trace", "widths", "splits")  # columns that are JSON


class StoreError(VerifError):
    """The store of a batch cannot be read or written (codes B1..)."""


@dataclass(frozen=True)
class Outcome:
    """What came of an instance; the columns of the same names."""

    verdict: str
    reason: str = ""
    bound: float | None = None
    share: float | None = None
    domains: int = 0
    strategy: str = ""
    start_seconds: float = 0.0
    search_seconds: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0
    timeout: float | None = None
    counterexample: bytes | None = None
    inputs: tuple[str, ...] = ()
    proof: str = ""
    trace: tuple[tuple[float, float, float, int, int], ...] = ()
    middle: bytes | None = None
    widths: tuple[tuple[str, float], ...] = ()
    tactic: str | None = None
    splits: tuple[tuple[str, int, float, str], ...] = ()


@dataclass(frozen=True)
class Entry:
    """One instance that a run asks."""

    key: str
    category: str
    model: str
    property: str
    models: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    hashes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One instance of a run with its outcome; None while it is not decided."""

    entry: Entry
    state: str
    outcome: Outcome | None
    run: int | None


@dataclass(frozen=True)
class RunRecord:
    """One run."""

    run: int
    started: float
    ended: float | None
    pid: int
    command: str
    environment: Mapping[str, Any]
    versions: Mapping[str, str]


class Store:
    """An open store. Every method is one transaction: after a kill it has happened or it has not."""

    def __init__(self, path: str | Path, *, write: bool = False) -> None:
        self.path = Path(path)
        if not write and not self.path.is_file():
            raise StoreError("B101", "no such store", where=str(path), help="verify batch INSTANCES.csv writes one")
        with self._told():
            self._base, version = self._open("rwc" if write else "ro")
            if write and version == 0:
                self._create()
            elif write and version in UPGRADE:
                steps = " ".join(UPGRADE[step] for step in range(version, SCHEMA))
                script = f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA}; COMMIT;"
                self._base.executescript(script)
            elif version not in (SCHEMA, *UPGRADE):
                raise StoreError(
                    "B102",
                    f"this store has the schema {version}, this version of verif reads {SCHEMA}",
                    where=str(path),
                    help="give another --results file",
                )
            if write:
                # The death of a process loses nothing that was written; a power failure at most the last results.
                self._base.execute("PRAGMA synchronous = NORMAL")
                self._base.execute("BEGIN IMMEDIATE")  # a store that cannot be written is told at once
                self._base.execute("ROLLBACK")

    def _open(self, mode: str) -> tuple[sqlite3.Connection, int]:
        """A connection and the schema's version."""
        place = f"file:{quote(str(self.path.resolve()))}"
        base = sqlite3.connect(f"{place}?mode={mode}", uri=True, isolation_level=None)
        try:
            (version,) = base.execute("PRAGMA user_version").fetchone()
        except sqlite3.OperationalError as error:
            base.close()
            if (
                mode != "ro"
                or _name(error) != "SQLITE_CANTOPEN"
                or self.path.with_name(f"{self.path.name}-wal").exists()
            ):
                raise
            # Reading makes files beside the store, which a read-only folder refuses; without a log there is no need.
            base = sqlite3.connect(f"{place}?mode=ro&immutable=1", uri=True, isolation_level=None)
            (version,) = base.execute("PRAGMA user_version").fetchone()
        base.row_factory = sqlite3.Row
        return base, version

    def _create(self) -> None:
        if self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError("B103", "this is a database of something else", where=str(self.path))
        self._base.execute("PRAGMA journal_mode = WAL")
        self._base.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def begin(self, entries: Sequence[Entry], command: str, facts: tuple[Mapping[str, Any], Mapping[str, str]]) -> int:
        """Start a run that asks these instances; claims of runs that are dead are open again. `facts`: environment
        and versions.
        """
        environment, versions = (json.dumps(dict(part)) for part in facts)
        with self._change():
            for held in self._base.execute("SELECT run, pid, started FROM runs WHERE ended IS NULL").fetchall():
                if not _alive(held["pid"], held["started"]):
                    self._base.execute(
                        "UPDATE instances SET state = 'open' WHERE state = 'running' AND run = ?", held[:1]
                    )
            run = self._base.execute(
                "INSERT INTO runs (started, pid, command, environment, versions) VALUES (?, ?, ?, ?, ?)",
                (time.time(), os.getpid(), command, environment, versions),
            ).lastrowid
            assert run is not None
            for place, entry in enumerate(entries):
                names = (entry.category, entry.model, entry.property, json.dumps(dict(entry.models)))
                self._base.execute("INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?, ?)", (run, place, entry.key, *names))
                self._add(entry)
        return run

    def add(self, entries: Sequence[Entry]) -> dict[str, Outcome]:
        """Parts of instances, which no list names: those that are there stay; the outcomes that are known, by key."""
        found = {}
        with self._change():
            for entry in entries:
                self._add(entry)
                row = self._base.execute("SELECT * FROM instances WHERE key = ?", (entry.key,)).fetchone()
                if row["state"] == "done":
                    found[entry.key] = _outcome(row)
        return found

    def _add(self, entry: Entry) -> None:
        self._base.execute(
            "INSERT OR IGNORE INTO instances (key, state, settings, hashes) VALUES (?, 'open', ?, ?)",
            (entry.key, json.dumps(dict(entry.settings)), json.dumps(dict(entry.hashes))),
        )

    def end(self, run: int) -> None:
        """The run is over; what it still claims is open again."""
        with self._change():
            self._base.execute("UPDATE runs SET ended = ? WHERE run = ?", (time.time(), run))
            self._base.execute("UPDATE instances SET state = 'open' WHERE state = 'running' AND run = ?", (run,))

    def claim(self, key: str, run: int, *, again: bool = False) -> bool:
        """Take an open instance (`again`: also one that is done) for this run; False where somebody else has it."""
        states = "('open', 'done')" if again else "('open')"
        with self._change():
            taken = self._base.execute(
                f"UPDATE instances SET state = 'running', run = ? WHERE key = ? AND state IN {states}", (run, key)
            )
        return taken.rowcount == 1

    def record(self, key: str, outcome: Outcome) -> None:
        """Write down what came of an instance."""
        values = {name: getattr(outcome, name) for name in Outcome.__dataclass_fields__}
        values |= {name: json.dumps(values[name]) for name in _LISTS}
        names = ", ".join(f"{name} = :{name}" for name in values)
        with self._change():
            self._base.execute(f"UPDATE instances SET state = 'done', {names} WHERE key = :key", {**values, "key": key})

    def rows(self, run: int | None = None) -> Iterator[Row]:
        """The instances of a run (the last one) in the order of its list."""
        with self._told():
            found = self._base.execute(
                "SELECT *, instances.run AS decided FROM asked JOIN instances USING (key) "
                "WHERE asked.run = coalesce(?, (SELECT max(run) FROM runs)) ORDER BY place",
                (run,),
            )
            yield from map(_row, found)

    def decided(self) -> Iterator[tuple[Entry, Outcome]]:
        """All instances with a search, as any run asked them."""
        with self._told():
            found = self._base.execute(
                "SELECT *, instances.run AS decided FROM instances JOIN asked USING (key) "
                "WHERE state = 'done' AND tactic IS NOT NULL GROUP BY key ORDER BY key"
            )
            for row in map(_row, found):
                if row.outcome is not None:
                    yield row.entry, row.outcome

    def runs(self) -> list[RunRecord]:
        """Every run, the first one first."""
        with self._told():
            rows = self._base.execute("SELECT * FROM runs ORDER BY run").fetchall()
        return [
            RunRecord(**{**dict(row), "environment": json.loads(row[5]), "versions": json.loads(row[6])})
            for row in rows
        ]

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._told():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors in our form."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            name, where = _name(error), str(self.path)
            if name == "SQLITE_FULL":
                message, todo = (
                    "the disk is full; results up to here are kept",
                    "make room, then run the same command again",
                )
                raise StoreError("B104", message, where=where, help=todo) from None
            if name == "SQLITE_CANTOPEN" or name.startswith("SQLITE_READONLY"):
                message, todo = "the store or its folder is read-only", "give another --results file"
                raise StoreError("B106", message, where=where, help=todo) from None
            raise StoreError("B105", f"the store cannot be read or written: {error}", where=str(self.path)) from None


def _row(row: sqlite3.Row) -> Row:
    models, settings, hashes = (json.loads(row[name]) for name in ("models", "settings", "hashes"))
    entry = Entry(row["key"], row["category"], row["model"], row["property"], models, settings, hashes)
    if row["state"] != "done":
        return Row(entry, row["state"], None, row["decided"])
    return Row(entry, "done", _outcome(row), row["decided"])


def _outcome(row: sqlite3.Row) -> Outcome:
    values = {name: row[name] for name in Outcome.__dataclass_fields__ if name in row.keys()}  # noqa: SIM118
    values |= {name: _tuples(json.loads(values.get(name) or "[]")) for name in _LISTS}
    return Outcome(**values)


def _tuples(read: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(part) if isinstance(part, list) else part for part in read)


def _name(error: sqlite3.DatabaseError) -> str:
    return str(getattr(error, "sqlite_errorname", ""))  # only errors of SQLite itself have one


def _alive(pid: int, started: float) -> bool:
    """Whether the process of a run that began at this time still runs, and is not another one of the same number."""
    if pid == os.getpid():  # in a container the next process often has the number of the one before
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        boot = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line[:5] == "btime")
    except (OSError, ValueError, IndexError, StopIteration):  # a system that does not say
        return True
    return boot + ticks / os.sysconf("SC_CLK_TCK") < started + 2.0  # both in whole seconds
