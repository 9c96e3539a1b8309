"""Terms of a training loss that bounds of derivatives make: they are differentiable by the constants of the graph.

Shape letters: B boxes, n input numbers. Graphs here have one flat input (n,), and constants that are parameters.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphs import Graph
from graphs.derivatives import jacobian
from relaxations.sets import Box
from verif.bounds import Engine
from verif.jacobians import LocalNorm
from verif.operator_norms import OperatorNorm


def monotonicity_violation(graph: Graph, box: Box, signs: Mapping[int, int], margin: float = 0.0) -> Tensor:
    """By how much an output (1,) may fail to be monotone over boxes, (B,): 0 where the slopes are proved.

    `signs` says for features whether the output must rise (1) or fall (-1); slopes below `margin` count.
    """
    derivative = jacobian(graph)
    size = derivative[derivative.outputs[0]].size
    rows = torch.zeros(len(signs), size, dtype=box.lower.dtype)
    for row, (feature, sign) in zip(rows, signs.items(), strict=True):
        row[feature] = sign
    lower = Engine(derivative).bound(box, rows).lower
    return (margin - lower).clamp(min=0).sum(1)


def lipschitz_bound(graph: Graph, box: Box, norm: OperatorNorm) -> Tensor:
    """An upper bound of the local Lipschitz constant over boxes, (B,) (see `verif.lipschitz`); float64."""
    return LocalNorm(graph, norm).upper(box)[0]
