"""Conditions on expressions: comparisons joined by `&`, `|`, `~` and `implies`. They say what must hold everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from verif.errors import PropertyError

if TYPE_CHECKING:
    from verif.expressions import Space


class Literal(NamedTuple):
    """sign * value[entry] <= 0, or < 0 where strict; `value` is a node of the space's graph, `entry` of it flat."""

    value: str
    entry: int
    sign: int
    strict: bool

    def negated(self) -> Literal:
        """What holds exactly where this does not."""
        return Literal(self.value, self.entry, -self.sign, not self.strict)


@dataclass(frozen=True, eq=False)
class Condition:
    """Every clause holds; a clause holds where one of its literals does."""

    space: Space
    clauses: tuple[tuple[Literal, ...], ...]

    def __and__(self, other: Condition) -> Condition:
        return Condition(self._shared(other), tuple(dict.fromkeys(self.clauses + other.clauses)))

    def __or__(self, other: Condition) -> Condition:
        pairs = product(self.clauses, other.clauses)
        return Condition(self._shared(other), tuple(tuple(dict.fromkeys(a + b)) for a, b in pairs))

    def __invert__(self) -> Condition:
        choices = product(*self.clauses)
        return Condition(self.space, tuple(tuple(one.negated() for one in choice) for choice in choices))

    def implies(self, other: Condition) -> Condition:
        """`other` wherever this holds."""
        return ~self | other

    def __bool__(self) -> bool:
        raise PropertyError(
            "P117",
            "a condition over a box is neither true nor false",
            help="ask verif.prove(condition); join conditions by & | ~, and write (a <= x) & (x <= b)",
        )

    def _shared(self, other: Condition) -> Space:
        if other.space is not self.space:
            raise PropertyError("P117", "these conditions are about different variables")
        return self.space
