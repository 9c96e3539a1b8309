"""Time interval and CROWN bounds on fixed networks, beside auto_LiRPA where a checkout of it is given.

    python benchmarks/bounds.py [--problems DIR] [--peer PATH] [--only NAME] [--repeat 5] [--threads 1]

Times are medians of --repeat runs; the two tools alternate in one process. Tightness is the mean lower bound over all
boxes and rows (larger is tighter). `stored` compares with the bounds that came with a problem, where there are some.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.networks import Problem, random_problems, stored_problems  # noqa: E402
from relaxations.sets import Box  # noqa: E402
from verif.bounds import Engine, crown  # noqa: E402

METHODS = {"interval": "IBP", "crown": "CROWN"}
Run = Callable[[], Tensor]


def ours(problem: Problem, method: str) -> Run:
    """Our lower bounds (B, S); the graph is built once, everything else is in the time."""
    graph = problem.graph
    box = Box(problem.lower.flatten(1), problem.upper.flatten(1))
    if method == "crown":
        return lambda: crown(graph, box, problem.rows)
    last = next(node for node in reversed(list(graph)) if node.op == "linear")
    engine, weights = Engine(graph), graph.params(last)

    def interval() -> Tensor:
        # The rows are folded into the last layer, as the peer does it.
        low, high = (side.reshape(len(side), 1, -1) for side in engine.interval(box)[last.inputs[0]])
        rows = problem.rows @ weights["weight"]
        return (rows.clamp_min(0) * low + rows.clamp_max(0) * high).sum(2) + problem.rows @ weights["bias"]

    return interval


def peers(problem: Problem, method: str) -> Run:
    """auto_LiRPA's lower bounds (B, S); its module is built once, everything else is in the time."""
    from auto_LiRPA import BoundedModule, BoundedTensor
    from auto_LiRPA.perturbations import PerturbationLpNorm

    bounded = BoundedModule(problem.module, problem.lower, bound_opts={}, device="cpu")
    region = PerturbationLpNorm(norm=float("inf"), x_L=problem.lower, x_U=problem.upper)
    x = BoundedTensor((problem.lower + problem.upper) / 2, region)

    def run() -> Tensor:
        lower, _ = bounded.compute_bounds(x=(x,), C=problem.rows, method=METHODS[method], bound_upper=False)
        return lower.detach()

    return run


def alternate(runs: list[Run], repeat: int) -> tuple[list[float], list[Tensor]]:
    """Median seconds and the bounds of every run, one after the other `repeat` times after a warm-up."""
    with torch.no_grad():
        results = [run() for run in runs]
        seconds: list[list[float]] = [[] for _ in runs]
        for _ in range(repeat):
            for run, times in zip(runs, seconds, strict=True):
                started = time.perf_counter()
                run()
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in seconds], results


def line(problem: Problem, method: str, repeat: int, peer: bool) -> str:
    """One row of the table."""
    runs = [ours(problem, method), *([peers(problem, method)] if peer else [])]
    seconds, bounds = alternate(runs, repeat)
    text = f"{problem.name:<22}{method:<10}{seconds[0] * 1e3:>10.2f}{bounds[0].mean().item():>14.5g}"
    if peer:
        text += f"{seconds[1] * 1e3:>12.2f}{bounds[1].mean().item():>14.5g}{seconds[1] / seconds[0]:>8.2f}x"
        text += f"{deficit(bounds[0], bounds[1]):>13.1e}"
    stored = problem.stored.get(METHODS[method])
    return text + (f"{deficit(bounds[0], stored):>13.1e}" if stored is not None else "")


def deficit(bound: Tensor, reference: Tensor) -> float:
    """The most by which a bound is below the reference, relative to the reference's largest size; at most 0: never."""
    return ((reference - bound).max() / reference.abs().max()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description="time interval and CROWN bounds")
    parser.add_argument("--problems", type=Path, help="folder of .npz problems; without it: networks of random weights")
    parser.add_argument("--peer", type=Path, help="checkout of auto_LiRPA to run beside")
    parser.add_argument("--only", default="", help="part of the problem's name")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peer:
        warnings.filterwarnings("ignore")
        sys.path.insert(0, str(options.peer.resolve()))
        import auto_LiRPA

        print(f"peer: auto_LiRPA {auto_LiRPA.__version__}; torch {torch.__version__}, {options.threads} thread(s)")
    problems = stored_problems(options.problems) if options.problems else random_problems()
    head = f"{'problem':<22}{'method':<10}{'ours ms':>10}{'mean bound':>14}"
    head += f"{'peer ms':>12}{'mean bound':>14}{'ratio':>9}{'below peer':>13}" if options.peer else ""
    print(head + (f"{'below stored':>13}" if options.problems else ""))
    for problem in problems:
        if options.only in problem.name:
            for method in METHODS:
                print(line(problem, method, options.repeat, bool(options.peer)), flush=True)


if __name__ == "__main__":
    main()
