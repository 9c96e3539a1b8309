"""What a search begins with. Nothing is left out, so that no verdict depends on the tactic, only the time it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

TRIAL, LONGEST = 0.1, 30.0  # share of the time limit, and seconds, after which every tactic gives way to the usual one
USUAL = "usual"

Rounds = tuple[int, int]  # of slope optimisation: for intermediate values, and for the last rows


@dataclass(frozen=True)
class Tactic:
    """`points`: whether descents for counterexamples come before the first bounds (None: as the network's size says).

    `first`: how far the slopes of the first batch are optimised, step by step; `inside`: those of boxes in the tree.
    """

    points: bool | None = None
    first: tuple[Rounds, ...] = ((0, 0), (2, 8), (8, 40))
    inside: Rounds = (2, 4)  # measured on ACAS Xu: fewer rounds make more boxes, more make slower ones


TACTICS = {
    USUAL: Tactic(),
    "points": Tactic(points=True),
    "bounds": Tactic(points=False),
    "slopes": Tactic(first=((8, 40),), inside=(4, 8)),
}


def in_force(name: str, started: float, deadline: float) -> Tactic:
    """The tactic at this moment of a search that began at `started`, both in seconds of time.monotonic()."""
    over = time.monotonic() - started > min(TRIAL * (deadline - started), LONGEST)
    return TACTICS[USUAL if over else name]
