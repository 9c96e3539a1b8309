"""Formulas as arrays: a table of comparisons, and conjunctions of disjunctions of conjunctions of their row numbers.

Variables are numbered 0..V-1 (all inputs first); a product of variables gets a number of its own from V on. A formula
is a list of disjunctions (its factors), all of which must hold; it is never multiplied out across factors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from verif.errors import PropertyError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Polynomial = dict[tuple[int, ...], float]  # coefficient of each sorted product of variables; () is the constant

MAX_CLAUSES = 1_000_000


@dataclass(frozen=True)
class Comparisons:
    """Row i: sum of coefficient[k] * variable[k] over k in start[i]:start[i+1], + constant[i], <= 0 (strict: < 0)."""

    start: Ints
    variable: Ints
    coefficient: Floats
    constant: Floats
    strict: Bools

    def __len__(self) -> int:
        return len(self.constant)

    @property
    def terms(self) -> Ints:
        """Number of terms of each row."""
        return np.diff(self.start)

    def append(self, other: Comparisons) -> Comparisons:
        """The rows of both, in order."""
        return Comparisons(
            np.concatenate([self.start, self.start[-1] + other.start[1:]]),
            *(
                np.concatenate([getattr(self, name), getattr(other, name)])
                for name in ("variable", "coefficient", "constant", "strict")
            ),
        )


@dataclass(frozen=True)
class Disjunction:
    """At least one clause holds; clause c is the conjunction of rows[start[c]:start[c+1]] of a table of comparisons."""

    rows: Ints
    start: Ints

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def sizes(self) -> Ints:
        """Number of rows of each clause."""
        return np.diff(self.start)


Formula = list[Disjunction]


def clauses(rows: Sequence[int] | Ints, sizes: Sequence[int] | Ints) -> Disjunction:
    """A disjunction from its clauses laid end to end and their lengths."""
    return Disjunction(np.asarray(rows, np.int64), np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))


def conjunction(parts: Iterable[Formula]) -> Formula:
    """All parts hold: the single clauses become one, the true disjunctions stay factors."""
    factors = [factor for part in parts for factor in part]
    single = [factor.rows for factor in factors if len(factor) == 1]
    joined = [clauses(np.concatenate(single), [sum(map(len, single))])] if single else []
    return joined + [factor for factor in factors if len(factor) != 1]


def disjunction(parts: Iterable[Formula]) -> Formula:
    """At least one part holds; only factors inside one part are multiplied out."""
    expanded = [_expand(part) for part in parts]
    if len(expanded) == 1:
        return expanded
    return [
        clauses(np.concatenate([d.rows for d in expanded]), np.concatenate([d.sizes for d in expanded])),
    ]


def _expand(formula: Formula) -> Disjunction:
    total = math.prod(len(factor) for factor in formula)
    if total > MAX_CLAUSES:
        raise PropertyError(
            "P107",
            f"conjunctions of disjunctions inside one `or` multiply to {total} cases",
            notes=(f"at most {MAX_CLAUSES} are expanded",),
            help="write the conjunction as separate asserts: those are never multiplied",
        )
    result = formula[0]
    for factor in formula[1:]:
        left, right = np.divmod(np.arange(len(result) * len(factor)), len(factor))
        pairs = [
            np.concatenate([result.rows[a : a + m], factor.rows[b : b + n]])
            for a, m, b, n in zip(
                result.start[left], result.sizes[left], factor.start[right], factor.sizes[right], strict=True
            )
        ]
        result = clauses(np.concatenate(pairs), [len(p) for p in pairs])
    return result


@dataclass
class Builder:
    """Collects comparisons that are read one at a time; `products` numbers the products of variables."""

    variables: int
    first: int = 0  # rows already in a table that this one will be appended to
    products: dict[tuple[int, ...], int] = field(default_factory=dict)
    start: list[int] = field(default_factory=lambda: [0])
    variable: list[int] = field(default_factory=list)
    coefficient: list[float] = field(default_factory=list)
    constant: list[float] = field(default_factory=list)
    strict: list[bool] = field(default_factory=list)

    def compare(self, op: str, left: Polynomial, right: Polynomial) -> Formula:
        """`left op right` for <=, >=, <, >, = (or ==) and !=."""
        if op in ("<=", "<"):
            return self._single([self._add(plus(left, minus(right)), op == "<")])
        if op in (">=", ">"):
            return self._single([self._add(plus(right, minus(left)), op == ">")])
        strict = op == "!="
        below, above = self._add(plus(left, minus(right)), strict), self._add(plus(right, minus(left)), strict)
        return [clauses([below, above], [1, 1])] if strict else self._single([below, above])

    def table(self) -> Comparisons:
        """What was collected."""
        return Comparisons(
            np.array(self.start, np.int64),
            np.array(self.variable, np.int64),
            np.array(self.coefficient, np.float64),
            np.array(self.constant, np.float64),
            np.array(self.strict, np.bool_),
        )

    def _single(self, rows: list[int]) -> Formula:
        return [clauses(rows, [len(rows)])]

    def _add(self, polynomial: Polynomial, strict: bool) -> int:
        if not all(map(math.isfinite, polynomial.values())):
            raise PropertyError("P101", "a constant is not a finite float64 number")
        for product, coefficient in polynomial.items():
            if product and coefficient:
                self.variable.append(product[0] if len(product) == 1 else self._number(product))
                self.coefficient.append(coefficient)
        self.start.append(len(self.variable))
        self.constant.append(polynomial.get((), 0.0))
        self.strict.append(strict)
        return self.first + len(self.constant) - 1

    def _number(self, product: tuple[int, ...]) -> int:
        return self.products.setdefault(product, self.variables + len(self.products))


def plus(*terms: Polynomial) -> Polynomial:
    """Sum of polynomials."""
    total: Polynomial = {}
    for term in terms:
        for product, coefficient in term.items():
            total[product] = total.get(product, 0.0) + coefficient
    return total


def minus(term: Polynomial) -> Polynomial:
    """The negated polynomial."""
    return {product: -coefficient for product, coefficient in term.items()}


def times(left: Polynomial, right: Polynomial) -> Polynomial:
    """Product of two polynomials."""
    return plus(*({tuple(sorted(p + q)): a * b} for p, a in left.items() for q, b in right.items()))
