"""Operator norms of Jacobians: of matrices at points, and of all matrices that bounds of sums over entries allow.

A norm from l_p to l_q is written (p, q). Some are maxima of vector norms of rows or columns and exact; the others are
hard to compute even for one matrix, so they have an upper estimate and an ascent for lower ones.
Shape letters: B boxes or points, S rows (outputs), n columns (inputs), G groups of entries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs import Graph, GraphBuilder

_ASCENTS = 8
_SIGNS = 8  # numbers whose signs are all tried


@dataclass(frozen=True)
class OperatorNorm:
    """The norm (p, q), each 1, 2 or inf."""

    p: float
    q: float

    @property
    def by_columns(self) -> bool:
        """Whether groups are columns, (1, q) and (2, 1); else they are rows."""
        return self.p == 1 or (self.p, self.q) == (2, 1)

    @property
    def group(self) -> float:
        """The norm of a group: 1, 2, or inf (of single entries)."""
        if self.p == 1:
            return self.q
        if self.by_columns:
            return 1
        return 1 if self.p == math.inf else 2

    def groups(self, jacobian: Graph) -> Graph:
        """The graph of all groups' sums (G,) of |J| or of J^2, from that of J (S, n)."""
        builder, name = GraphBuilder.extend(jacobian), jacobian.outputs[0]
        rows, columns = jacobian[name].shape
        size = builder.add("square" if self.group == 2 else "abs", [name])
        if self.group == math.inf:
            return builder.build([builder.add("reshape", [size], attrs={"shape": (rows * columns,)})])
        return builder.build([builder.add("sum", [size], attrs={"axes": (0 if self.by_columns else 1,)})])

    def of_groups(self, sums: Tensor) -> Tensor:
        """The least upper bound (B,) of the norm that sums (B, G) allow."""
        size = sums.clamp(min=0)
        size = size.sqrt() if self.group == 2 else size
        if self.p == 1 or self.q == math.inf:
            return size.amax(-1)
        if (self.p, self.q) == (math.inf, 1):
            return size.sum(-1)
        length: Tensor = torch.linalg.vector_norm(size, dim=-1)
        return length

    def of_entries(self, lower: Tensor, upper: Tensor) -> Tensor:
        """An upper bound (B,) of the norms of all matrices between two (B, S, n)."""
        if (self.p, self.q) == (2, 2):
            return spectral(lower, upper)
        size = lower.abs().maximum(upper.abs())
        if self.group == math.inf:
            return size.flatten(1).amax(-1)
        power = size.square() if self.group == 2 else size
        found = self.of_groups(power.sum(1 if self.by_columns else 2))
        return torch.fmin(found, self._centred(lower, upper))

    def _centred(self, lower: Tensor, upper: Tensor) -> Tensor:
        """|C| + |R| for the centre C, tried with all signs where these are few, and the radius R; else inf."""
        unknown = torch.full_like(lower[:, 0, 0], math.inf)
        if self.p == 1 or self.q == math.inf:
            return unknown
        turned = self.p == 2 or (self.q == 1 and lower.shape[1] < lower.shape[2])  # |M|_21 = |M^T|_inf2, |M|_inf1 too
        q = 2 if self.p == 2 else self.q
        low, high = (lower.mT, upper.mT) if turned else (lower, upper)
        if low.shape[2] > _SIGNS:
            return unknown
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=low.dtype)] * low.shape[2]).reshape(
            -1, low.shape[2]
        )
        centre = (low + high) / 2
        radius = (high - centre).maximum(centre - low)
        sizes = torch.linalg.vector_norm(centre @ signs.T, q, dim=1).amax(1)
        spread = torch.linalg.vector_norm(radius.sum(2), q, dim=1)
        total: Tensor = (sizes + spread) * (1 + 64 * low.shape[2] * torch.finfo(low.dtype).eps)
        return total

    def at(self, matrices: Tensor) -> tuple[Tensor, Tensor]:
        """Norms (B,) of matrices (B, S, n) and directions v (B, n) of l_p norm 1 with |M v|_q that large.

        The largest that an ascent finds where the norm is hard to compute.
        """
        if self.p == 1:
            direction = torch.zeros_like(matrices[:, 0])
            best = torch.linalg.vector_norm(matrices, self.q, dim=1).argmax(-1)
            direction.scatter_(1, best[:, None], 1.0)
        elif self.q == math.inf:
            sizes = torch.linalg.vector_norm(matrices, 1 if self.p == math.inf else 2, dim=2)
            rows = matrices[torch.arange(len(matrices)), sizes.argmax(-1)]
            direction = _dual(rows, self.p)
        elif (self.p, self.q) == (2, 2):
            direction = torch.linalg.svd(matrices, full_matrices=False).Vh[:, 0]
        else:
            direction = self._ascent(matrices)
        return torch.linalg.vector_norm((matrices @ direction[..., None])[..., 0], self.q, dim=-1), direction

    def _ascent(self, matrices: Tensor) -> Tensor:
        """v -> the best direction for the dual vector of M v: never falls; from every row as a start, the best."""
        starts = _dual(matrices, self.p).transpose(1, 2)  # (B, n, S)
        for _ in range(_ASCENTS):
            starts = _dual((matrices.mT @ _dual_of(matrices @ starts, self.q)).mT, self.p).mT
        sizes = torch.linalg.vector_norm(matrices @ starts, self.q, dim=1)
        return starts[torch.arange(len(matrices)), :, sizes.argmax(-1)]


def _dual(rows: Tensor, p: float) -> Tensor:
    """Over the last axis: the vector of l_p norm 1 with the largest product."""
    if p == math.inf:
        return torch.where(rows >= 0, 1.0, -1.0).to(rows)
    if p == 2:
        length: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        return rows / length.clamp(min=torch.finfo(rows.dtype).tiny)
    place = rows.abs().argmax(-1, keepdim=True)
    return torch.zeros_like(rows).scatter(-1, place, torch.where(rows.gather(-1, place) >= 0, 1.0, -1.0).to(rows))


def _dual_of(columns: Tensor, q: float) -> Tensor:
    """Over the axis before the last: vectors of dual norm 1 whose product with the column is its l_q norm."""
    return _dual(columns.mT, {1: math.inf, 2: 2, math.inf: 1}[q]).mT


def spectral(lower: Tensor, upper: Tensor) -> Tensor:
    """An upper bound (B,) of the largest singular values of all matrices between two (B, S, n).

    The least of: |C| + |R| for the centre C and the radius R, and |M| for M = max(|lower|, |upper|), where the norm of
    a non-negative matrix is at most max_i (M^T M v)_i / v_i for any v > 0 (Collatz and Wielandt).
    """
    centre = (lower + upper) / 2
    radius = (upper - centre).maximum(centre - lower)
    eps = 64 * max(lower.shape[-2:]) * torch.finfo(lower.dtype).eps
    exact = torch.linalg.matrix_norm(centre, 2) * (1 + eps)
    total: Tensor = torch.minimum(exact + _perron(radius), _perron(lower.abs().maximum(upper.abs()))) * (1 + eps)
    return total


def _perron(size: Tensor) -> Tensor:
    gram = size.mT @ size
    v = torch.ones_like(size[:, 0])
    for _ in range(20):
        v = (gram @ v[..., None])[..., 0]
        v = v / v.amax(-1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
        v = v.clamp(min=1e-9)
    least: Tensor = ((gram @ v[..., None])[..., 0] / v).amax(-1)
    return least.clamp(min=0).sqrt()
