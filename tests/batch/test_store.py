"""The store: what is written is read, claims of the dead are open again, and a full disk corrupts nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from verif.batch.store import Entry, Outcome, Store, StoreError

ENTRIES = [
    Entry(f"k{i}", "c", "m.onnx", f"p{i}.vnnlib", {"": "m.onnx"}, {"seed": 0}, {"property": "x"}) for i in range(3)
]
FACTS = ({"processors": 2}, {"verif": "0"})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    facts = ("timeout", "r", -1.5, 0.5, 7, "boxes", 1.0, 2.0, 3.0, 4, 5.0, b"npz", ("X",), "p")
    done = Outcome(*facts, trace=((0.1, -1.0, 0.2, 3, 4),), middle=b"npz", widths=(("fc1", 0.5), ("fc2", np.inf)))
    with Store(tmp_path / "r.db", write=True) as store:
        run = store.begin(ENTRIES, "verify batch", FACTS)
        assert store.claim("k0", run) and not store.claim("k0", run)
        store.record("k0", done)
        assert not store.claim("k0", run) and store.claim("k0", run, again=True)
        store.record("k0", done)
        store.end(run)
    with Store(tmp_path / "r.db") as store:
        first, *others = store.rows()
        assert (first.entry, first.outcome, first.state) == (ENTRIES[0], done, "done")
        assert [row.outcome for row in others] == [None, None]
        (record,) = store.runs()
        assert record.ended is not None and (record.environment, record.versions) == FACTS


def test_a_store_of_the_first_schema_is_read_and_goes_on(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db", write=True) as store:
        run = store.begin(ENTRIES, "verify batch", FACTS)
        store.claim("k0", run)
        store.record("k0", Outcome("holds"))
    base = sqlite3.connect(tmp_path / "r.db")
    base.executescript(
        "ALTER TABLE instances DROP COLUMN middle; ALTER TABLE instances DROP COLUMN widths; "
        "ALTER TABLE instances DROP COLUMN tactic; ALTER TABLE instances DROP COLUMN splits; "
        "PRAGMA user_version = 1;"
    )
    base.close()
    for write in (False, True):
        with Store(tmp_path / "r.db", write=write) as store:
            assert next(store.rows()).outcome == Outcome("holds")
    with Store(tmp_path / "r.db", write=True) as store:
        store.record("k1", Outcome("holds", widths=(("fc", 1.0),)))
        assert [row.outcome.widths for row in store.rows() if row.outcome] == [(), (("fc", 1.0),)]


def test_claims_of_a_killed_process_are_open_again(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from verif.batch.store import Entry, Store\n"
        "store = Store(sys.argv[1], write=True); run = store.begin([Entry('k0', 'c', 'm', 'p')], '', ({}, {}))\n"
        "assert store.claim('k0', run); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "r.db")], check=False)
    assert done.returncode == -9
    with Store(tmp_path / "r.db", write=True) as store:
        run = store.begin(ENTRIES[:1], "", FACTS)
        assert store.claim("k0", run)


def test_full_disk(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db", write=True) as store:
        run = store.begin(ENTRIES, "", FACTS)
        store.record("k0", Outcome("holds"))
        pages = store._base.execute("PRAGMA page_count").fetchone()[0]
        store._base.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="the disk is full") as told:
            store.record("k1", Outcome("violated", counterexample=bytes(10**6)))
        assert told.value.code == "B104" and store.claim("k2", run)
    with Store(tmp_path / "r.db") as store:
        assert [row.state for row in store.rows()] == ["done", "open", "running"]
        assert store._base.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        Store(tmp_path / "r.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(StoreError, match="of something else"):
        Store(tmp_path / "other.db", write=True)
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(StoreError, match="B105"):
        Store(tmp_path / "text.db", write=True)
