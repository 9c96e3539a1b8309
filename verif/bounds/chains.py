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


@dataclass(frozen=True)
class ChainPass:
    """Bounds of every output; parts of a box inherit the signs of ReLU inputs that are known in it."""

    sweep: BoxSweep
    rows: Tensor

    @classmethod
    def of(cls, engine: Engine, dtype: torch.dtype) -> ChainPass | None:
        """None where the network is no chain, or the library does not serve."""
        graph = engine.graph
        sweep = BoxSweep.of(graph, dtype, engine.errors)
        return None if sweep is None else cls(sweep, torch.eye(graph[graph.outputs[0]].size, dtype=dtype))

    def nothing(self, boxes: int) -> Tensor:
        """Signs (B, W) of boxes of which none is known."""
        return torch.zeros(boxes, self.sweep.width, dtype=torch.uint8)

    def bound(self, region: Box, signs: Tensor, rounds: Rounds, deadline: float) -> tuple[Pass, Tensor]:
        """A pass (without intervals and relaxations) over boxes of which `signs` (B, W) are known, and what is known
        behind it.
        """
        boxes = Boxes(region.center, region.radius, signs)
        found = self.sweep.run(boxes, self.rows, (rounds.inner, rounds.last), deadline - time.monotonic())
        if not found.complete:
            raise OutOfTime
        return Pass(found.low, found.slopes, found.bias, {}, {}, found.steep), found.signs
