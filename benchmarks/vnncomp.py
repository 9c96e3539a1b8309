"""Run folders of verification instances in fresh processes and compare with the expected verdicts.

    python benchmarks/vnncomp.py FOLDER [FOLDER ...] [--timeout S] [--only PATTERN] [--jobs 1] [--csv FILE] [--starts 3]

A folder has instances.csv (network, property, seconds; a quoted list of (name, network) where there are several) and
expected.csv (network, property, sat or unsat). Every claim of `sat` is replayed here, without the tool's own code.
With --csv, rows that are already in the file are not run again.
"""

from __future__ import annotations

import argparse
import ast
import csv
import fnmatch
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import replay  # noqa: E402

GRACE = 5.0  # seconds after its time limit at which a process is killed
NEAR = 1e-6  # a counterexample may miss a relation by this much: decimals that float32 does not have
# What every run must import; it ends as the tool's own process does, without unloading torch.
ENGINE = "import os, torch, graphs.onnx, verif.verify; os._exit(0)"


@dataclass(frozen=True)
class Instance:
    """One question; `networks` maps the names of a VNN-LIB 2.0 query ("" where there is only one) to files."""

    family: str
    network: str
    property: str
    seconds: float
    expected: str
    folder: Path

    @property
    def networks(self) -> list[tuple[str, Path]]:
        """Names and files."""
        if self.network.startswith("["):
            return [(name, self.folder / path) for name, path in ast.literal_eval(self.network)]
        return [("", self.folder / self.network)]

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it in a results file."""
        return self.family, self.network, self.property


@dataclass(frozen=True)
class Row:
    """What came of an instance; `outcome` is solved, WRONG or open; `slack` what the replay of a `sat` says."""

    family: str
    network: str
    property: str
    expected: str
    verdict: str
    outcome: str
    seconds: float
    peak_mib: float
    slack: str
    note: str


def read_instances(folder: Path) -> list[Instance]:
    """The rows of instances.csv with their expected verdicts."""
    expected = {}
    if (folder / "expected.csv").exists():
        with (folder / "expected.csv").open() as file:
            expected = {(row["onnx"], row["vnnlib"]): row["expected"] for row in csv.DictReader(file)}
    with (folder / "instances.csv").open() as file:
        rows = [(n, p, float(s)) for n, p, s in csv.reader(file)]
    return [Instance(folder.name, n, p, s, expected.get((n, p), ""), folder) for n, p, s in rows]


def command() -> list[str]:
    """How the tool is started: the installed entry point, else the source tree."""
    installed = shutil.which("verify", path=str(Path(sys.executable).parent))
    return [installed] if installed else [sys.executable, "-c", "from cli.main import main; main()"]


def solve(instance: Instance, limit: float, threads: int | None) -> Row:
    """Run one instance in a fresh process."""
    networks = instance.networks
    arguments = [str(networks[0][1])] if networks[0][0] == "" else []
    arguments.append(str(instance.folder / instance.property))
    arguments += [part for name, path in networks if name for part in ("--network", f"{name}={path}")]
    arguments += ["--timeout", f"{limit:g}", "--format", "vnncomp"]
    text, errors, seconds, peak = run_process([*command(), *arguments], limit + GRACE, threads)
    verdict = text.split("\n", 1)[0].strip() or ("killed" if seconds >= limit + GRACE else "error")
    slack = replay_slack(instance, text) if verdict == "sat" else ""
    outcome = judge(instance.expected, verdict, slack)
    note = " ".join(errors.split())[:300] if verdict not in ("sat", "unsat") else ""
    facts = (instance.expected, verdict, outcome, round(seconds, 3), round(peak, 1), slack, note)
    return Row(*instance.key, *facts)


def run_process(line: Sequence[str], limit: float, threads: int | None) -> tuple[str, str, float, float]:
    """Standard output, standard error, wall seconds and peak memory (MiB); the process group is killed at `limit`."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        process = subprocess.Popen(line, stdout=out, stderr=err, env=environment, start_new_session=True)
        timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        return out.read(), err.read(), seconds, usage.ru_maxrss / 1024


def replay_slack(instance: Instance, text: str) -> str:
    """What the independent replay says about a claimed counterexample."""
    try:
        models = [path for _, path in instance.networks]
        return f"{replay.check(models, instance.folder / instance.property, replay.read_point(text)):.3g}"
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"


def judge(expected: str, verdict: str, slack: str) -> str:
    """Solved, WRONG or open."""
    if verdict == "sat" and (slack.startswith("failed") or float(slack) > NEAR):
        return "WRONG"
    if verdict not in ("sat", "unsat"):
        return "open"
    return "solved" if expected in ("", verdict) else "WRONG"


def start_ups(runs: int) -> list[float]:
    """Seconds of processes that only import torch and the engine."""
    return [run_process([sys.executable, "-c", ENGINE], 120, None)[2] for _ in range(runs)]


def run_all(instances: Sequence[Instance], limit: float, jobs: int, store: Path | None) -> list[Row]:
    """Rows of all instances, printed and stored as they come; those already in `store` are taken from there."""
    done = read_rows(store) if store else {}
    rows = [done[i.key] for i in instances if i.key in done]
    todo = [i for i in instances if i.key not in done]
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    with ThreadPoolExecutor(jobs) as pool:
        for row in pool.map(lambda i: solve(i, min(limit, i.seconds), threads), todo):
            rows.append(row)
            names = f"{row.network[-48:]:<48} {Path(row.property).name[-44:]:<44}"
            place = f"[{len(rows):>3}/{len(instances)}]"
            print(f"{place} {names} {row.verdict:<8}{row.outcome:<7}{row.seconds:>7.2f} s  {row.note[:80]}", flush=True)
            if store:
                append(store, row)
    return rows


def read_rows(store: Path) -> dict[tuple[str, str, str], Row]:
    """The rows of an earlier run."""
    if not store.exists():
        return {}
    with store.open() as file:
        rows = [
            Row(**{**r, "seconds": float(r["seconds"]), "peak_mib": float(r["peak_mib"])}) for r in csv.DictReader(file)
        ]
    return {(row.family, row.network, row.property): row for row in rows}


def append(store: Path, row: Row) -> None:
    """Add one row, with a header where the file is new."""
    new = not store.exists()
    with store.open("a", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def summary(rows: Sequence[Row], start: float) -> str:
    """One line a family, then the total."""
    lines = [
        f"start-up (import torch and the engine): {start:.2f} s",
        f"{'family':<22}{'n':>5}{'solved':>8}{'wrong':>7}{'open':>6}{'median s':>10}{'total s':>10}"
        f"{'beyond start-up':>17}{'peak MiB':>10}",
    ]
    families = list(dict.fromkeys(row.family for row in rows))
    for family in [*families, *([""] if len(families) > 1 else [])]:
        part = [row for row in rows if family in ("", row.family)]
        counts = [sum(row.outcome == outcome for row in part) for outcome in ("solved", "WRONG", "open")]
        times = [row.seconds for row in part]
        beyond = sum(max(0.0, seconds - start) for seconds in times)
        lines.append(
            f"{family or 'all':<22}{len(part):>5}{counts[0]:>8}{counts[1]:>7}{counts[2]:>6}"
            f"{statistics.median(times):>10.2f}{sum(times):>10.1f}{beyond:>17.1f}{max(r.peak_mib for r in part):>10.0f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="run instances and compare with the expected verdicts")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--timeout", type=float, default=float("inf"), help="seconds, where an instance allows more")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="run instances whose 'network property' match")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time; 1 when times matter")
    parser.add_argument("--csv", type=Path, help="append rows to this file, and skip those that are in it")
    parser.add_argument("--starts", type=int, default=3, help="bare starts that are timed before and after the runs")
    options = parser.parse_args()
    instances = [i for folder in options.folders for i in read_instances(folder.resolve())]
    pattern = options.only if any(c in options.only for c in "*?[") else f"*{options.only}*"
    instances = [i for i in instances if fnmatch.fnmatch(f"{i.network} {i.property}", pattern)]
    if not instances:
        parser.error(f"no instance matches '{options.only}'")
    starts = start_ups(options.starts)
    rows = run_all(instances, options.timeout, options.jobs, options.csv)
    print(summary(rows, statistics.median([*starts, *start_ups(options.starts)] or [0.0])))
    return int(any(row.outcome == "WRONG" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
