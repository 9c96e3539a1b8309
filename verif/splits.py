"""Parts of one query: its input set halved at some numbers, in every combination.

A halving is of an input number at a place inside its range, or of the input of a ReLU at 0. Each part takes one side,
ends included, of each halving: whatever the halvings are, no point is outside all parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

INPUT = ""  # in place of a node's name: the numbers of the input, one after the other


class Split(NamedTuple):
    """A number of the input of the ReLU `name` (or of INPUT) at its flat position `entry`, halved `at` a value.

    `version` is that of verif, whose names of nodes these are: another one might mean something else.
    """

    name: str
    entry: int
    at: float
    version: str


@dataclass(frozen=True)
class Part:
    """Part `number` of all 2^len(splits); it was made of the question with the key `of`, which may be a larger part."""

    of: str
    number: int
    splits: tuple[Split, ...]

    def __str__(self) -> str:
        return f", part {self.number + 1} of {1 << len(self.splits)}"

    def sides(self) -> list[tuple[Split, bool]]:
        """Its side of each halving: whether it is the upper one."""
        return [(split, bool(self.number >> place & 1)) for place, split in enumerate(self.splits)]


def parts(of: str, splits: Sequence[Split], within: Part | None = None) -> list[Part]:
    """All parts of the question with the key `of`, which may be a part itself."""
    held, first = ((), 0) if within is None else (within.splits, within.number)
    return [Part(of, first | number << len(held), (*held, *splits)) for number in range(1 << len(splits))]
