"""Whether a conjunction of atoms can hold in a box, by a tree of ReLU signs with a linear program at each node.

A node is closed when checked multipliers (`duals.py`) show that its conditions exclude each other; a solver's word is
never enough. Where all signs are given the program is the network itself, so the tree is complete up to rounding.
Shape letters: V variables, K undecided ReLUs, A atoms of the conjunction.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from verif.exact.duals import Node, Objective
from verif.exact.forms import Forms, Found
from verif.exact.matrices import Array, Index, Signs
from verif.exact.polish import nearby
from verif.exact.program import Program

EXACT = 1e-7  # by which a point of a relaxation may miss a ReLU, as a share of its interval
NEAR = 1e-6  # of the terms of the atoms: excess that a point may show and still be worth a look
MIXED_AFTER = 40  # nodes after which a mixed-integer program looks for a point
MIXED_SHARE = 0.25  # and its share of the time left
FIRST = 8  # nodes whose points are all moved on inside their linear region
POINTS = 8


@dataclass(frozen=True)
class Atoms:
    """Rows of the outputs (A,) with limits (A,): unsafe where every output[rows] <= limit; `noise` (A,) is what the
    network's own rounding may add to them.
    """

    rows: Index
    limit: Array
    noise: Array


@dataclass
class Tree:
    """The search for one conjunction. After each step of `run`, `points` (P, n) are worth a replay."""

    program: Program
    atoms: Atoms
    deadline: float
    done: int = 0
    unresolved: int = 0
    points: Array = field(default_factory=lambda: np.zeros((0, 0)))
    open: list[tuple[float, int, Node]] = field(default_factory=list)

    def run(self) -> Iterator[None]:
        """Until no node is open, or the deadline. The conjunction cannot hold where none is open or unresolved."""
        number = itertools.count()
        root = Node.root(self.program, self.forms.triangles)
        self.open = [(-math.inf, next(number), root)]
        while self.open and time.monotonic() < self.deadline:
            if self.done == MIXED_AFTER:
                self._mixed(root)
                yield
            item = heapq.heappop(self.open)
            children = self._visit(item[2])
            if children is None:
                heapq.heappush(self.open, item)
                return
            self.done += 1
            for value, child in children:
                heapq.heappush(self.open, (value, next(number), child))
            yield

    @cached_property
    def forms(self) -> Forms:
        """The programs of the nodes."""
        outputs, rows = self.program.outputs, self.atoms.rows
        offset = outputs.offset[rows] - self.atoms.limit - self.atoms.noise
        objective = Objective(outputs.rows[rows], offset, outputs.size[rows] + np.abs(self.atoms.limit))
        return Forms(self.program, self.program.triangles(), objective)

    @cached_property
    def _near(self) -> float:
        return NEAR * (1.0 + float(self.forms.objective.size.max(initial=0.0)))

    def _visit(self, node: Node) -> list[tuple[float, Node]] | None:
        """Close a node or split it; None where the time is up."""
        self.points = np.zeros((0, self.program.inputs))
        found = self.forms.hard(node, self.deadline)
        if found is None and time.monotonic() < self.deadline:
            found = self.forms.soft(node, self.deadline)
        if time.monotonic() >= self.deadline:
            return None
        if found is not None and self.forms.refutes(node, found):
            return []
        exact = found is not None and not self._missed(found, node).any()
        if found is not None and found.excess <= self._near:
            self._look(found.point, node, exact or self.done < FIRST)
            if exact:
                self.unresolved += 1
                return []
        split = self._choose(node, found)
        if split is None:
            self.unresolved += 1
            return []
        value = -math.inf if found is None else found.excess
        return [(value, node.with_signs(self.program, sign * split)) for sign in (-1, 1)]

    def _missed(self, found: Found, node: Node) -> Array:
        """By how much a point misses each open ReLU, (K,)."""
        program = self.program
        before, after = found.point[program.before], found.point[program.after]
        width = (program.upper - program.lower)[program.before]
        missed = after - np.maximum(before, 0.0)
        return np.where((node.sign == 0) & (missed > EXACT * width), missed, 0.0)

    def _choose(self, node: Node, found: Found | None) -> Signs | None:
        """The open ReLU whose chord costs the bound most, as a unit vector (K,); None where none is open."""
        open_, count = node.sign == 0, len(node.sign)
        if not open_.any():
            return None
        score = np.zeros(count)
        if found is not None:
            score = self._missed(found, node) * 1e-3
            if found.multipliers is not None:
                score = score + found.multipliers.rows[count : 2 * count] * self.forms.triangles.at[count : 2 * count]
        split = np.zeros(count, dtype=np.int8)
        split[np.argmax(np.where(open_, score, -1.0))] = 1
        return split

    def _mixed(self, root: Node) -> None:
        """Points of a mixed-integer program over the whole box."""
        now = time.monotonic()
        left = self.deadline - now
        found = self.forms.mixed(now + MIXED_SHARE * left)
        self.points = np.zeros((0, self.program.inputs))
        if found is not None and found.excess <= self._near:
            self._look(found.point, root, True)

    def _look(self, point: Array, node: Node, move: bool) -> None:
        """Points near that of a relaxation and near the deepest one with the same signs that may satisfy all atoms."""
        program = self.program
        inputs = [point[: program.inputs]]
        if move:
            sign = np.where(program.values(inputs[0])[program.before] > 0, 1, -1)
            deepest = self.forms.hard(Node.root(program, self.forms.triangles).with_signs(program, sign), self.deadline)
            inputs += [] if deepest is None else [deepest.point[: program.inputs]]
        lower, upper = program.lower[: program.inputs], program.upper[: program.inputs]
        points = nearby(np.stack(inputs[::-1]), lower, upper)
        excess = np.array([self._excess(x) for x in points])
        best = np.argsort(excess, kind="stable")[:POINTS]
        self.points = points[best[excess[best] <= self._near]]

    def _excess(self, x: Array) -> float:
        """The largest excess of the atoms at an input (n,)."""
        objective = self.forms.objective
        return float((objective.rows @ self.program.values(x) + objective.offset).max(initial=-math.inf))
