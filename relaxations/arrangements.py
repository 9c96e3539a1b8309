"""Where the kinks of several ReLUs of the same few inputs meet inside of a box.

A sum of ReLUs of affine functions z_i = w_i . y + b_i, plus anything affine, is piecewise linear over the cells into
which the hyperplanes z_i = 0 cut a box, so that its least value is attained at a vertex: where r of the hyperplanes
meet and the other k - r coordinates are at an end of the box. There are few of them when y has few coordinates.

A vertex counts as found when an approximate inverse R of its system A has |I - R A| < 1/2 (then A is regular, and
|y - y*| <= |R| |residual| / (1 - |I - R A|), Rump 2010, section 10); systems with a zero row or column have no vertex.
ReLUs of systems that are neither are reported, for others to relax. Norms are maximum norms, their rounding counted.
Shape letters: N boxes, k coordinates, m hyperplanes, r of them, Q choices of r, C corners, V vertices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import torch
from torch import Tensor

UNIT = 2.0**-52  # twice one rounding
TINY = 2.0**-900  # more than all that underflows
LOOSE = 1e-7  # of a box's width, that a vertex may be off by


@dataclass(frozen=True)
class Arrangement:
    """Boxes lower, upper (N, k), each with its own hyperplanes weight @ y + bias = 0, (N, m, k) and (N, m), float64."""

    lower: Tensor
    upper: Tensor
    weight: Tensor
    bias: Tensor

    def vertices(self) -> Vertices:
        """All vertices, and some other points near or inside of the boxes."""
        count, size = self.weight.shape[0], self.lower.shape[1]
        off, ill = self.lower.new_zeros(count), self.bias.new_zeros(self.bias.shape)
        owners, points = [], []
        for chosen, free in self._systems():
            point, error, sure = self._solved(chosen, free)
            lower, upper = self.lower[:, None, None], self.upper[:, None, None]
            outside = (point < lower - error[..., None]) | (point > upper + error[..., None])
            there = ~(outside.any(-1) & sure)
            rough = there & ~(sure & (error <= LOOSE * (upper - lower).amax(-1)))
            of_each = rough.any(-1).double().repeat_interleave(len(free), 1)
            ill.scatter_add_(1, chosen.flatten().expand(count, -1), of_each)
            there &= ~rough
            off = off.maximum(torch.where(there, error, 0.0).amax((1, 2)))
            owners.append(there.nonzero()[:, 0])
            points.append(point[there].reshape(-1, size))
        return Vertices(torch.cat(owners), torch.cat(points), off, ill)

    def _systems(self) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
        """Choices of hyperplanes (Q, r), and the r coordinates that they decide."""
        for r in range(min(self.weight.shape[1:]) + 1):
            which = list(combinations(range(self.weight.shape[1]), r))
            chosen = torch.tensor(which, dtype=torch.int64).reshape(len(which), r)
            for free in combinations(range(self.lower.shape[1]), r):
                yield chosen, free

    def _solved(self, chosen: Tensor, free: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Points (N, Q, C, k), by how much they may be off and whether this is known, each (N, Q, C).

        What is known of a system without a vertex: a point nowhere.
        """
        held = [i for i in range(self.lower.shape[1]) if i not in free]
        ends = torch.stack([self.lower, self.upper], -1)[:, held]  # (N, k - r, 2)
        sides = product((0, 1), repeat=len(held))
        corner = torch.stack([ends[:, list(range(len(held))), list(side)] for side in sides], 1)
        weight, bias = self.weight[:, chosen], self.bias[:, chosen]
        matrix, rest = weight[..., list(free)], weight[..., held]
        right = -bias[..., None] - rest @ corner.mT[:, None]  # (N, Q, r, C)
        terms = bias.abs()[..., None] + rest.abs() @ corner.mT.abs()[:, None]
        inverse, error, regular = _inverse(matrix)
        found = inverse @ right
        residual = (right - matrix @ found).abs() + (len(free) + len(held) + 4) * UNIT * (
            terms + right.abs() + matrix.abs() @ found.abs() + TINY
        )
        norm = inverse.abs().sum(-1).amax(-1) if free else error
        off = (1 + 16 * UNIT) * norm[..., None] * _most(residual) / (1 - error[..., None]).clamp(min=0.5)
        point = right.new_empty(*right.shape[:2], right.shape[3], self.lower.shape[1])
        point[..., list(free)], point[..., held] = found.mT, corner[:, None].expand(-1, len(chosen), -1, -1)
        void = ((matrix == 0).all(-1) | (matrix == 0).all(-2)).any(-1) if free else torch.zeros_like(regular)
        point[void], off[void] = torch.inf, 0.0
        return point, torch.nan_to_num(off, nan=torch.inf), (regular | void)[..., None].expand(off.shape)


@dataclass(frozen=True)
class Vertices:
    """Points (V, k) and the box of each (V,). Every vertex of a box is within off (N,) of one of them, save those that
    need a hyperplane of which ill (N, m) is positive.
    """

    owner: Tensor
    point: Tensor
    off: Tensor
    ill: Tensor


def candidates(coordinates: int, hyperplanes: int) -> int:
    """How many systems `vertices` solves for each box."""
    k, m = coordinates, hyperplanes
    return sum(comb(k, r) * 2 ** (k - r) * comb(m, r) for r in range(min(k, m) + 1))


def _inverse(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Approximate inverses of (N, Q, r, r), bounds of |I - R A| (N, Q), and whether these are below a half."""
    if not matrix.shape[-1]:
        zero = matrix.new_zeros(matrix.shape[:2])
        return matrix, zero, zero == 0
    inverse, _ = torch.linalg.inv_ex(matrix)
    size = matrix.shape[-1]
    gap = (torch.eye(size, dtype=matrix.dtype) - inverse @ matrix).abs()
    gap += (size + 4) * UNIT * (1 + inverse.abs() @ matrix.abs())
    error = gap.sum(-1).amax(-1) * (1 + 16 * UNIT)
    return inverse, error, error < 0.5


def _most(residual: Tensor) -> Tensor:
    """Largest entries (N, Q, C) of (N, Q, r, C); zero where r is."""
    return residual.amax(-2) if residual.shape[-2] else residual.new_zeros(*residual.shape[:2], residual.shape[3])
