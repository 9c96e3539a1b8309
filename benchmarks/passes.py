"""What the table of bounds compares: every method on a problem, by us and by auto_LiRPA, and what it costs at least."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.networks import Problem
from relaxations.sets import Box
from verif.bounds import NO_ROUNDS, ROUNDS, Engine, Rounds, cost

ITERATIONS = 20  # of the peer's optimiser, as in the stored bounds
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Method:
    """A bound: the peer's name for it, the rounds of slope optimisation that we give it, and whether intermediate
    bounds come from backward sweeps; `fixed`: the peer optimises with those that its CROWN found.
    """

    peer: str
    rounds: Rounds = NO_ROUNDS
    backward: bool = True
    fixed: bool = False

    @property
    def optimises(self) -> bool:
        """Whether slopes are optimised."""
        return self.rounds != NO_ROUNDS


METHODS = {
    "interval": Method("IBP"),
    "crown-ibp": Method("CROWN-IBP", backward=False),
    "crown": Method("CROWN"),
    # Slopes of the final rows only, with the intermediate bounds of CROWN.
    "final": Method("CROWN-Optimized", Rounds(0, ITERATIONS), fixed=True),
    # Of intermediate bounds too. Ours takes the rounds that reach the peer's mean bound.
    "optimised": Method("CROWN-Optimized", ROUNDS),
}


def ours(problem: Problem, method: str) -> Run | None:
    """Our lower bounds (B, S); the graph is built once, everything else is in the time. None: there is no such pass."""
    graph, how, rows = problem.graph, METHODS[method], problem.rows
    box = Box(problem.lower.flatten(1), problem.upper.flatten(1))
    if method == "interval":
        return _interval(graph, box, rows)
    if how.optimises and not Engine(graph).optimises(box):
        return None
    return lambda: Engine(graph).bound(box, rows, backward=how.backward, rounds=how.rounds).lower


def _interval(graph: Any, box: Box, rows: Tensor) -> Run:
    last = next(node for node in reversed(list(graph)) if node.op == "linear")
    engine, weights = Engine(graph), graph.params(last)

    def run() -> Tensor:
        # The rows are folded into the last layer, as the peer does it.
        low, high = (side.reshape(len(side), 1, -1) for side in engine.interval(box)[last.inputs[0]])
        folded = rows @ weights["weight"]
        return (folded.clamp_min(0) * low + folded.clamp_max(0) * high).sum(2) + rows @ weights["bias"]

    return run


def peers(problem: Problem, method: str) -> Run | None:
    """auto_LiRPA's lower bounds (B, S); its module is built once, everything else is in the time.

    None where it takes no such network, or where optimising is out of the question: with stored bounds of other
    methods and none of this, it ran out of memory or of patience.
    """
    how = METHODS[method]
    if problem.module is None or (how.optimises and problem.stored and how.peer not in problem.stored):
        return None
    from auto_LiRPA import BoundedModule, BoundedTensor
    from auto_LiRPA.perturbations import PerturbationLpNorm

    options = {"optimize_bound_args": {"iteration": ITERATIONS}} if how.optimises else {}
    bounded = BoundedModule(problem.module, problem.lower, bound_opts=options, device="cpu")
    region = PerturbationLpNorm(norm=float("inf"), x_L=problem.lower, x_U=problem.upper)
    x = BoundedTensor((problem.lower + problem.upper) / 2, region)

    def bound(method: str, intermediate: Any = None) -> Tensor:
        asked = {"C": problem.rows, "method": method, "bound_upper": False, "interm_bounds": intermediate}
        return bounded.compute_bounds(x=(x,), **asked)[0].detach()

    known = None
    if how.fixed:  # its option fix_interm_bounds does nothing without bounds that it can keep
        bound("CROWN")
        sources = [node for activation in bounded.get_enabled_opt_act() for node in activation.inputs]
        known = {s.name: (s.lower.detach(), s.upper.detach()) for s in sources if isinstance(s.lower, Tensor)}

    def run() -> Tensor:  # with `known` too it runs CROWN once, to start from
        with torch.set_grad_enabled(how.optimises):
            return bound(how.peer, known)

    return run


def import_peer(checkout: Path) -> str:
    """Make a checkout of auto_LiRPA importable, and say which one it is."""
    sys.path.insert(0, str(checkout.resolve()))
    warnings.filterwarnings("ignore")
    import auto_LiRPA

    warnings.filterwarnings("ignore")  # again: the import sets filters of its own
    return f"auto_LiRPA {auto_LiRPA.__version__}"


def deficit(bound: Tensor, reference: Tensor) -> float:
    """The most by which a bound is below the reference, relative to the reference's largest size; at most 0: never."""
    return ((reference - bound).max() / reference.abs().max()).item()


def least_flops(problem: Problem, method: str) -> float | None:
    """Operations that the mathematics of a pass asks for, counted from the graph and the rows that it needed."""
    graph, batch = problem.graph, len(problem.lower)
    if method == "interval":
        return cost.interval_cost(graph, batch).total.flops
    if method != "crown":
        return None
    found = Engine(graph).bound(Box(problem.lower.flatten(1), problem.upper.flatten(1)), problem.rows)
    load = cost.all_rows(graph, final=problem.rows.shape[1])
    load = cost.undecided_rows(graph, found.intervals, found.relaxations, load)
    return cost.crown_cost(graph, batch, load).total.flops


def product_rate(size: int = 1536, repeat: int = 7) -> float:
    """Operations per second of a large matrix product in float32 with the current threads: the best of several."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    out, best = a @ b, float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        torch.matmul(a, b, out=out)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
