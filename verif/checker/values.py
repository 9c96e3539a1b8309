"""What the checker's reader knows of a model's values and nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from verif.checker.errors import Refused

Array = np.ndarray[Any, Any]
DENSE_LIMIT = 40_000_000  # numbers in one matrix or value


@dataclass(frozen=True)
class Value:
    """A value of the model: a constant array, or the place of a step with the shape (batch included) it stands for."""

    shape: tuple[int, ...]
    constant: Array | None = None
    step: int = -1


@dataclass
class Node:
    """One node: its op, inputs by name and attributes."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]

    def ints(self, name: str, default: list[int]) -> list[int]:
        """An attribute of integers."""
        found = self.attributes.get(name, default)
        return found if isinstance(found, list) else [found]

    def int(self, name: str, default: int) -> int:
        """An attribute of one integer."""
        return int(self.ints(name, [default])[0])


def count(shape: tuple[int, ...]) -> int:
    """Numbers in an array of this shape."""
    total = 1
    for size in shape:
        total *= size
    if not 0 < total <= DENSE_LIMIT:
        raise Refused("a value without numbers, or larger than the checker takes")
    return total
