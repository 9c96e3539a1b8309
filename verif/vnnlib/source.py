"""What the readers hand to the compiler, brought into one form: equal inputs merged, terms sorted and collected."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from verif.query import Variable
from verif.vnnlib.formula import Comparisons, Formula, Ints
from verif.vnnlib.lexer import ragged


@dataclass(frozen=True)
class Source:
    """Comparisons of numbered scalars (those of `variables` in order, inputs first, then products), and the formula."""

    file: str
    variables: tuple[Variable, ...]
    comparisons: Comparisons
    products: dict[tuple[int, ...], int]
    formula: Formula

    @property
    def inputs(self) -> int:
        """How many scalars are inputs."""
        return sum(v.size for v in self.variables if v.kind == "input")

    @property
    def common(self) -> Ints:
        """The comparisons that hold everywhere: the formula's single clause."""
        single = bool(self.formula) and len(self.formula[0]) == 1
        return self.formula[0].rows if single else np.zeros(0, np.int64)

    @property
    def factors(self) -> Formula:
        """The formula's proper disjunctions."""
        return [factor for factor in self.formula if len(factor) != 1]

    def label(self, scalar: int) -> str:
        """The property's name of a scalar: X_3 (1.0) or X[0,3]."""
        before = 0
        for variable in self.variables:
            if scalar < variable.size:
                if not variable.network:
                    return f"{variable.name}_{before + scalar}"
                index = [int(i) for i in np.unravel_index(scalar, variable.indices)] if variable.indices else []
                return variable.name + (f"[{','.join(map(str, index))}]" if index else "")
            scalar -= variable.size
            before += variable.size if variable.kind == "input" else 0
        raise IndexError(scalar)


def merge_equal_inputs(source: Source) -> tuple[Source, Ints]:
    """Replace inputs that are asserted equal by the first of them; returns also each input's position in z."""
    same = np.arange(source.inputs)
    for left, right in _equal_pairs(source):
        left, right = _root(same, left), _root(same, right)
        same[max(left, right)] = min(left, right)
    same = np.array([_root(same, i) for i in range(len(same))], np.int64) if len(same) else same
    _, position = np.unique(same, return_inverse=True)
    scalars = sum(v.size for v in source.variables)
    rename = np.concatenate([same, np.arange(len(same), scalars + len(source.products))])
    products: dict[tuple[int, ...], int] = {}
    for product, number in source.products.items():
        renamed = tuple(sorted(int(rename[v]) for v in product))
        rename[number] = products.setdefault(renamed, scalars + len(products))
    table = replace(source.comparisons, variable=rename[source.comparisons.variable])
    return replace(source, comparisons=_collect(table), products=products), position


def _equal_pairs(source: Source) -> list[tuple[int, int]]:
    """Inputs a and b of one element type with both a - b <= 0 and b - a <= 0 among the common comparisons."""
    table, rows = source.comparisons, source.common
    rows = rows[(table.terms[rows] == 2) & (table.constant[rows] == 0) & ~table.strict[rows]]
    first = table.start[rows]
    left, right = table.variable[first], table.variable[first + 1]
    opposite = table.coefficient[first] == -table.coefficient[first + 1]
    wanted = opposite & (left != right) & (left < source.inputs) & (right < source.inputs)
    first, left, right = first[wanted], left[wanted], right[wanted]
    swap = table.coefficient[first] < 0
    below = set(zip(np.where(swap, right, left).tolist(), np.where(swap, left, right).tolist(), strict=True))
    dtypes = [v.dtype for v in source.variables if v.kind == "input" for _ in range(v.size)] if below else []
    return sorted((a, b) for a, b in below if a < b and (b, a) in below and dtypes[a] == dtypes[b])


def _root(same: Ints, i: int) -> int:
    while same[i] != i:
        i = int(same[i])
    return i


def _collect(table: Comparisons) -> Comparisons:
    """Sort the terms of every row by variable, add up repeated ones, drop zeros."""
    several = np.flatnonzero(table.terms > 1)
    variable, coefficient = table.variable.copy(), table.coefficient.copy()
    at = ragged(table.start[several], table.terms[several])
    order = at[np.lexsort((variable[at], np.repeat(several, table.terms[several])))]
    variable[at], coefficient[at] = variable[order], coefficient[order]
    row = np.repeat(np.arange(len(table)), table.terms)
    new = np.ones(len(variable), bool)
    new[1:] = (variable[1:] != variable[:-1]) | (row[1:] != row[:-1])
    if not new.all():
        coefficient = np.add.reduceat(coefficient, np.flatnonzero(new))
        variable, row = variable[new], row[new]
    kept = coefficient != 0
    count = np.bincount(row[kept], minlength=len(table))
    return replace(
        table,
        start=np.concatenate([[0], np.cumsum(count)]),
        variable=variable[kept],
        coefficient=coefficient[kept],
    )
