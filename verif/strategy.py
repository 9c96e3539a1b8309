"""Which search decides a region that one pass leaves open, and why.

Boxes are cut where inputs are few: everything inside tightens with them. With more inputs the signs of ReLU inputs are
split, thousands of cases a second; and where other ops bend the network, the ranges of any values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from relaxations.sets import Box
from verif.bounds import Engine
from verif.bounds.memory import Ration
from verif.refined import RefinedSearch
from verif.sides import below
from verif.signs import STORE_BYTES, SignSearch
from verif.splits import Part
from verif.tactics import TACTICS, USUAL
from verif.values import ValueSearch

STRATEGIES = ("auto", "boxes", "signs", "values", "exact", "random")
FEW_INPUTS = 24  # that have a width, up to which boxes are cut
SMALL = 512  # numbers in the widest layer up to which one pass of bounds costs less than one descent (measured)


class RegionSearch(Protocol):
    """The search over the rows of one region; see `SignSearch`, `RefinedSearch` and `ValueSearch`."""

    @property
    def done(self) -> int:
        """Sub-problems so far."""

    @property
    def unresolved(self) -> int:
        """Cases that no split can help."""

    @property
    def points(self) -> Tensor:
        """Points (P, n) that are worth a try."""

    @property
    def open(self) -> Sized:
        """The open cases."""

    @property
    def lowest(self) -> float:
        """The lowest bound of an open case beyond its limit."""

    def run(self) -> Iterator[None]:
        """Search until no case is open, or the deadline."""


@dataclass(frozen=True)
class Task:
    """Rows (1, S, M) over one box (1, n); row s is refuted by a bound above limit[s]. `engine` bounds in float64."""

    engine: Engine
    box: Box
    rows: Tensor
    limit: Tensor
    deadline: float
    ration: Ration


@dataclass(frozen=True)
class Strategy:
    """What the user wants: a name of `STRATEGIES`, the seed of random choices, a name of `TACTICS`; and which part of
    the query it is.
    """

    name: str = "auto"
    seed: int = 0
    tactic: str = USUAL
    part: Part | None = None

    def __post_init__(self) -> None:
        for what, names in (("name", STRATEGIES), ("tactic", TACTICS)):
            if getattr(self, what) not in names:
                raise ValueError(f"a strategy's {what} is one of {', '.join(names)}, not '{getattr(self, what)}'")

    def told(self, why: str) -> str:
        """Why a search was chosen, and the tactic where it is not the usual one."""
        aside = "" if self.tactic == USUAL else f"; tactic {self.tactic}"
        return (why or "none: the first bounds and points decided") + aside

    def points_first(self, widest: int) -> bool:
        """Whether descents come before the first bounds, for a network whose widest layer has so many numbers."""
        asked = TACTICS[self.tactic].points
        return self.name == "exact" or (widest > SMALL if asked is None else asked)

    @property
    def chance(self) -> torch.Generator | None:
        """What draws the splits, where they are random."""
        return torch.Generator().manual_seed(self.seed) if self.name == "random" else None

    def search(self, task: Task) -> tuple[RegionSearch | None, str]:
        """The search for one region (None: cut boxes), and why."""
        count, inputs = task.box.lower.shape[1], int((task.box.upper > task.box.lower).sum())
        why = f"{inputs} inputs" if inputs == count else f"{inputs} of {count} inputs vary and"
        if self.name == "boxes":
            return None, "boxes: as asked"
        if self.name in ("auto", "random") and inputs <= FEW_INPUTS:
            return None, f"boxes: {why} are few enough to be cut"
        if self.name != "values" and task.engine.has_signs(task.box):
            asked = "as asked" if self.name == "signs" else f"{why} are too many to be cut, and every kink is a ReLU's"
            return self._signs(task), f"signs: {asked}"
        if self.name == "signs":
            return None, "boxes: this network has other kinks than ReLU's, or no tile sweeps"
        asked = "as asked" if self.name == "values" else f"{why} are too many to be cut, and other ops than ReLU bend"
        return self._values(task), f"values: {asked}"

    def _signs(self, task: Task) -> RegionSearch:
        store = min(STORE_BYTES, task.ration.store_bytes)
        found = SignSearch(task.engine, task.box, task.rows, task.limit, task.deadline, store, chance=self.chance)
        return RefinedSearch(found if self.part is None else below(found, self.part))

    def _values(self, task: Task) -> RegionSearch:
        most = task.ration.boxes
        return ValueSearch(task.engine, task.box, task.rows, task.limit, task.deadline, most, chance=self.chance)
