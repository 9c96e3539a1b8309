"""Input regions of a formula: bounds of single inputs become boxes, one per disjunct of a disjunction over inputs.

Shape letters: U boxes, D regions, n input numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from verif.errors import PropertyError
from verif.vnnlib.boxes import Bounds, Boxes, exact
from verif.vnnlib.formula import Bools, Disjunction, Floats, Ints, clauses
from verif.vnnlib.lexer import ragged
from verif.vnnlib.source import Source

MAX_PRODUCT = 4096  # boxes made by meeting two disjunctions over inputs; beyond it the smaller one stays as atoms


@dataclass(frozen=True)
class Factor:
    """A disjunction of which each region has its own range of clauses: span (D, 2)."""

    disjunction: Disjunction
    span: Ints


@dataclass(frozen=True)
class Regions:
    """Boxes with their factors, and the comparisons that are left to hold in all of them."""

    boxes: Boxes
    factors: list[Factor]
    common: Ints
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rows:
    """What each comparison is: always true, always false, a bound of an input, an exact one."""

    true: Bools
    false: Bools
    bound: Bools
    exact: Bools

    @classmethod
    def of(cls, source: Source) -> _Rows:
        table = source.comparisons
        satisfied = np.where(table.strict, table.constant < 0, table.constant <= 0)
        constant = table.terms == 0
        first = np.minimum(table.start[:-1], max(len(table.variable) - 1, 0))
        if not len(table.variable):
            nothing = np.zeros(len(table), bool)
            return cls(constant & satisfied, constant & ~satisfied, nothing, nothing)
        bound = (table.terms == 1) & (table.variable[first] < source.inputs)
        return cls(constant & satisfied, constant & ~satisfied, bound, bound & exact(table.coefficient[first]))


def regions(source: Source, position: Ints) -> Regions:
    """Boxes of a property's inputs. Raises PropertyError where an input has no bound."""
    table, rows, common = source.comparisons, _Rows.of(source), source.common
    box = Boxes.unbounded(int(position.max(initial=-1)) + 1)
    bounds = Bounds.of(table, common[rows.bound[common]], position)
    box = box.tightened(np.zeros(len(bounds.position), np.int64), bounds)
    rest = common[~rows.true[common] & ~rows.exact[common]]
    if rows.false[common].any() or box.gap.any():
        return _nothing(box, _contradiction(source, position, box))
    boxes, factors = box, []
    disjunctions = [_cleaned(factor, rows) for factor in source.factors]
    for factor in sorted(disjunctions, key=len, reverse=True):
        split = _split(source, factor, rows, position, box) if rows.bound[factor.rows].any() else None
        if split is None or (len(boxes) > 1 and len(boxes) * len(split.boxes) > MAX_PRODUCT):
            factors.append(Factor(factor, np.tile([[0, len(factor)]], (len(boxes), 1))))
            continue
        left, right = np.divmod(np.arange(len(boxes) * len(split.boxes)), max(len(split.boxes), 1))
        boxes = boxes.take(left).meet(split.boxes.take(right))
        factors = [replace(f, span=f.span[left]) for f in factors]
        factors.append(Factor(split.factors[0].disjunction, split.factors[0].span[right]))
    boxes = _implied(source, position, boxes, rest)
    possible = ~_any(boxes.gap)
    for f in factors:
        possible &= f.span[:, 1] > f.span[:, 0]
    boxes, factors = boxes.take(possible), [replace(f, span=f.span[possible]) for f in factors]
    if not len(boxes):
        return _nothing(box, "the input set is empty: no disjunct can be satisfied")
    _require_bounds(source, position, boxes)
    return Regions(boxes, factors, rest)


def _implied(source: Source, position: Ints, boxes: Boxes, common: Ints) -> Boxes:
    """Bounds of inputs that have none, as linear constraints on several inputs imply them (x <= y and y <= 1).

    Interval propagation; every bound is moved outwards by more than its rounding error, and the constraints stay.
    """
    table, lower, upper = source.comparisons, boxes.lower.copy(), boxes.upper.copy()
    several = [int(row) for row in common if table.terms[row] > 1]
    rows = [row for row in several if (table.variable[slice(*table.start[row : row + 2])] < source.inputs).all()]
    changed = bool(np.isinf(lower).any() or np.isinf(upper).any())
    while changed:
        changed = False
        for row in rows:
            terms = slice(*table.start[row : row + 2])
            at, a = position[table.variable[terms]], table.coefficient[terms]
            least = np.where(a > 0, a * lower[:, at], a * upper[:, at])
            for k in range(len(a)):
                others = np.delete(least, k, 1)
                total = others.sum(1) + table.constant[row]
                slack = 1e-13 * (np.abs(others).sum(1) + abs(table.constant[row])) + 1e-300
                end, bound = (upper, (-total + slack) / a[k]) if a[k] > 0 else (lower, (-total + slack) / a[k])
                new = np.isinf(end[:, at[k]]) & np.isfinite(bound)
                end[new, at[k]] = bound[new]
                changed |= bool(new.any())
    return replace(boxes, lower=lower, upper=upper)


def _any(mask: Bools) -> Bools:
    """Which rows have a true entry."""
    return np.asarray(mask.any(1))


def _nothing(box: Boxes, warning: str) -> Regions:
    none = np.zeros(0, np.int64)
    return Regions(box.take(none), [], none, (warning,))


def _cleaned(factor: Disjunction, rows: _Rows) -> Disjunction:
    """Without clauses that are false and comparisons that are true."""
    owner = np.repeat(np.arange(len(factor)), factor.sizes)
    false = np.bincount(owner[rows.false[factor.rows]], minlength=len(factor)) > 0
    return _chosen(factor, owner, ~false, ~rows.true[factor.rows])


def _chosen(factor: Disjunction, owner: Ints, clause: Bools, row: Bools) -> Disjunction:
    kept = row & clause[owner]
    return clauses(factor.rows[kept], np.bincount(owner[kept], minlength=len(factor))[clause])


def _split(source: Source, factor: Disjunction, rows: _Rows, position: Ints, box: Boxes) -> Regions:
    """One box per different box of the factor's clauses; its clauses keep what is not a bound."""
    owner = np.repeat(np.arange(len(factor)), factor.sizes)
    bound = rows.bound[factor.rows]
    bounds = Bounds.of(source.comparisons, factor.rows[bound], position)
    boxes = box.take(np.zeros(len(factor), np.int64)).tightened(owner[bound], bounds)
    possible = ~_any(boxes.gap)
    left = _chosen(factor, owner, possible, ~rows.exact[factor.rows])
    boxes = boxes.take(possible)
    numbers = np.concatenate([boxes.lower, boxes.upper, boxes.open_lower, boxes.open_upper], 1)
    first, group = _unique_rows(numbers)
    order = np.argsort(group, kind="stable")
    rows_in_order = left.rows[ragged(left.start[order], left.sizes[order])]
    ends = np.cumsum(np.bincount(group, minlength=len(first)))
    span = np.stack([np.concatenate([[0], ends])[:-1], ends], 1).astype(np.int64)
    return Regions(boxes.take(first), [Factor(clauses(rows_in_order, left.sizes[order]), span)], left.rows)


def _unique_rows(numbers: Floats) -> tuple[Ints, Ints]:
    """Indices of the different rows in order of first appearance, and for every row which of them it is."""
    if not len(numbers):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    flat = np.ascontiguousarray(numbers + 0.0).view(np.dtype((np.void, numbers.itemsize * numbers.shape[1])))
    _, first, group = np.unique(flat.reshape(-1), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[group]


def _contradiction(source: Source, position: Ints, box: Boxes) -> str:
    if not box.gap.any():
        return "the input set is empty: a constraint without variables is false"
    at = int(np.flatnonzero(box.gap[0])[0])
    name = source.label(int(np.flatnonzero(position == at)[0]))
    signs = ">" if box.open_lower[0, at] else ">=", "<" if box.open_upper[0, at] else "<="
    low, high = float(box.lower[0, at]), float(box.upper[0, at])
    return f"the input set is empty: {name} {signs[0]} {low!r} and {name} {signs[1]} {high!r}"


def _require_bounds(source: Source, position: Ints, boxes: Boxes) -> None:
    free_below, free_above = _any(np.isinf(boxes.lower).T), _any(np.isinf(boxes.upper).T)
    free = free_below | free_above
    if not bool(free.any()):
        return
    at = int(np.flatnonzero(free)[0])
    name = source.label(int(np.flatnonzero(position == at)[0]))
    which = "lower or upper" if free_below[at] and free_above[at] else "lower" if free_below[at] else "upper"
    raise PropertyError(
        "P106",
        f"the input {name} has no {which} bound",
        where=source.file,
        notes=(f"{int(free.sum())} of {math.prod(free.shape)} inputs lack a bound",),
        help=f"(assert ({'>=' if free_below[at] else '<='} {name} {'-1.0' if free_below[at] else '1.0'}))",
    )
