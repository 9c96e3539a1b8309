"""Input sets: batches of boxes, of balls, and of their intersections. Dual norms live here and nowhere else.

Shape letters: B sets, n input numbers, S rows (or points) per set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Generator, Tensor

from relaxations import kernels


@runtime_checkable
class InputSet(Protocol):
    """A batch of B convex sets of points of n numbers. A batch of one set broadcasts against any batch of rows."""

    def __len__(self) -> int:
        """Number of sets, B."""

    def minimize(self, rows: Tensor, owner: Tensor | None = None) -> Tensor:
        """Lower bound of rows . x over each set: rows (B, S, n) to (B, S); exact for Box and Ball.

        With `owner` (R,), the rows are (R, S, n) and row r is bounded over set owner[r].
        """

    def argmin(self, rows: Tensor) -> Tensor:
        """Points (B, S, n) of the set that minimise rows (B, S, n); exact for Box and Ball, near for Meet."""

    def project(self, points: Tensor) -> Tensor:
        """Points (B, S, n) moved into the set: to the nearest one for Box and Ball, to a near one for Meet."""

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Random points (B, count, n); uniform for Box and Ball."""

    def contains(self, points: Tensor) -> Tensor:
        """Whether points (B, S, n) lie in the set, in the arithmetic of their dtype: bool (B, S); False for NaN."""

    def box(self) -> Box:
        """The smallest known enclosing boxes."""

    def take(self, owner: Tensor) -> Self:
        """The sets at positions `owner` (R,), one per row."""

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Self:
        """The same sets in another precision, rounded outward, or another place."""


@dataclass(frozen=True)
class Box:
    """lower <= x <= upper; each (B, n)."""

    lower: Tensor
    upper: Tensor

    def __len__(self) -> int:
        return self.lower.shape[0]

    @cached_property
    def center(self) -> Tensor:
        """Midpoints (B, n), exact for boxes of width 0."""
        return self.lower + (self.upper - self.lower) / 2

    @cached_property
    def radius(self) -> Tensor:
        """Distance (B, n) from the midpoint to the farther end, so that rounding loses neither."""
        center = self.center
        return torch.maximum(self.upper - center, center - self.lower)

    @property
    def width(self) -> Tensor:
        """upper - lower, (B, n)."""
        return self.upper - self.lower

    def is_empty(self) -> Tensor:
        """Whether some lower end exceeds its upper end: bool (B,)."""
        return ~(self.lower <= self.upper).all(-1)

    def minimize(self, rows: Tensor, owner: Tensor | None = None) -> Tensor:
        """Minimum of rows . x, rows (B, S, n) to (B, S): rows . center - |rows| . radius."""
        center, radius = self.center, self.radius
        if owner is not None and len(self) > 1:
            center, radius = center.index_select(0, owner), radius.index_select(0, owner)
        return kernels.minimize(rows, center, radius)

    def argmin(self, rows: Tensor) -> Tensor:
        """A corner (B, S, n) that minimises rows (B, S, n); the lower end where a row is zero."""
        return torch.where(rows >= 0, self.lower.unsqueeze(1), self.upper.unsqueeze(1))

    def project(self, points: Tensor) -> Tensor:
        """Nearest points of the box, (B, S, n)."""
        return torch.minimum(torch.maximum(points, self.lower.unsqueeze(1)), self.upper.unsqueeze(1))

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Uniform points (B, count, n)."""
        size = (len(self), count, self.lower.shape[1])
        unit = torch.rand(size, generator=generator, dtype=self.lower.dtype, device=self.lower.device)
        return self.project(self.lower.unsqueeze(1) + unit * self.width.unsqueeze(1))

    def contains(self, points: Tensor) -> Tensor:
        """Whether points (B, S, n) lie in the box."""
        return ((self.lower.unsqueeze(1) <= points) & (points <= self.upper.unsqueeze(1))).all(-1)

    def box(self) -> Box:
        """Itself."""
        return self

    def take(self, owner: Tensor) -> Box:
        """The boxes at positions `owner` (R,)."""
        return Box(self.lower.index_select(0, owner), self.upper.index_select(0, owner))

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Box:
        """The same boxes in another precision; the ends are rounded outward."""
        return Box(_round_down(self.lower, dtype).to(device), -_round_down(-self.upper, dtype).to(device))

    def split(self, axis: Tensor, at: Tensor | None = None) -> Box:
        """Cut box b across axis[b] at at[b] (default: the midpoint): 2B boxes, first all lower halves, then all upper.

        axis (B,) int64; at (B,), clamped to the box. The halves share the cutting plane, so nothing is lost.
        """
        column = axis.unsqueeze(1)
        cut = self.center.gather(1, column) if at is None else at.unsqueeze(1)
        cut = torch.minimum(torch.maximum(cut, self.lower.gather(1, column)), self.upper.gather(1, column))
        lower, upper = self.lower.scatter(1, column, cut), self.upper.scatter(1, column, cut)
        return Box(torch.cat([self.lower, lower]), torch.cat([upper, self.upper]))


@dataclass(frozen=True)
class Ball:
    """norm(x - center) <= radius; center (B, n), radius (B,), norm 1, 2 or inf."""

    center: Tensor
    radius: Tensor
    norm: float = float("inf")

    def __post_init__(self) -> None:
        if self.norm not in (1, 2, float("inf")):
            raise ValueError(f"a ball's norm is 1, 2 or inf, not {self.norm}")

    def __len__(self) -> int:
        return self.center.shape[0]

    def minimize(self, rows: Tensor, owner: Tensor | None = None) -> Tensor:
        """Minimum of rows . x, rows (B, S, n) to (B, S): rows . center - radius times the dual norm (Hoelder)."""
        if owner is not None:
            return self.take(owner).minimize(rows)
        if self.norm == float("inf"):
            return kernels.minimize(rows, self.center, self.radius.unsqueeze(1).expand_as(self.center))
        return _dot(rows, self.center) - self.radius.unsqueeze(1) * _norm(rows, _DUAL[self.norm])

    def argmin(self, rows: Tensor) -> Tensor:
        """Points (B, S, n) that minimise rows (B, S, n)."""
        if self.norm == 1:
            place = rows.abs().argmax(-1, keepdim=True)
            step = torch.zeros_like(rows).scatter(-1, place, rows.gather(-1, place).sign())
        elif self.norm == 2:
            top = rows.abs().amax(-1, keepdim=True)
            scaled = rows / torch.where(top > 0, top, torch.ones_like(top))
            step = scaled / _norm(scaled, 2).clamp(min=1).unsqueeze(-1)
        else:
            step = rows.sign()
        return self.center.unsqueeze(1) - self.radius.reshape(-1, 1, 1) * step

    def project(self, points: Tensor) -> Tensor:
        """Nearest points (Euclidean) of the ball, (B, S, n)."""
        center, radius = self.center.unsqueeze(1), self.radius.reshape(-1, 1, 1)
        if self.norm == 1:
            return center + _project_l1(points - center, radius)
        if self.norm == 2:
            length = _norm(points - center, 2).unsqueeze(-1)
            return torch.where(length > radius, center + (points - center) * (radius / length), points)
        return torch.minimum(torch.maximum(points, center - radius), center + radius)

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Uniform points (B, count, n)."""
        batch, n = self.center.shape
        like: dict[str, Any] = {"dtype": self.center.dtype, "device": self.center.device}
        unit = torch.rand(batch, count, n, generator=generator, **like)
        if self.norm == 2:
            unit = torch.randn(batch, count, n, generator=generator, **like)
            share = torch.rand(batch, count, 1, generator=generator, **like).pow(1 / n)
            unit = share * unit / _norm(unit, 2).unsqueeze(-1)
        elif self.norm == 1:  # exponential spacings are uniform on a simplex; the last one is the distance to the rim
            spacing = torch.rand(batch, count, n + 1, generator=generator, **like).clamp(min=1e-30).log().neg()
            unit = (2 * unit - 1).sign() * spacing[..., :-1] / spacing.sum(-1, keepdim=True)
        else:
            unit = 2 * unit - 1
        return self.center.unsqueeze(1) + self.radius.reshape(-1, 1, 1) * unit

    def contains(self, points: Tensor) -> Tensor:
        """Whether points (B, S, n) lie in the ball, up to the rounding of their distance."""
        distance = _norm(points - self.center.unsqueeze(1), self.norm)
        eps = torch.finfo(points.dtype).eps
        slack = eps * (_norm(points, self.norm) + (points.shape[-1] + 2) * distance)
        return distance <= self.radius.unsqueeze(1) + slack

    def box(self) -> Box:
        """The enclosing boxes."""
        reach = self.radius.unsqueeze(1)
        return Box(self.center - reach, self.center + reach)

    def take(self, owner: Tensor) -> Ball:
        """The balls at positions `owner` (R,)."""
        return replace(self, center=self.center.index_select(0, owner), radius=self.radius.index_select(0, owner))

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Ball:
        """The same balls in another precision; the radius grows by what rounding moved the centre, and upward."""
        center = self.center.to(dtype)
        moved = _norm((self.center - center.to(self.center.dtype)), self.norm)
        return Ball(center.to(device), -_round_down(-(self.radius + moved), dtype).to(device), self.norm)


@dataclass(frozen=True)
class Meet:
    """The points that lie in a box and in a ball; one batch size for both."""

    first: Box
    second: Ball

    def __len__(self) -> int:
        return len(self.first)

    def is_empty(self) -> Tensor:
        """Whether box and ball have no common point: bool (B,). The clamped centre is nearest in all three norms."""
        return self.first.is_empty() | ~self.second.contains(self._anchor()).squeeze(1)

    def minimize(self, rows: Tensor, owner: Tensor | None = None) -> Tensor:
        """Lower bound of rows . x, rows (B, S, n) to (B, S): the larger of the two minima."""
        return torch.maximum(self.first.minimize(rows, owner), self.second.minimize(rows, owner))

    def argmin(self, rows: Tensor) -> Tensor:
        """Points (B, S, n) of the set near to the minimisers over the ball."""
        return self.project(self.second.argmin(rows))

    def project(self, points: Tensor) -> Tensor:
        """Points (B, S, n) clamped to the box, then drawn to the ball's centre (clamped, too) as far as needed."""
        points, anchor = self.first.project(points), self._anchor()
        low, high = torch.zeros_like(points[..., :1]), torch.ones_like(points[..., :1])
        inside = self.second.contains(points).unsqueeze(-1)
        for _ in range(0 if bool(inside.all()) else 30):
            middle = (low + high) / 2
            good = self.second.contains(anchor + middle * (points - anchor)).unsqueeze(-1)
            low, high = torch.where(good, middle, low), torch.where(good, high, middle)
        return torch.where(inside, points, self.first.project(anchor + low * (points - anchor)))

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Random points (B, count, n) of the set (not uniform)."""
        return self.project(self.second.sample(count, generator))

    def contains(self, points: Tensor) -> Tensor:
        """Whether points (B, S, n) lie in both."""
        return self.first.contains(points) & self.second.contains(points)

    def box(self) -> Box:
        """The boxes, cut to those around the balls (where both are disjoint the result is empty)."""
        ball = self.second.box()
        return Box(self.first.lower.maximum(ball.lower), self.first.upper.minimum(ball.upper))

    def take(self, owner: Tensor) -> Meet:
        """The sets at positions `owner` (R,)."""
        return Meet(self.first.take(owner), self.second.take(owner))

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Meet:
        """The same sets in another precision, rounded outward."""
        return Meet(self.first.to(dtype, device), self.second.to(dtype, device))

    def split(self, axis: Tensor, at: Tensor | None = None) -> Meet:
        """Cut the boxes as `Box.split` does; each half keeps the ball."""
        first = self.first.split(axis, at)
        return Meet(first, self.second.take(torch.arange(len(self), device=axis.device).repeat(2)))

    def _anchor(self) -> Tensor:
        return self.first.project(self.second.center.unsqueeze(1))


_DUAL = {1: float("inf"), 2: 2, float("inf"): 1}


def _dot(rows: Tensor, points: Tensor) -> Tensor:
    """rows (B, S, n) times points (B, n), to (B, S)."""
    if len(points) == 1:  # one matrix-vector product instead of one per set
        return rows @ points[0]
    return torch.matmul(rows, points.unsqueeze(-1)).squeeze(-1)


def _norm(values: Tensor, norm: float) -> Tensor:
    """Norm over the last axis."""
    length: Tensor = torch.linalg.vector_norm(values, norm, dim=-1)
    return length


def _round_down(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The largest numbers of `dtype` that do not exceed the values (exact where dtype is wider)."""
    near = values.to(dtype)
    return torch.where(near.to(values.dtype) > values, near.nextafter(torch.full_like(near, -torch.inf)), near)


def _project_l1(offset: Tensor, radius: Tensor) -> Tensor:
    """Euclidean projection of offsets (B, S, n) onto the l1 ball (Duchi et al. 2008, figure 1)."""
    size = offset.abs()
    ordered = size.sort(-1, descending=True).values
    excess = ordered.cumsum(-1) - radius
    count = torch.arange(1, size.shape[-1] + 1, device=size.device, dtype=size.dtype)
    last = (ordered * count > excess).sum(-1, keepdim=True).clamp(min=1)
    threshold = (excess.gather(-1, last - 1) / last).clamp(min=0)
    return torch.where(size.sum(-1, keepdim=True) > radius, offset.sign() * (size - threshold).clamp(min=0), offset)
