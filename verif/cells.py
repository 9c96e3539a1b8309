"""Cells of piecewise linear networks, in which every pivot has its side: are there points in them?

Shape letters: M pivots, n inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from relaxations import Affine
from relaxations.sets import Box
from verif.pivots import Pivots

_EXACT = 1e-12  # of slopes: by more the forms are not those of one cell
_ROOM = 1e-6  # distance from all sides that a point must have to count as inside


class Cell(NamedTuple):
    """Conditions rows . x + offset >= 0, (M, n) and (M,), with rows of length 1 or 0."""

    rows: Tensor
    offset: Tensor


def cell_of(pivots: Pivots, ranges: tuple[Tensor, Tensor], forward: Mapping[str, Affine], index: int) -> Cell | None:
    """The cell of domain `index` with ranges (M,) of its pivots; None where the values are not linear in it."""
    slopes, biases, sides = [], [], []
    low, high = (end[None] for end in ranges)
    for pivot, lower, upper in pivots.parts(low, high):
        if pivot.value not in forward:
            return None
        below, low_bias, above, high_bias = (tensor[index] for tensor in forward[pivot.value])
        size = 1 + float(below.abs().max())
        if (
            float((below - above).abs().max()) > _EXACT * size
            or float((low_bias - high_bias).abs().max()) > 1e-9 * size
        ):
            return None
        side = (lower[0] >= pivot.at).double() - (upper[0] <= pivot.at).double()
        slopes.append(below.flatten(1).mT)
        biases.append((low_bias - pivot.at).flatten())
        sides.append(side.flatten())
    side = torch.cat(sides)
    rows, offset = torch.cat(slopes) * side[:, None], torch.cat(biases) * side
    length = torch.linalg.vector_norm(rows, dim=1).clamp(min=1e-12)
    return Cell(rows / length[:, None], offset / length)


def inside(cell: Cell, box: Box) -> tuple[bool, Tensor | None]:
    """Whether the cell may have points of the box (1, n), and a point well inside of both where there is one.

    A linear program finds the point with the largest distance from all sides. That there is none counts only if its
    multipliers prove it: the sum of conditions that they make is negative on the whole box.
    """
    from scipy.optimize import linprog

    rows, offset = cell.rows.numpy(), cell.offset.numpy()
    n = rows.shape[1]
    limits = [*zip(box.lower[0].tolist(), box.upper[0].tolist(), strict=True), (None, 1.0)]
    a = np.concatenate([-rows, np.ones((len(rows), 1))], 1)
    found = linprog([*[0.0] * n, -1.0], A_ub=a, b_ub=offset, bounds=limits)
    if found.status != 0:
        return True, None
    if found.x[-1] > _ROOM:
        return True, torch.from_numpy(found.x[:-1])
    weight = torch.from_numpy(-found.ineqlin.marginals).clamp(min=0)
    total = weight @ cell.rows
    most = float(weight @ cell.offset) + float(
        (total.clamp(min=0) * box.upper[0] + total.clamp(max=0) * box.lower[0]).sum()
    )
    ends = box.lower[0].abs().maximum(box.upper[0].abs())
    size = float(weight @ cell.offset.abs()) + float((weight @ cell.rows.abs()) @ ends)
    return not most < -1e-9 * size, None
