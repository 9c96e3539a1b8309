"""Batches of boxes whose ends may be open, and bounds of single inputs read from comparisons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verif.vnnlib.formula import Bools, Comparisons, Floats, Ints


@dataclass(frozen=True)
class Boxes:
    """lower <= x <= upper, (U, n) each; an open end does not belong to the box."""

    lower: Floats
    upper: Floats
    open_lower: Bools
    open_upper: Bools

    def __len__(self) -> int:
        return len(self.lower)

    @classmethod
    def unbounded(cls, n: int) -> Boxes:
        """One box without bounds."""
        none = np.zeros((1, n), bool)
        return cls(np.full((1, n), -np.inf), np.full((1, n), np.inf), none, none)

    def take(self, index: Ints | Bools) -> Boxes:
        """The boxes at an index."""
        return Boxes(self.lower[index], self.upper[index], self.open_lower[index], self.open_upper[index])

    def meet(self, other: Boxes) -> Boxes:
        """Pairwise intersections."""
        lower, upper = np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper)
        return Boxes(
            lower,
            upper,
            (self.open_lower & (self.lower == lower)) | (other.open_lower & (other.lower == lower)),
            (self.open_upper & (self.upper == upper)) | (other.open_upper & (other.upper == upper)),
        )

    @property
    def gap(self) -> Bools:
        """Where no number fits, (U, n)."""
        touching = (self.lower == self.upper) & (self.open_lower | self.open_upper)
        return np.asarray((self.lower > self.upper) | touching)

    def tightened(self, owner: Ints, bounds: Bounds) -> Boxes:
        """These boxes with bounds added; `owner` says to which box each belongs."""
        lower, upper = self.lower.copy(), self.upper.copy()
        at, below = (owner, bounds.position), bounds.is_upper
        np.minimum.at(upper, (owner[below], bounds.position[below]), bounds.value[below])
        np.maximum.at(lower, (owner[~below], bounds.position[~below]), bounds.value[~below])
        open_lower, open_upper = self.open_lower & (self.lower == lower), self.open_upper & (self.upper == upper)
        strict_upper = bounds.strict & below & (bounds.value == upper[at])
        strict_lower = bounds.strict & ~below & (bounds.value == lower[at])
        open_upper[owner[strict_upper], bounds.position[strict_upper]] = True
        open_lower[owner[strict_lower], bounds.position[strict_lower]] = True
        return Boxes(lower, upper, open_lower, open_upper)


@dataclass(frozen=True)
class Bounds:
    """Comparisons of one input with a constant: position in z, value, side, strictness."""

    position: Ints
    value: Floats
    is_upper: Bools
    strict: Bools

    @classmethod
    def of(cls, table: Comparisons, rows: Ints, position: Ints) -> Bounds:
        """From rows a x + c <= 0. A quotient that is rounded is moved outwards (the row then stays as an atom, too)."""
        first = table.start[rows]
        a, c = table.coefficient[first], table.constant[rows]
        value = -c / a + 0.0
        outwards = np.nextafter(value, np.where(a > 0, np.inf, -np.inf))
        return cls(position[table.variable[first]], np.where(exact(a), value, outwards), a > 0, table.strict[rows])


def exact(coefficient: Floats) -> Bools:
    """Where dividing by a coefficient does not round: powers of two."""
    return np.asarray(np.abs(np.frexp(coefficient)[0]) == 0.5)
