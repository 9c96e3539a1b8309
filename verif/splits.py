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
    """Part `number` of 2^len(splits) of the question with the key `of`."""

    of: str
    number: int
    splits: tuple[Split, ...]

    def __str__(self) -> str:
        return f", part {self.number + 1} of {1 << len(self.splits)}"

    def sides(self) -> list[tuple[Split, bool]]:
        """Its side of each halving: whether it is the upper one."""
        return [(split, bool(self.number >> place & 1)) for place, split in enumerate(self.splits)]


def parts(of: str, splits: Sequence[Split]) -> list[Part]:
    """All parts."""
    return [Part(of, number, tuple(splits)) for number in range(1 << len(splits))]
