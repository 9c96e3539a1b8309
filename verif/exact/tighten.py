"""Tighter intervals of single neurons by linear programs over all layers before them, each checked (`duals.py`).

Shape letters: V variables, K undecided ReLUs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from relaxations import Interval
from verif.bounds import Pass
from verif.exact.duals import Multipliers, Node, Objective, bound
from verif.exact.forms import Forms
from verif.exact.front import Linear
from verif.exact.matrices import Array, Index
from verif.exact.program import Block, Program, Triangles


def harm(forms: Forms, deadline: float) -> Array | None:
    """What the chord of each undecided ReLU (K,) costs the bound of a conjunction at the root; None without a bound."""
    found = forms.hard(Node.root(forms.program, forms.triangles), deadline)
    if found is None or found.multipliers is None:
        return None
    count = len(forms.program.before)
    return found.multipliers.rows[count : 2 * count] * forms.triangles.at[count : 2 * count]


def tighten(program: Program, chosen: Index, deadline: float) -> Program:
    """The program with tighter bounds in front of the chosen ReLUs (positions among the K), layer by layer."""
    start = 0
    for number, block in enumerate(program.blocks):
        own = chosen[(chosen >= start) & (chosen < start + len(block.before))]
        start += len(block.before)
        if len(own) and time.monotonic() < deadline:
            program = _layer(program, number, program.before[own], deadline)
    return program


def _layer(program: Program, number: int, columns: Index, deadline: float) -> Program:
    """Tighter bounds of variables of one block."""
    part = before(program, number)
    triangles = part.triangles()
    lower, upper = program.lower.copy(), program.upper.copy()
    for column in columns:
        low, high = (_end(part, triangles, int(column), sign, deadline) for sign in (1.0, -1.0))
        lower[column] = np.clip(low, lower[column], upper[column])
        upper[column] = np.clip(-high, lower[column], upper[column])
    after = np.maximum(upper[program.before], 0.0)
    upper[program.after] = np.minimum(upper[program.after], after)
    return replace(program, lower=lower, upper=upper)


def _end(part: Program, triangles: Triangles, column: int, sign: float, deadline: float) -> float:
    """A lower bound of sign * v[column]; -inf where there is none."""
    import scipy.sparse as sparse

    cost = np.zeros(part.size)
    cost[column] = sign
    form = Linear(cost, part.equal, part.equal_at, triangles.rows)
    found = form.solve(triangles.at, part.lower, part.upper, deadline - time.monotonic())
    if found is None or found.rows is None or found.equal is None:
        return -np.inf
    size = np.maximum(np.abs(part.lower[column]), np.abs(part.upper[column]))
    objective = Objective(sparse.csr_array(cost[None]), np.zeros(1), np.array([size]))
    held = Multipliers(np.ones(1), found.equal, found.rows)
    return bound(part, triangles, Node.root(part, triangles), objective, held)


def before(program: Program, number: int) -> Program:
    """The program up to the variables of a block, without its ReLUs."""
    blocks = program.blocks[: number + 1]
    size = int(max(blocks[-1].columns.max(initial=-1), blocks[-1].before.max(initial=-1))) + 1
    equations = sum(len(block.columns) for block in blocks)
    kinks = sum(len(block.before) for block in blocks[:-1])
    none = np.zeros(0, dtype=np.int64)
    last = replace(blocks[-1], before=none, after=none, entries=none)
    return replace(
        program,
        lower=program.lower[:size],
        upper=program.upper[:size],
        blocks=tuple(replace(b, rows=b.rows[:, :size]) for b in (*blocks[:-1], last)),
        equal=program.equal[:equations, :size],
        equal_at=program.equal_at[:equations],
        equal_size=program.equal_size[:equations],
        before=program.before[:kinks],
        after=program.after[:kinks],
    )


def known(program: Program, found: Pass) -> Mapping[str, Interval]:
    """Intervals (1, *N) of the graph's values in front of ReLUs, for `Engine.bound(known=...)`."""
    intervals: dict[str, Interval] = {}
    for block in program.blocks:
        if block.origin:
            held = intervals.get(block.origin, found.intervals[block.origin])
            intervals[block.origin] = _met(held, program, block)
    return intervals


def _met(held: Interval, program: Program, block: Block) -> Interval:
    lower, upper = (end.double().flatten().clone() for end in held)
    entries = torch.from_numpy(block.entries)
    low, high = (torch.from_numpy(end[block.before]) for end in (program.lower, program.upper))
    lower[entries], upper[entries] = lower[entries].maximum(low), upper[entries].minimum(high)
    return Interval(lower.reshape(held.lower.shape), upper.reshape(held.upper.shape))
