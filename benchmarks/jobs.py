"""One by one against `verify batch --jobs N`: the same verdicts, wall and processor time, and memory.

`python benchmarks/jobs.py FOLDER... --every 20`: each folder has an instances.csv as in VNN-COMP; every 20th instance
of all is taken. One by one, each is a process of its own that imports everything again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cli.instances import Instance, read_instances
from verif.batch.store import Store
from verif.verdict import Verdict

VERIFY = [sys.executable, "-c", "from cli.main import main; main()"]
Cost = tuple[float, float]  # wall and processor seconds


def alone(instances: list[Instance], timeout: float) -> tuple[list[str], Cost, int]:
    """Verdicts, cost, and the largest resident memory in bytes."""
    labels = {verdict.exit_code: verdict.label for verdict in Verdict}
    verdicts, peak, begun, spent = [], 0, time.monotonic(), 0.0
    for instance in instances:
        words = [str(file) for _, file in instance.models] + [str(instance.property), "--timeout", str(timeout)]
        process = subprocess.Popen([*VERIFY, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        verdicts.append(labels[os.waitstatus_to_exitcode(status)])
        peak, spent = max(peak, usage.ru_maxrss * 1024), spent + usage.ru_utime + usage.ru_stime
    return verdicts, (time.monotonic() - begun, spent), peak


def together(instances: list[Instance], timeout: float, jobs: int) -> tuple[list[str], Cost, int]:
    """The same in one batch; the memory is that of the worker that took most."""
    with tempfile.TemporaryDirectory() as folder:
        listed, store = Path(folder) / "instances.csv", Path(folder) / "r.db"
        listed.write_text("".join(f"{i.models[0][1]},{i.property},{timeout}\n" for i in instances))
        before, begun = os.times(), time.monotonic()
        line = [*VERIFY, "batch", str(listed), "--results", str(store), "--jobs", str(jobs), "--quiet"]
        subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        wall, after = time.monotonic() - begun, os.times()
        with Store(store) as found:
            outcomes = [row.outcome for row in found.rows()]
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    verdicts = ["open" if outcome is None else outcome.verdict for outcome in outcomes]
    return verdicts, (wall, spent), max(0 if outcome is None else outcome.peak_bytes for outcome in outcomes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=20.0)
    options = parser.parse_args()
    every = [i for folder in options.folders for i in read_instances(folder.resolve() / "instances.csv")]
    instances = [i for i in every if len(i.models) == 1][:: options.every]
    runs = {
        "one by one": alone(instances, options.timeout),
        f"--jobs {options.jobs}": together(instances, options.timeout, options.jobs),
    }
    print(f"{len(instances)} instances          wall s   processor s   peak MB")
    for name, (_, (wall, spent), peak) in runs.items():
        print(f"{name:20} {wall:10.1f} {spent:13.1f} {peak / 1e6:9.0f}")
    first, second = (verdicts for verdicts, _, _ in runs.values())
    for instance, one, other in zip(instances, first, second, strict=True):
        if one != other:
            print(f"{one}, then {other}: {instance.models[0][1]} {instance.property}")
    print(f"{sum(a == b for a, b in zip(first, second, strict=True))} of {len(instances)} verdicts are the same")


if __name__ == "__main__":
    main()
