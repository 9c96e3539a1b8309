"""Time bounds on fixed networks, beside auto_LiRPA where a checkout of it is given; with their memory and tightness.

    python benchmarks/bounds.py [--problems DIR] [--peer PATH] [--only NAME] [--methods crown,optimised]
        [--repeat 5] [--threads 1] [--patience 60] [--memory] [--markdown] [--json FILE] [--history [FILE]]

Times are medians of --repeat runs after a warm-up; the two tools alternate in one process. A case of which --repeat
runs would take longer than --patience seconds gets fewer, and the warm-up alone where that is longer. Memory is
measured in a fresh process for each tool. Tightness is the mean lower bound over all boxes and rows (larger is
tighter), and the worst row's deficit to the peer and to the bounds that came with a problem (`stored`).
`--history` appends the run to a file, from which `benchmarks/compare.py` tells what became slower.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import peak, table  # noqa: E402
from benchmarks.networks import Problem, random_problems, stored_problems  # noqa: E402
from benchmarks.passes import METHODS, Run, deficit, import_peer, least_flops, ours, peers, product_rate  # noqa: E402
from relaxations.kernels.library import native  # noqa: E402
from verif import __version__  # noqa: E402

HISTORY = ROOT / "benchmarks" / "history.jsonl"
Memory = Callable[[str, str, str], "int | None"]  # tool, method, problem: bytes


def alternate(runs: list[Run], repeat: int, patience: float) -> tuple[int, list[float], list[Tensor]]:
    """How many repetitions there were, median seconds and the bounds of every run, one after the other each time."""
    results, seconds = [], []
    with torch.no_grad():
        for run in runs:
            started = time.perf_counter()
            results.append(run())
            seconds.append([time.perf_counter() - started])
        count = min(repeat, int(patience / sum(times[0] for times in seconds)))
        if count:
            seconds = [[] for _ in runs]
        for _ in range(count):
            for run, times in zip(runs, seconds, strict=True):
                started = time.perf_counter()
                run()
                times.append(time.perf_counter() - started)
    return count, [statistics.median(times) for times in seconds], results


def case(problem: Problem, method: str, *, peer: bool, repeat: int, patience: float) -> dict[str, Any] | None:
    """The figures of one row of the table; None where we have no such pass."""
    runs = [ours(problem, method)]
    if runs[0] is None:
        return None
    if peer:
        runs.append(peers(problem, method))
    count, seconds, bounds = alternate([run for run in runs if run is not None], repeat, patience)
    sides = [{"seconds": s, "mean": b.mean().item()} for s, b in zip(seconds, bounds, strict=True)]
    found: dict[str, Any] = {"problem": problem.name, "method": method, "repeat": count, "ours": sides[0]}
    if len(sides) > 1:
        found |= {"peer": sides[1], "below_peer": deficit(bounds[0], bounds[1])}
    stored = problem.stored.get(METHODS[method].peer)
    if stored is not None and method != "final":  # what is stored was optimised in intermediate bounds too
        found["below_stored"] = deficit(bounds[0], stored)
    with torch.no_grad():
        flops = least_flops(problem, method)
    return found if flops is None else found | {"flops": flops}


def measured(found: dict[str, Any], memory: Memory) -> dict[str, Any]:
    """The figures with the memory of each tool."""
    for tool in ("ours", "peer"):
        taken = memory(tool, found["method"], found["problem"]) if tool in found else None
        if taken is not None:
            found[tool]["bytes"] = taken
    return found


def about(threads: int, peer: str | None) -> dict[str, Any]:
    """When, of what and where the figures are."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "--short", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        "machine": processor(),
        "threads": threads,
        "versions": {"verif": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "kernels": native().note,
        "peer": peer,
        "product_rate": product_rate(),
    }


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="time bounds, with their memory and tightness")
    parser.add_argument("--problems", type=Path, help="folder of .npz problems; without it: networks of random weights")
    parser.add_argument("--peer", type=Path, help="checkout of auto_LiRPA to run beside")
    parser.add_argument("--only", default="", help="part of the problem's name")
    parser.add_argument("--methods", default="interval,crown-ibp,crown", help=f"of {','.join(METHODS)}, or all")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds that the repetitions of a case may take")
    parser.add_argument("--memory", action="store_true", help="measure memory too, each tool in a process of its own")
    parser.add_argument("--markdown", action="store_true", help="print the table of the README at the end")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--history", type=Path, nargs="?", const=HISTORY, help="append all figures to this file")
    options = parser.parse_args()
    options.methods = list(METHODS) if options.methods == "all" else options.methods.split(",")
    unknown = set(options.methods) - set(METHODS)
    if unknown:
        parser.error(f"no method {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}, and all")
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    record = about(options.threads, import_peer(options.peer) if options.peer else None)
    print(table.caption(record), table.head(), sep="\n", flush=True)
    places = [word for name in ("problems", "peer") if (path := getattr(options, name)) for word in (f"--{name}", path)]
    flags = [*map(str, places), "--threads", str(options.threads)]
    record["cases"] = []
    problems = stored_problems(options.problems, options.only) if options.problems else random_problems()
    for problem in problems:
        for method in options.methods if options.only in problem.name else ():
            found = case(problem, method, peer=bool(options.peer), repeat=options.repeat, patience=options.patience)
            if found is not None:
                if options.memory:
                    found = measured(found, lambda *what: peak.measure([*what, *flags]))
                record["cases"].append(found)
                print(table.line(found, record["product_rate"]), flush=True)
    if options.markdown:
        print("\n" + table.markdown(record))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if options.history:
        with options.history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
