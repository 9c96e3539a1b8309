"""A disk that is full and one that is read-only: a clear error, exit code 2, and nothing corrupted.

The disk is a small one in memory that only the process under test sees; where the system lends none, the tests skip.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD = """
import os, sys
from pathlib import Path
from cli.main import run
from verif.batch.store import Entry, Outcome, Store, StoreError

disk = Path(sys.argv[1])
store = disk / "r.db"
entries = [Entry(f"k{i}", "c", "m", "p") for i in range(50)]

def fill():
    with Store(store, write=True) as open_store:
        number = open_store.begin(entries, "", ({}, {}))
        for row in list(open_store.rows(number)):
            if row.outcome is None:
                assert open_store.claim(row.entry.key, number)
                open_store.record(row.entry.key, Outcome("violated", counterexample=os.urandom(20000)))
        open_store.end(number)

def count():
    with Store(store) as open_store:
        assert open_store._base.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return sum(row.outcome is not None for row in open_store.rows())

def refused(code):
    try:
        fill()
    except StoreError as error:
        assert error.code == code, error
        return True
"""
FULL = """
assert refused("B104")
kept = count()
assert 0 < kept < 50 and refused("B104") and count() == kept
assert run(["batch", str(disk.parent / "i.csv"), "--results", str(store)]) == 2  # B104 on stderr
(disk / "rest").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
assert run(["report", str(store), "--json", str(disk / "out.json")]) == 2  # C108
assert sorted(path.name for path in disk.iterdir()) == ["r.db", "r.db-shm", "r.db-wal", "rest"]
os.system(f"mount -o remount,size=9m {disk}")
fill()
assert count() == 50
"""
READ_ONLY = """
fill()
os.system(f"mount -o remount,ro,size=9m {disk}")
assert refused("B106")
assert run(["batch", str(disk.parent / "i.csv"), "--results", str(store)]) == 2  # C108
assert count() == 50 and run(["report", str(store)]) == 0
"""


@pytest.mark.parametrize(
    ("size", "code", "told"),
    [("300k", FULL, ["error[B104]", "error[C108]: cannot write here: no space"]), ("9m", READ_ONLY, ["error[C108]"])],
    ids=["full", "read-only"],
)
def test_disk(size: str, code: str, told: list[str], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "i.csv").write_text("m.onnx,p.vnnlib,1\n" * 5000)
    script = f'mount -t tmpfs -o size={size} none "$1" || exit 77; exec "$2" -c "$3" "$1"'
    line = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        disk,
        sys.executable,
        HEAD + code,
    ]
    try:
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode == 77 or done.stderr.startswith("unshare"):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    errors = [text for text in done.stderr.splitlines() if text.startswith("error")]
    assert len(errors) == len(told) and all(map(str.startswith, errors, told)), done.stderr
