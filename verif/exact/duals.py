"""Bounds from multipliers, re-evaluated here: whatever multipliers a solver returns, the bound is sound.

For any y_e, any y_r >= 0 and every v that satisfies the conditions of a program
    c . v >= c . v + y_e . (E v - e) + y_r . (R v - r) >= min_box (c + E^T y_e + R^T y_r) . v - y_e . e - y_r . r,
which is the free-multiplier form of a linear bound. What float64 rounds off is taken off again: at most `rounding`
times the sum of all absolute terms.
Shape letters: V variables, E equations, R rows, C rows of the objective.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from verif.exact.matrices import Array, Signs, Sparse
from verif.exact.program import Program, Triangles


@dataclass(frozen=True)
class Node:
    """A sub-problem: bounds of the variables (V,), right-hand sides of the triangles' rows (R,) and the ReLUs' signs
    (K,) int8, 0 where open.
    """

    lower: Array
    upper: Array
    at: Array
    sign: Signs

    @classmethod
    def root(cls, program: Program, triangles: Triangles) -> Node:
        """The whole box."""
        return cls(program.lower, program.upper, triangles.at, np.zeros(len(program.before), dtype=np.int8))

    def with_signs(self, program: Program, sign: Signs) -> Node:
        """The sub-problem with further signs (K,), 0 where nothing is added."""
        lower, upper, at = self.lower.copy(), self.upper.copy(), self.at.copy()
        off, on = sign < 0, sign > 0
        np.minimum.at(upper, program.before[off], 0.0)
        upper[program.after[off]] = 0.0
        np.maximum.at(lower, program.before[on], 0.0)
        at[2 * len(sign) + np.flatnonzero(on)] = 0.0
        return Node(lower, upper, at, np.where(sign != 0, sign, self.sign).astype(np.int8))


@dataclass(frozen=True)
class Objective:
    """Affine functions of the variables: rows (C, V), offset and size (C,) as in `program.Value`."""

    rows: Sparse
    offset: Array
    size: Array


@dataclass(frozen=True)
class Multipliers:
    """Of the objective's rows (C,), the equations (E,) and the triangles' rows (R,)."""

    objective: Array
    equal: Array
    rows: Array


def bound(program: Program, triangles: Triangles, node: Node, objective: Objective, y: Multipliers) -> float:
    """A lower bound of y.objective . (rows @ v + offset) over all v of the sub-problem; -inf where nothing is known.

    An empty sub-problem has any bound. y.objective must not be negative where the sign of the result is to say that
    some row is positive.
    """
    held = np.maximum(y.rows, 0.0)
    rest = objective.rows.T @ y.objective + program.equal.T @ y.equal + triangles.rows.T @ held
    with np.errstate(invalid="ignore", over="ignore"):
        least = np.minimum(rest * node.lower, rest * node.upper).sum()
        value = float(least + objective.offset @ y.objective - program.equal_at @ y.equal - node.at @ held)
        terms = np.abs(y.objective) @ (objective.size + np.abs(objective.offset))
        terms += np.abs(y.equal) @ (program.equal_size + np.abs(program.equal_at) + _most(program))
        terms += held @ (triangles.size + np.abs(node.at))
    slack = 2 * (program.rounding + len(objective.offset) * 2.0**-53) * float(terms)
    result = value - slack
    return result if math.isfinite(result) else -math.inf


def _most(program: Program) -> Array:
    """The largest absolute value of each equation's own variable, (E,)."""
    columns = np.concatenate([np.zeros(0, dtype=np.int64), *(block.columns for block in program.blocks)])
    most: Array = np.maximum(np.abs(program.lower), np.abs(program.upper))[columns]
    return most
