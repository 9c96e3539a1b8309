"""Atoms: the different linear expressions of a property, and the graph that computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from verif.query import Variable
from verif.vnnlib.formula import Bools, Comparisons, Floats, Ints
from verif.vnnlib.lexer import ragged


@dataclass(frozen=True)
class AtomTable:
    """Comparison rows[r] is `expression number atom[r] <= threshold[r]` (< where strict).

    Expression m is the sum of coefficient[k] * variable[k] for the k with owner[k] == m; there are `count` of them.
    """

    rows: Ints
    atom: Ints
    threshold: Floats
    strict: Bools
    owner: Ints
    variable: Ints
    coefficient: Floats
    count: int

    def find(self, rows: Ints) -> Ints:
        """Places of comparisons in `rows`."""
        return np.searchsorted(self.rows, rows)


def atom_table(table: Comparisons, rows: Ints) -> AtomTable:
    """Scale the comparisons in `rows` (sorted) so that multiples of one expression coincide, and share them."""
    start, terms = table.start[rows], table.terms[rows]
    at, owner = ragged(start, terms), np.repeat(np.arange(len(rows)), terms)
    variable, coefficient = table.variable[at], table.coefficient[at]
    scale = _scale(coefficient, owner, table.coefficient[start], -table.constant[rows])
    coefficient = coefficient / scale[owner]
    atom, first = _share(terms, variable, coefficient)
    kept = ragged(np.concatenate([[0], np.cumsum(terms)])[first], terms[first])
    return AtomTable(
        rows,
        atom,
        -table.constant[rows] / scale + 0.0,
        table.strict[rows],
        np.repeat(np.arange(len(first)), terms[first]),
        variable[kept],
        coefficient[kept],
        len(first),
    )


def _scale(coefficient: Floats, owner: Ints, first: Floats, threshold: Floats) -> Floats:
    """Positive divisors that round nothing: the first coefficient if all are multiples of it, else a power of two."""
    first = np.abs(first)
    fraction, exponent = np.frexp(first)
    divides = np.fmod(coefficient, first[owner]) == 0
    small = np.abs(coefficient / first[owner]) < 2.0**53
    whole = np.bincount(owner[~(divides & small)], minlength=len(first)) == 0
    whole &= (np.fmod(threshold, first) == 0) & (np.abs(threshold / first) < 2.0**53)
    return np.where(whole | (fraction == 0.5), first, np.ldexp(1.0, exponent - 1))


def _share(terms: Ints, variable: Ints, coefficient: Floats) -> tuple[Ints, Ints]:
    """For every row its number among the different rows, and where each of those first appears."""
    start = np.concatenate([[0], np.cumsum(terms)])
    representative = np.arange(len(terms))
    bits = (coefficient + 0.0).view(np.int64)
    for size in np.unique(terms):
        rows = np.flatnonzero(terms == size)
        at = start[rows][:, None] + np.arange(size)
        both = np.ascontiguousarray(np.concatenate([variable[at], bits[at]], 1))
        keys = both.view(np.dtype((np.void, both.itemsize * both.shape[1]))).reshape(-1)
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        representative[rows] = rows[first][group]
    first, atom = np.unique(representative, return_inverse=True)
    return atom, first


def atoms_graph(variables: Sequence[Variable], products: Mapping[tuple[int, ...], int], atoms: AtomTable) -> Graph:
    """The graph of all expressions: inputs are the variables that they read, the output is (M,), M >= 1.

    Linear terms of each variable are one dense `linear` node; products are `mul` and `square` nodes before another.
    """
    return _Maker(variables, products, atoms).graph()


class _Maker:
    def __init__(
        self, variables: Sequence[Variable], products: Mapping[tuple[int, ...], int], atoms: AtomTable
    ) -> None:
        self.variables, self.atoms, self.builder = variables, atoms, GraphBuilder()
        self.first = np.concatenate([[0], np.cumsum([v.size for v in variables])]).astype(np.int64)
        used = set(np.unique(atoms.variable).tolist())
        self.products = {product: number for product, number in products.items() if number in used}
        read = used | {scalar for product in self.products for scalar in product}
        self.flat = {k: self._flat(v) for k, v in enumerate(variables) if read & set(range(*self.first[k : k + 2]))}

    def graph(self) -> Graph:
        parts = [self._linear(node, self._columns(k)) for k, node in self.flat.items()]
        parts = [part for part in parts if part]
        parts += self._products() if self.products else []
        if not parts:
            last = len(self.variables) - 1
            node = self.flat.get(last) or self._flat(self.variables[last])
            parts = [self._weighted(node, torch.zeros(max(self.atoms.count, 1), self.variables[last].size))]
        total = parts[0]
        for part in parts[1:]:
            total = self.builder.add("add", [total, part])
        return self.builder.build([total])

    def _flat(self, variable: Variable) -> str:
        node = self.builder.input(variable.key, variable.shape, variable.dtype, variable.name)
        if len(variable.shape) == 1:
            return node
        return self.builder.add("reshape", [node], attrs={"shape": (variable.size,)})

    def _columns(self, k: int) -> dict[int, int]:
        return {int(scalar): int(scalar - self.first[k]) for scalar in range(*self.first[k : k + 2])}

    def _linear(self, node: str, columns: Mapping[int, int]) -> str:
        """The terms in the scalars of `columns`, or "" if there are none."""
        atoms, size = self.atoms, self.builder.nodes[node].size
        lookup = np.full(int(max(columns)) + 1, -1, np.int64)
        lookup[list(columns)] = list(columns.values())
        inside = np.flatnonzero(atoms.variable < len(lookup))
        inside = inside[lookup[atoms.variable[inside]] >= 0]
        if not len(inside):
            return ""
        weight = torch.zeros(atoms.count, size, dtype=torch.float64)
        weight[atoms.owner[inside], lookup[atoms.variable[inside]]] = torch.from_numpy(atoms.coefficient[inside])
        return self._weighted(node, weight)

    def _weighted(self, node: str, weight: Tensor) -> str:
        return self.builder.add("linear", [node], {"weight": weight.double()})

    def _products(self) -> list[str]:
        """One node per degree: every product is the one without its last variable times that variable."""
        base, place = self._base()
        degree, vector, parts = 1, base, []
        while degree < max(map(len, self.products)):
            degree += 1
            wanted = sorted({product[:degree] for product in self.products if len(product) >= degree})
            wanted.sort(key=lambda product: not _is_square(product))
            vector = self._multiply(wanted, vector, base, place)
            place |= {product: i for i, product in enumerate(wanted)}
            columns = {self.products[product]: i for i, product in enumerate(wanted) if product in self.products}
            parts.append(self._linear(vector, columns) if columns else "")
        return [part for part in parts if part]

    def _base(self) -> tuple[str, dict[tuple[int, ...], int]]:
        """One vector of all variables that products need, and the place of every scalar in it."""
        scalars = {scalar for product in self.products for scalar in product}
        needed = [k for k in self.flat if scalars & set(range(*self.first[k : k + 2]))]
        place: dict[tuple[int, ...], int] = {}
        for k in needed:
            place |= {(int(scalar),): len(place) + i for i, scalar in enumerate(range(*self.first[k : k + 2]))}
        if len(needed) == 1:
            return self.flat[needed[0]], place
        return self.builder.add("concat", [self.flat[k] for k in needed], attrs={"axis": 0}), place

    def _multiply(
        self, wanted: Sequence[tuple[int, ...]], vector: str, base: str, place: Mapping[tuple[int, ...], int]
    ) -> str:
        squares = sum(map(_is_square, wanted))
        left = torch.tensor([place[product[:-1]] for product in wanted])
        right = torch.tensor([place[product[-1:]] for product in wanted])
        nodes = []
        if squares:
            nodes.append(self.builder.add("square", [self._pick(base, right[:squares])]))
        if squares < len(wanted):
            pair = [self._pick(vector, left[squares:]), self._pick(base, right[squares:])]
            nodes.append(self.builder.add("mul", pair))
        return nodes[0] if len(nodes) == 1 else self.builder.add("concat", nodes, attrs={"axis": 0})

    def _pick(self, node: str, index: Tensor) -> str:
        return self.builder.add("pick", [node], {"index": index})


def _is_square(product: tuple[int, ...]) -> bool:
    return len(product) == 2 and product[0] == product[1]
