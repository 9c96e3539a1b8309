"""The checker's own VNN-LIB 1.0 reader: the unsafe set as boxes with clauses, every number an exact decimal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

from verif.checker.errors import Refused
from verif.checker.model import contents
from verif.checker.network import Array

MOST = 20_000  # conjunctions
DEEPEST = 50
TOKEN = re.compile(r"\s*(?:;[^\n]*|([()]|[^\s();]+))")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
Tree = str | list["Tree"]
Ends = tuple[Fraction | None, Fraction | None]
Linear = dict[tuple[str, int], Fraction]


@dataclass(frozen=True)
class Atom:
    """sum of coefficients * variables + constant <= 0; strictness only matters to exact counterexamples."""

    terms: tuple[tuple[str, int, Fraction], ...]
    constant: Fraction


@dataclass(frozen=True)
class Region:
    """A box, its exact ends and floats around them (n,), and clauses: row . y <= limit for all rows of one clause."""

    exact: tuple[tuple[Fraction, Fraction], ...]
    lower: Array
    upper: Array
    rows: Array
    limits: tuple[Fraction, ...]
    clauses: tuple[tuple[int, ...], ...]

    @cached_property
    def beyond(self) -> Array:
        """Floats that are no less than the limits."""
        return np.array([above(limit) for limit in self.limits])

    def like(self, other: Region) -> bool:
        """Whether both ask for the same rows, of whatever limits."""
        return self is other or (self.clauses == other.clauses and np.array_equal(self.rows, other.rows))


def read(path: Path, inputs: int, outputs: int) -> list[Region]:
    """The regions of a VNN-LIB 1.0 file for a network of `inputs` and `outputs` numbers."""
    try:
        source = contents(path).decode("utf-8")
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise Refused(f"{path.name} could not be read: {error}") from None
    common: list[Atom] = []
    conjunctions: list[tuple[Atom, ...]] = [()]
    for tree in parse(source):
        if not isinstance(tree, list) or not tree:
            raise Refused("a command was expected")
        if tree[0] == "assert" and len(tree) == 2:
            parts = alternatives(tree[1])
            if len(parts) == 1:
                common += parts[0]
                continue
            if len(parts) * len(conjunctions) > MOST:
                raise Refused("more alternatives than the checker takes")
            conjunctions = [(*left, *right) for left in conjunctions for right in parts]
        elif tree[0] != "declare-const" or len(tree) != 3 or tree[2] != "Real":
            raise Refused(f"the command {tree[0]!s:.40} is beyond the checker")
    return _regions(common, conjunctions, inputs, outputs)


def parse(source: str) -> list[Tree]:
    """The expressions in a text."""
    stack: list[list[Tree]] = [[]]
    place = 0
    while place < len(source):
        found = TOKEN.match(source, place)
        if found is None:
            break
        place, token = found.end(), found.group(1)
        if token == "(":
            stack.append([])
            if len(stack) > DEEPEST:
                raise Refused("expressions nested too deeply")
        elif token == ")":
            if len(stack) < 2:
                raise Refused("a parenthesis too many")
            closed = stack.pop()
            stack[-1].append(closed)
        elif token is not None:
            stack[-1].append(token)
    if len(stack) != 1 or source[place:].strip():
        raise Refused("the text ends inside an expression")
    return stack[0]


def alternatives(tree: Tree) -> list[tuple[Atom, ...]]:
    """A formula of and, or, <= and >= as a list of conjunctions."""
    if not isinstance(tree, list) or not tree or not isinstance(tree[0], str):
        raise Refused("a formula was expected")
    head, rest = tree[0], tree[1:]
    if head == "or":
        found = [part for item in rest for part in alternatives(item)]
    elif head == "and":
        found = [()]
        for item in rest:
            parts = alternatives(item)
            if len(parts) * len(found) > MOST:
                raise Refused("more alternatives than the checker takes")
            found = [(*left, *right) for left in found for right in parts]
    elif head in ("<=", ">=") and len(rest) == 2:
        low, high = (linear(rest[0]), linear(rest[1])) if head == "<=" else (linear(rest[1]), linear(rest[0]))
        difference = dict(low)
        for key, value in high.items():
            difference[key] = difference.get(key, Fraction(0)) - value
        constant = difference.pop(("", 0), Fraction(0))
        found = [(Atom(tuple((*key, value) for key, value in difference.items() if value), constant),)]
    else:
        raise Refused(f"the formula {head:.40} is beyond the checker")
    if len(found) > MOST:
        raise Refused("more alternatives than the checker takes")
    return found


def linear(tree: Tree) -> Linear:
    """A variable, a decimal, or a sum, difference or multiple of these; the constant's key is ("", 0)."""
    if isinstance(tree, str):
        variable = re.fullmatch(r"([XY])_(\d{1,9})", tree)
        if variable:
            return {(variable[1], int(variable[2])): Fraction(1)}
        if NUMBER.fullmatch(tree):
            return {("", 0): Fraction(tree)}
        raise Refused(f"'{tree:.40}' is neither X_i, Y_i nor a decimal")
    if len(tree) < 2 or tree[0] not in ("+", "-", "*"):
        raise Refused("an expression beyond the checker")
    parts = [linear(item) for item in tree[1:]]
    if tree[0] == "*":
        scalars = [part for part in parts if set(part) <= {("", 0)}]
        if len(parts) != 2 or not scalars:
            raise Refused("products of variables are beyond the checker")
        factor = scalars[0].get(("", 0), Fraction(0))
        other = parts[1] if parts[0] is scalars[0] else parts[0]
        return {key: factor * value for key, value in other.items()}
    total = dict(parts[0]) if len(parts) > 1 or tree[0] == "+" else {k: -v for k, v in parts[0].items()}
    for part in parts[1:]:
        for key, value in part.items():
            total[key] = total.get(key, Fraction(0)) + (value if tree[0] == "+" else -value)
    return total


def below(value: Fraction) -> float:
    """The largest float64 that is no more than a number."""
    try:
        near = float(value)
    except OverflowError:
        raise Refused("a number beyond float64") from None
    return near if Fraction(near) <= value else math.nextafter(near, -math.inf)


def above(value: Fraction) -> float:
    """The least float64 that is no less than a number."""
    return -below(-value)


def _regions(common: list[Atom], conjunctions: list[tuple[Atom, ...]], inputs: int, outputs: int) -> list[Region]:
    """One region for each box, in the order of the file; boxes without points are left out."""
    ends, shared = _narrowed({}, common, inputs)
    boxes: dict[tuple[tuple[int, Ends], ...], list[list[Atom]]] = {}
    for atoms in conjunctions:
        own, clause = _narrowed(ends, atoms, inputs)
        key = tuple(sorted((index, held) for index, held in own.items() if held != ends.get(index)))
        boxes.setdefault(key, []).append(shared + clause)
    found = []
    for key, clauses in boxes.items():
        whole = {**ends, **dict(key)}
        pairs = (whole.get(index, (None, None)) for index in range(inputs))
        box = tuple((low, high) for low, high in pairs if low is not None and high is not None)
        if len(box) < inputs:
            raise Refused("an input has no bounds")
        if all(low <= high for low, high in box):
            found.append(_region(box, clauses, outputs))
    return found


def _narrowed(known: dict[int, Ends], atoms: Sequence[Atom], inputs: int) -> tuple[dict[int, Ends], list[Atom]]:
    """Ends of inputs that atoms narrow, from those that are known, and the atoms about outputs."""
    ends: dict[int, Ends] = {}
    clause = []
    for atom in atoms:
        kinds = {kind for kind, _, _ in atom.terms}
        if kinds <= {"Y"}:
            clause.append(atom)
        elif kinds == {"X"} and len(atom.terms) == 1:
            ((_, index, factor),) = atom.terms
            if index >= inputs:
                raise Refused("the property names an input that the model does not have")
            value = -atom.constant / factor if abs(factor) != 1 else -atom.constant * factor.numerator
            low, high = ends.get(index) or known.get(index) or (None, None)
            if factor > 0:
                ends[index] = low, value if high is None else min(high, value)
            else:
                ends[index] = value if low is None else max(low, value), high
        else:
            raise Refused("constraints that join inputs to each other or to outputs are beyond the checker")
    return ends, clause


def _region(box: tuple[tuple[Fraction, Fraction], ...], clauses: list[list[Atom]], outputs: int) -> Region:
    rows: dict[tuple[tuple[int, Fraction], ...], int] = {}
    matrix: list[Array] = []
    limits: list[Fraction] = []
    places: list[tuple[int, ...]] = []
    for clause in clauses:
        found = []
        for atom in clause:
            row = np.zeros(outputs)
            for _, index, factor in atom.terms:
                if index >= outputs or Fraction(below(factor)) != factor:
                    raise Refused("an output that the model does not have, or a factor that is no float64")
                row[index] = float(factor)
            key = (*((index, factor) for _, index, factor in atom.terms), (-1, atom.constant))
            if key not in rows:
                rows[key] = len(matrix)
                matrix.append(row)
                limits.append(-atom.constant)
            found.append(rows[key])
        places.append(tuple(found))
    lower, upper = np.array([below(low) for low, _ in box]), np.array([above(high) for _, high in box])
    return Region(box, lower, upper, np.array(matrix).reshape(len(matrix), outputs), tuple(limits), tuple(places))
