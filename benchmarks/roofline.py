"""How close bound passes are to what the machine can do.

    python benchmarks/roofline.py [--problems DIR] [--only NAME] [--repeat 5] [--threads 1]

Prints the machine's ceilings (a large float32 product, a product of small matrices, a streaming copy) and, for each
problem and pass, the operations and bytes that the mathematics asks for (verif/bounds/cost.py; for CROWN with a row for
every neuron, and with rows for those that were undecided), the time at the ceilings, the measured time and the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.networks import Problem, random_problems, stored_problems  # noqa: E402
from benchmarks.passes import product_rate  # noqa: E402
from relaxations.sets import Box  # noqa: E402
from verif.bounds import Engine, cost  # noqa: E402


@dataclass(frozen=True)
class Ceilings:
    """Operations per second of a large and of a small float32 product; bytes per second, read or written, of a copy."""

    large: float
    small: float
    copy: float

    def seconds(self, work: cost.Work) -> float:
        """The least time that work can take."""
        return max(work.flops / self.large, work.least / self.copy)


def ceilings() -> Ceilings:
    """Measure this machine with the current number of threads: the best of several."""
    rows, weight = torch.rand(102_400, 50), torch.rand(50, 50)
    out, source = rows @ weight, torch.rand(1 << 26)
    target = torch.empty_like(source)
    small = _best(lambda: torch.matmul(rows, weight, out=out))
    copy = _best(lambda: target.copy_(source))
    return Ceilings(product_rate(), 2 * 102_400 * 50 * 50 / small, 2 * source.nbytes / copy)


def _best(run: Callable[[], object], repeat: int = 7) -> float:
    run()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def lines(problem: Problem, machine: Ceilings, repeat: int) -> list[str]:
    """The rows of the table for one problem."""
    graph, batch = problem.graph, len(problem.lower)
    engine, box = Engine(graph), Box(problem.lower.flatten(1), problem.upper.flatten(1))
    found = engine.bound(box, problem.rows)
    full = cost.all_rows(graph, final=problem.rows.shape[1])
    needed = cost.undecided_rows(graph, found.intervals, found.relaxations, full)
    interval = cost.interval_cost(graph, batch).total
    crown = cost.crown_cost(graph, batch, needed).total
    every = cost.crown_cost(graph, batch, full).total
    measured = [_median(lambda: engine.interval(box), repeat), _median(lambda: engine.bound(box, problem.rows), repeat)]
    texts = []
    for name, work, whole, seconds in (
        ("interval", interval, interval, measured[0]),
        ("crown", crown, every, measured[1]),
    ):
        least = machine.seconds(work)
        texts.append(
            f"{problem.name:<22}{name:<10}{whole.flops / 1e9:>10.3f}{work.flops / 1e9:>10.3f}{work.least / 1e6:>10.1f}"
            f"{work.traffic / 1e6:>10.1f}{least * 1e3:>10.2f}{seconds * 1e3:>10.2f}{seconds / least:>8.1f}x"
        )
    return texts


def _median(run: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description="bound passes against the machine's ceilings")
    parser.add_argument("--problems", type=Path, help="folder of .npz problems; without it: networks of random weights")
    parser.add_argument("--only", default="", help="part of the problem's name")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.no_grad():
        machine = ceilings()
        print(
            f"{options.threads} thread(s): large product {machine.large / 1e9:.0f} GFLOP/s, "
            f"(102400 x 50)(50 x 50) {machine.small / 1e9:.0f} GFLOP/s, copy {machine.copy / 1e9:.1f} GB/s"
        )
        heads = ("all GFLOP", "GFLOP", "MB least", "MB layers", "least ms", "ms")
        print(f"{'problem':<22}{'pass':<10}" + "".join(f"{head:>10}" for head in heads) + f"{'ratio':>9}")
        for problem in stored_problems(options.problems) if options.problems else random_problems():
            if options.only in problem.name:
                print(*lines(problem, machine, options.repeat), sep="\n", flush=True)


if __name__ == "__main__":
    main()
