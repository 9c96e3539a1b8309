"""Passes over the boxes of a search where the network is a chain of linear maps and ReLUs: all layers in one call."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from relaxations.kernels.boxes import Boxes, BoxSweep
from relaxations.sets import Box
from verif.bounds.engine import Engine, OutOfTime, Pass
from verif.bounds.tiles import Rounds

EVERY = 3  # levels of the tree


@dataclass(frozen=True)
class ChainPass:
    """Bounds of every output; parts of a box inherit the signs of ReLU inputs that are known in it."""

    sweep: BoxSweep
    rows: Tensor
    threads: int

    @classmethod
    def of(cls, engine: Engine, dtype: torch.dtype, threads: int) -> ChainPass | None:
        """None where the network is no chain, or the library does not serve."""
        graph = engine.graph
        sweep = BoxSweep.of(graph, dtype, engine.errors)
        return None if sweep is None else cls(sweep, torch.eye(graph[graph.outputs[0]].size, dtype=dtype), threads)

    def bound(self, region: Box, signs: Tensor, rounds: Tensor, deadline: float) -> tuple[Pass, Tensor]:
        """A pass (without intervals and relaxations) with `rounds` (B, 2) over boxes of which `signs` (B, W) are known,
        and what is known behind it.
        """
        boxes = Boxes(region.center, region.radius, signs, rounds)
        found = self.sweep.run(boxes, self.rows, self.threads, deadline - time.monotonic())
        if not found.complete:
            raise OutOfTime
        return Pass(found.low, found.slopes, found.bias, {}, {}, found.steep), found.signs


def rounds_at(depth: Tensor, usual: Rounds) -> Tensor:
    """How many rounds boxes at depth (B,) of the tree get, (B, 2).

    Signs that are found are inherited, so that slopes inside are optimised at every third level only: on ACAS Xu about
    as many boxes as with slopes at every level, in two thirds of the time.
    """
    often, seldom = torch.tensor([usual.inner, usual.last]), torch.tensor([0, usual.last // 2])
    return torch.where((depth % EVERY == 0)[:, None], often, seldom)
