"""VNN-LIB 1.0: one network, variables X_i and Y_j, nested and/or of comparisons of linear or polynomial terms.

Runs of tokens of the common shapes (comparison of two names or numbers, `(and ...)` of those, `(or ...)` of those,
`(assert ...)`, declarations) are replaced by single tokens with array operations; what is left, usually nothing, goes
to a small recursive reader.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verif.errors import PropertyError
from verif.vnnlib.formula import (
    Bools,
    Builder,
    Comparisons,
    Disjunction,
    Formula,
    Ints,
    Polynomial,
    clauses,
    conjunction,
    disjunction,
    minus,
    plus,
    times,
)
from verif.vnnlib.lexer import Kind, Tokens, between, ragged, tokenize

_COMPARE = {Kind.LE: "<=", Kind.GE: ">=", Kind.LT: "<", Kind.GT: ">", Kind.EQ: "==", Kind.NE: "!="}
_IGNORED = {"set-logic", "set-info", "set-option", "check-sat", "get-model", "exit"}


@dataclass(frozen=True)
class File:
    """A file as read: numbers of variables, comparisons of X_i (number i) and Y_j (number inputs + j), the formula."""

    inputs: int
    outputs: int
    products: dict[tuple[int, ...], int]
    comparisons: Comparisons
    formula: Formula


@dataclass(frozen=True)
class _Stream:
    """Tokens after reductions: `at` is the first token; `first` and `count` say what a made one stands for."""

    kind: NDArray[np.uint8]
    at: Ints
    first: Ints
    count: Ints

    def keep(self, mask: NDArray[np.bool_]) -> _Stream:
        return _Stream(self.kind[mask], self.at[mask], self.first[mask], self.count[mask])

    def __len__(self) -> int:
        return len(self.kind)


def parse(text: bytes, file: str) -> File:
    """Read a whole file; `file` is its name in messages. Raises PropertyError with file:line:column."""
    tokens = tokenize(text, file)
    declared, inputs, outputs = _declarations(tokens)
    stream, comparisons = _comparisons(tokens, declared, (inputs, outputs))
    stream, _ = _reduce(stream, Kind.AND, Kind.CLAUSE, Kind.CLAUSE)
    stream, parts = _reduce(stream, Kind.OR, Kind.CLAUSE, Kind.DISJUNCTION)
    stream, asserts = _assertions(stream, parts)
    builder = Builder(inputs + outputs, first=len(comparisons))
    try:
        rest = _Reader(tokens, stream, parts, builder, inputs).commands()
    except RecursionError:
        raise PropertyError("P107", "parentheses are nested too deeply", where=file) from None
    return File(inputs, outputs, builder.products, comparisons.append(builder.table()), conjunction([*asserts, *rest]))


def _declarations(tokens: Tokens) -> tuple[Bools, int, int]:
    """Which tokens belong to declarations `(declare-const X_0 Real)`, and the numbers of inputs and outputs."""
    kind = tokens.kind
    at = np.flatnonzero(kind == Kind.DECLARE)
    fits = (at > 0) & (at + 3 < len(kind))
    inner = at[fits]
    named = (kind[inner + 1] == Kind.INPUT) | (kind[inner + 1] == Kind.OUTPUT)
    fits[fits] = (
        named & (kind[inner - 1] == Kind.OPEN) & (kind[inner + 2] == Kind.REAL) & (kind[inner + 3] == Kind.CLOSE)
    )
    if not fits.all():
        message = "a declaration must read `(declare-const X_0 Real)`, with a name X_<number> or Y_<number>"
        raise tokens.error("P101", message, int(at[~fits][0]))
    counts = [_count(tokens, at[kind[at + 1] == side] + 1) for side in (Kind.INPUT, Kind.OUTPUT)]
    return between(len(kind), at - 1, at + 3), counts[0], counts[1]


def _count(tokens: Tokens, at: Ints) -> int:
    """The number of variables declared by the name tokens `at`; they must be 0, 1, 2, ... in some order."""
    index = tokens.value[at]
    unique, first = np.unique(index, return_index=True)
    if len(unique) != len(index):
        again = at[np.setdiff1d(np.arange(len(at)), first)[0]]
        raise tokens.error("P103", f"variable '{tokens.word(again)}' is declared twice", int(again))
    gap = np.flatnonzero(unique != np.arange(len(unique)))
    if len(gap):
        later = int(at[first[gap[0]]])
        missing = f"{tokens.word(later)[0]}_{gap[0]}"
        raise tokens.error("P102", f"'{tokens.word(later)}' is declared, but '{missing}' is not", later)
    return len(unique)


def _comparisons(tokens: Tokens, declared: Bools, counts: tuple[int, int]) -> tuple[_Stream, Comparisons]:
    """Replace `(<= a b)` and the like, where a and b are names or numbers, by clauses of one comparison."""
    kind = tokens.kind
    for side, count in zip((Kind.INPUT, Kind.OUTPUT), counts, strict=True):
        beyond = np.flatnonzero((kind == side) & (tokens.value >= count))
        if len(beyond):
            name = tokens.word(int(beyond[0]))
            note = f"{count} {'input' if side == Kind.INPUT else 'output'} variables are declared"
            raise tokens.error("P102", f"variable '{name}' is not declared", int(beyond[0]), notes=(note,))
    at = np.flatnonzero((kind >= Kind.LE) & (kind <= Kind.GT))
    at = at[(at > 0) & (at + 3 < len(kind))]
    operands = [(kind[at + k] >= Kind.NUMBER) & (kind[at + k] <= Kind.OUTPUT) for k in (1, 2)]
    at = at[(kind[at - 1] == Kind.OPEN) & operands[0] & operands[1] & (kind[at + 3] == Kind.CLOSE)]
    kept = np.flatnonzero(~(declared | between(len(kind), at, at + 3)))
    made = np.searchsorted(kept, at - 1)
    stream = _Stream(kind[kept], kept, np.zeros(len(kept), np.int64), np.zeros(len(kept), np.int64))
    stream.kind[made], stream.first[made], stream.count[made] = Kind.CLAUSE, np.arange(len(at)), 1
    return stream, _table(tokens, at, counts[0])


def _table(tokens: Tokens, at: Ints, inputs: int) -> Comparisons:
    op = tokens.kind[at]
    sign = np.where((op == Kind.LE) | (op == Kind.LT), 1.0, -1.0)
    sides = np.stack([tokens.kind[at + 1], tokens.kind[at + 2]], 1)
    value = np.stack([tokens.value[at + 1], tokens.value[at + 2]], 1)
    signs = np.stack([sign, -sign], 1)
    variable = sides != Kind.NUMBER
    number = np.where(variable, value, 0).astype(np.int64) + np.where(sides == Kind.OUTPUT, inputs, 0)
    return Comparisons(
        np.concatenate([[0], np.cumsum(variable.sum(1))]),
        number[variable],
        signs[variable],
        np.where(variable, 0.0, signs * value).sum(1),
        (op == Kind.LT) | (op == Kind.GT),
    )


def _reduce(stream: _Stream, head: Kind, item: Kind, made: Kind) -> tuple[_Stream, tuple[Ints, Ints]]:
    """Replace every `( head item ... item )` by one token `made`, standing for the run of its items.

    A clause stands for a run of comparisons (those of neighbouring clauses are neighbours too); anything else for a
    run of the items, whose own runs are returned.
    """
    other = np.flatnonzero(stream.kind != item)
    around = stream.kind[other]
    j = np.flatnonzero(around[1:-1] == head) + 1
    j = j[(around[j - 1] == Kind.OPEN) & (around[j + 1] == Kind.CLOSE)]
    j = j[(other[j] - other[j - 1] == 1) & (other[j + 1] - other[j] > 1)]
    open_, close, start, end = other[j - 1], other[j + 1], other[j] + 1, other[j + 1] - 1
    parts = (stream.first.copy(), stream.count.copy())
    if made == Kind.CLAUSE:
        first, count = parts[0][start], parts[0][end] + parts[1][end] - parts[0][start]
    else:
        first, count = start, end - start + 1
    keep = ~between(len(stream), open_ + 1, close)
    stream.kind[open_], stream.first[open_], stream.count[open_] = made, first, count
    return stream.keep(keep), parts


def _disjunction(parts: tuple[Ints, Ints], first: int, count: int) -> Disjunction:
    starts, sizes = parts[0][first : first + count], parts[1][first : first + count]
    return clauses(ragged(starts, sizes), sizes)


def _assertions(stream: _Stream, parts: tuple[Ints, Ints]) -> tuple[_Stream, list[Formula]]:
    """Take out every `(assert clause)` and `(assert disjunction)`."""
    kind = stream.kind
    at = np.flatnonzero(kind == Kind.ASSERT)
    at = at[(at > 0) & (at + 2 < len(kind))]
    at = at[(kind[at - 1] == Kind.OPEN) & (kind[at + 2] == Kind.CLOSE)]
    simple = at[kind[at + 1] == Kind.CLAUSE] + 1
    several = at[kind[at + 1] == Kind.DISJUNCTION] + 1
    rows = ragged(stream.first[simple], stream.count[simple])
    formulas: list[Formula] = [[clauses(rows, [len(rows)])]] if len(rows) else []
    formulas += [[_disjunction(parts, int(stream.first[i]), int(stream.count[i]))] for i in several]
    done = np.sort(np.concatenate([simple, several]))
    return stream.keep(~between(len(stream), done - 2, done + 1)), formulas


class _Reader:
    """Reads what the array passes left: arithmetic, equalities, deeper nesting, and every mistake."""

    def __init__(
        self, tokens: Tokens, stream: _Stream, parts: tuple[Ints, Ints], builder: Builder, inputs: int
    ) -> None:
        self.tokens, self.stream, self.parts, self.builder, self.inputs = tokens, stream, parts, builder, inputs
        self.kinds = stream.kind.tolist()
        self.position = 0

    def commands(self) -> list[Formula]:
        found = []
        while self.position < len(self.kinds):
            self.expect(Kind.OPEN, "`(`")
            if self.kind() == Kind.WORD and self.word() in _IGNORED:
                while self.kind() not in (Kind.OPEN, Kind.CLOSE):
                    self.position += 1
            else:
                self.expect(Kind.ASSERT, "`assert` or `declare-const`")
                found.append(self.formula())
            self.expect(Kind.CLOSE, "`)`")
        return found

    def formula(self) -> Formula:
        kind, here = self.kind(), self.position
        first, count = (int(self.stream.first[here]), int(self.stream.count[here])) if kind >= 0 else (0, 0)
        if kind == Kind.CLAUSE:
            self.position += 1
            return [clauses(np.arange(first, first + count), [count])]
        if kind == Kind.DISJUNCTION:
            self.position += 1
            return [_disjunction(self.parts, first, count)]
        self.expect(Kind.OPEN, "a formula")
        kind = self.kind()
        if kind not in (Kind.AND, Kind.OR) and kind not in _COMPARE:
            raise self.unexpected("`and`, `or` or a comparison")
        self.position += 1
        if kind in _COMPARE:
            result = self.builder.compare(_COMPARE[Kind(kind)], self.term(), self.term())
        else:
            parts = [self.formula()]
            while self.kind() != Kind.CLOSE:
                parts.append(self.formula())
            result = (conjunction if kind == Kind.AND else disjunction)(parts)
        self.expect(Kind.CLOSE, "`)`")
        return result

    def term(self) -> Polynomial:
        kind, at = self.kind(), int(self.stream.at[min(self.position, len(self.kinds) - 1)])
        value = float(self.tokens.value[at])
        self.position += 1
        if kind == Kind.NUMBER:
            return {(): value}
        if kind in (Kind.INPUT, Kind.OUTPUT):
            return {(int(value) + (self.inputs if kind == Kind.OUTPUT else 0),): 1.0}
        if kind != Kind.OPEN:
            self.position -= 1
            raise self.unexpected("a number, a variable or an arithmetic term")
        op = self.kind()
        if op not in (Kind.PLUS, Kind.MINUS, Kind.TIMES):
            raise self.unexpected("`+`, `-` or `*`")
        self.position += 1
        arguments = [self.term()]
        while self.kind() != Kind.CLOSE:
            arguments.append(self.term())
        self.position += 1
        return combine("+-*"[op - Kind.PLUS], arguments)

    def kind(self) -> int:
        """The next token's kind, -1 at the end."""
        return self.kinds[self.position] if self.position < len(self.kinds) else -1

    def word(self) -> str:
        return self.tokens.word(int(self.stream.at[self.position]))

    def expect(self, kind: Kind, what: str) -> None:
        if self.kind() != kind:
            raise self.unexpected(what)
        self.position += 1

    def unexpected(self, what: str) -> PropertyError:
        if self.kind() < 0:
            return self.tokens.error("P101", f"the file ends where {what} is expected", len(self.tokens))
        made = self.kind() in (Kind.CLAUSE, Kind.DISJUNCTION)
        found = "a formula" if made else f"'{self.word()}'"
        return self.tokens.error("P101", f"expected {what}, found {found}", int(self.stream.at[self.position]))


def combine(op: str, arguments: list[Polynomial]) -> Polynomial:
    """Sum, difference (one argument: negation) or product of polynomials."""
    if op == "*":
        result = arguments[0]
        for factor in arguments[1:]:
            result = times(result, factor)
        return result
    if op == "-" and len(arguments) > 1:
        return plus(arguments[0], *map(minus, arguments[1:]))
    return plus(*arguments) if op == "+" else minus(arguments[0])
