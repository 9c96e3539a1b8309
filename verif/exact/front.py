"""Linear and mixed-integer programs through cvxpy, solved by HiGHS, or by Gurobi where the user has it.

What a solver returns is a hint: its points are replayed and its multipliers are checked (`duals.py`).
Shape letters: V variables, E equations, R rows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from verif.exact.matrices import Array, Sparse

# In order of preference: their option for seconds, and options that let them stop at the optimum only.
SOLVERS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "GUROBI": ("TimeLimit", {"MIPGap": 0.0}),
    "HIGHS": ("time_limit", {"mip_rel_gap": 0.0}),
}


@dataclass(frozen=True)
class Solution:
    """A point (V,), and multipliers of equations (E,) and rows (R,), which a program with binary variables lacks."""

    point: Array
    equal: Array | None
    rows: Array | None


class Linear:
    """Minimise cost @ v where equal @ v = equal_at, rows @ v <= at and lower <= v <= upper.

    Compiled once; at, lower and upper are given anew to each solution. Equations and rows have `binary` columns
    more than there are entries of v: those of variables that are 0 or 1.
    """

    def __init__(self, cost: Array, equal: Sparse, equal_at: Array, rows: Sparse, binary: int = 0) -> None:
        import cvxpy as cp

        free = len(cost)
        self.at = cp.Parameter(rows.shape[0])
        self.lower, self.upper = cp.Parameter(free), cp.Parameter(free)
        self.variable = cp.Variable(free, bounds=[self.lower, self.upper])
        left = rows[:, :free] @ self.variable
        if binary:
            left = left + rows[:, free:] @ cp.Variable(binary, boolean=True)
        self.rows = left <= self.at
        self.equal = equal[:, :free] @ self.variable == equal_at if equal.shape[0] else None
        constraints = [self.rows] if self.equal is None else [self.rows, self.equal]
        self.problem = cp.Problem(cp.Minimize(cost @ self.variable), constraints)

    def solve(self, at: Array, lower: Array, upper: Array, seconds: float = math.inf) -> Solution | None:
        """The best point that was found in time; None where there is none, as where conditions exclude each other."""
        import cvxpy as cp

        if seconds <= 0:
            return None
        self.at.value, self.lower.value, self.upper.value = at, lower, upper
        solver = preferred()
        limit, options = SOLVERS[solver]
        if math.isfinite(seconds):
            options = {**options, limit: seconds}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of results that may be inaccurate: they are checked
            try:
                self.problem.solve(solver=solver, **options)
            except (
                cp.error.SolverError,
                ValueError,
            ):  # the latter of what cvxpy cannot read: a status that it does not know
                return None
        point = self.variable.value
        if point is None or not np.isfinite(point).all():
            return None
        equal = np.zeros(0) if self.equal is None else self.equal.dual_value
        rows = self.rows.dual_value
        if equal is None or rows is None or not (np.isfinite(equal).all() and np.isfinite(rows).all()):
            return Solution(np.asarray(point), None, None)
        return Solution(np.asarray(point), np.asarray(equal).reshape(-1), np.asarray(rows).reshape(-1))


@cache
def preferred() -> str:
    """The solver to use."""
    import cvxpy as cp

    there = cp.installed_solvers()
    return next(name for name in SOLVERS if name in there)
