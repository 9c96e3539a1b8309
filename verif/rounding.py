"""What floating-point arithmetic may add to bounds: rounded terms of the last sum, and noise from inside the network.

Shape letters: B boxes, S = M atoms, P points, n inputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphs import Graph
from verif.bounds import Pass

TERMS = 128.0  # a float bound counts only beyond this many units in the last place of its terms
NOISE = 64.0  # and beyond this many times the largest error of the network's own values
EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}
JUMPS = {"sign", "floor", "ceil", "round", "trunc", "step", "is_zero", "arg_max", "clarke"}


def jumps(graph: Graph) -> bool:
    """Whether a value may jump: then a rounding error of any size may decide it wrongly."""
    return any(node.op in JUMPS for node in graph)


def of_terms(result: Pass, lower: Tensor, upper: Tensor) -> Tensor:
    """What the last sum may have added to the bounds of boxes (B, n), (B, S)."""
    size = torch.maximum(lower.abs(), upper.abs()).to(result.slopes.dtype)
    terms = (result.slopes.abs() @ size[..., None]).squeeze(-1) + result.bias.abs() + result.lower.abs()
    return torch.nan_to_num(TERMS * EPS[terms.dtype] / 2 * terms, nan=math.inf, posinf=math.inf)


def noise(single: Graph, double: Graph, points: Tensor) -> Tensor:
    """What rounding inside the network may add to float32 bounds of the atoms, (M,) float64; inf where unknown.

    Measured at points (P, n): terms that cancel on their way (1e4 a - 1e4 b) leave no trace in the last sum. A bound
    that is wrong by rounding alone is tight, and a tight bound has the network's own slopes, hence its errors.
    """
    with torch.no_grad():
        (coarse,), (fine,) = single(points.float()), double(points.float().double())
    return torch.nan_to_num(NOISE * (coarse.double() - fine).abs().amax(0), nan=math.inf, posinf=math.inf)
