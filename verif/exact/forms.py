"""The three programs of a conjunction of atoms: least largest excess e over a sub-problem of ReLU signs.

Variables are (v, e). `hard` keeps to the sub-problem's signs; `soft` may miss signs and atoms alike by e, so that it
always has a solution, whose multipliers show where the signs exclude each other; `mixed` chooses the signs itself.
Shape letters: V variables, K undecided ReLUs, A atoms.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from verif.exact.duals import Multipliers, Node, Objective, bound
from verif.exact.front import Linear, Solution
from verif.exact.matrices import Array, Sparse
from verif.exact.program import Program, Triangles


@dataclass(frozen=True)
class Found:
    """A point (V,) of a relaxation, the excess there, and its multipliers."""

    point: Array
    excess: float
    multipliers: Multipliers | None


@dataclass(frozen=True)
class Forms:
    """Compiled on first use, each once."""

    program: Program
    triangles: Triangles
    objective: Objective

    def hard(self, node: Node, deadline: float) -> Found | None:
        """The triangle relaxation of a sub-problem; None where its conditions exclude each other."""
        at = np.concatenate([node.at, -self.objective.offset])
        found = self._solve(self._hard, at, (node.lower, node.upper), deadline)
        return None if found is None else self._found(found)

    def soft(self, node: Node, deadline: float) -> Found | None:
        """The same with signs that may be missed at a price; its multipliers hold in the sub-problem."""
        program, root = self.program, Node.root(self.program, self.triangles)
        most = program.upper[program.after] - self._range[0], -program.lower[program.before] - self._range[0]
        off, on = (np.where(node.sign == sign, 0.0, room) for sign, room in zip((-1, 1), most, strict=True))
        at = np.concatenate([root.at, -self.objective.offset, off, on])
        found = self._solve(self._soft, at, (root.lower, root.upper), deadline)
        return None if found is None else self._found(found, node)

    def mixed(self, deadline: float) -> Found | None:
        """The best point that a mixed-integer program finds in the whole box."""
        program, objective = self.program, self.objective
        low = program.lower[program.before]
        at = np.concatenate([self.triangles.at, -objective.offset, 0 * low, -low])
        found = self._solve(self._mixed, at, (program.lower, program.upper), deadline)
        return None if found is None else self._found(found)

    def refutes(self, node: Node, found: Found) -> bool:
        """Whether the multipliers prove that no point of the sub-problem satisfies all atoms."""
        y = found.multipliers
        return y is not None and bound(self.program, self.triangles, node, self.objective, y) > 0

    def _solve(self, form: Linear, at: Array, box: tuple[Array, Array], deadline: float) -> Solution | None:
        lower, upper = (np.append(end, e) for end, e in zip(box, self._range, strict=True))
        return form.solve(at, lower, upper, deadline - time.monotonic())

    def _found(self, solution: Solution, node: Node | None = None) -> Found:
        """What a solution says about the variables; misses of signs count in the sub-problem as its own rows."""
        point, excess = solution.point[: self.program.size], float(solution.point[self.program.size])
        if solution.rows is None or solution.equal is None:
            return Found(point, excess, None)
        sizes = np.cumsum([len(self.triangles.at), len(self.objective.offset), len(self.program.before)])
        rows, objective, _, on = np.split(np.maximum(solution.rows, 0.0), sizes)
        if node is not None:
            rows[2 * len(on) :] += np.where(node.sign > 0, on, 0.0)
        return Found(point, excess, Multipliers(objective, solution.equal, rows))

    @cached_property
    def _range(self) -> tuple[float, float]:
        """Where the largest excess lies."""
        objective = self.objective
        size = abs(objective.rows) @ np.maximum(np.abs(self.program.lower), np.abs(self.program.upper))
        return float((objective.offset - size).max()) - 1.0, float((objective.offset + size).max()) + 1.0

    @cached_property
    def _hard(self) -> Linear:
        return self._form()

    @cached_property
    def _soft(self) -> Linear:
        h, z = self._columns
        return self._form((h, -1.0, None), (h - z, -1.0, None))

    @cached_property
    def _mixed(self) -> Linear:
        h, z = self._columns
        low, high = (end[self.program.before] for end in (self.program.lower, self.program.upper))
        return self._form((h, 0.0, -high), (h - z, 0.0, -low))

    @property
    def _columns(self) -> tuple[Sparse, Sparse]:
        """Rows (K, V) of the ReLUs' results and of what is in front of them."""
        import scipy.sparse as sparse

        count = len(self.program.before)
        one, each, shape = np.ones(count), np.arange(count), (count, self.program.size)
        return tuple(sparse.csr_array((one, (each, c)), shape) for c in (self.program.after, self.program.before))

    def _form(self, *more: tuple[Sparse, float, Array | None]) -> Linear:
        """Triangles, atoms, and further rows with their coefficients of e and of a binary variable each."""
        import scipy.sparse as sparse

        given = [(self.triangles.rows, 0.0, None), (self.objective.rows, -1.0, None), *more]
        binary = any(switch is not None for _, _, switch in given)
        blocks = []
        for rows, e, switch in given:
            column = sparse.csr_array(np.full((rows.shape[0], 1), e))
            last = [self._switches(rows.shape[0], switch)] if binary else []
            blocks.append(sparse.hstack([rows, column, *last]))
        rows, count = sparse.vstack(blocks, format="csr"), len(self.program.before) if binary else 0
        equal = sparse.hstack([self.program.equal, sparse.csr_array((len(self.program.equal_at), 1 + count))])
        cost = np.append(np.zeros(self.program.size), 1.0)
        return Linear(cost, equal.tocsr(), self.program.equal_at, rows, count)

    def _switches(self, rows: int, switch: Array | None) -> Sparse:
        import scipy.sparse as sparse

        empty = sparse.csr_array((rows, len(self.program.before)))
        return empty if switch is None else sparse.diags_array(switch).tocsr()
