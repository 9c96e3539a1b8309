"""Rows bounded by exact minima over patches: where the first layer's ReLUs read few inputs, and many the same.

A triangle is the best relaxation of one ReLU by its own input. The ReLUs of a patch share its inputs y, and the sum of
them that a row asks for has a far larger least value than the sum of their least values: for any slopes s,

    sum_i a_i relu(z_i(y)) - s . y  >=  its least value over the vertices of the patch (relaxations/arrangements.py)

and s . y goes on to the input, where patches that overlap meet. The bound is concave in the slopes of all patches; the
best ones make it that of the patches' convex hulls (Lagrange; for one ReLU, Tjandraatmadja et al. 2020).

Rounding: the pulled rows are off by what limits allow for, and z by the error of its node (`Engine.errors`); what is
computed from them here is counted here. Shape letters: S rows, C ReLUs, n inputs, W patches, K inputs of one,
m of its ReLUs, P points.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations import Relaxation
from relaxations.arrangements import UNIT
from relaxations.scalar.lines import ScalarLines
from relaxations.sets import Box
from verif.bounds import Engine, Pass
from verif.patches import MOST_INPUTS, Narrow, Patch, first_relu, narrow, patches

ROUNDS, STEP, DECAY = 120, 0.1, 0.98  # of the ascent; steps as shares of the slopes that a patch may have
MEMORY = 0.5, 0.9  # of Adam


@dataclass(frozen=True)
class Seen(Relaxation):
    """Lines of ReLUs (1, *N) that note the rows that come by, (1, S, *N), and leave their entries `out` (N,) out."""

    lines: ScalarLines
    out: Tensor
    rows: list[Tensor] = field(default_factory=list)

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """As of the lines."""
        self.rows.append(rows.flatten(2)[0])
        return self.lines.pull(torch.where(self.out.reshape(rows.shape[2:]), 0.0, rows))


@dataclass(frozen=True)
class Sums:
    """What rows are: sums over patches, of values height (S, W, P) at points (W, P, K) of inputs (W, K), and a linear
    rest slopes (S, n) with bias (S,). `steep` (S, W) bounds how fast a sum changes with any input, `off` (W,) by how
    much points may be off, `terms` (S, W) the sizes that heights are sums of and `noise` (S,) what is off already.
    """

    box: Box
    inputs: Tensor
    points: Tensor
    height: Tensor
    slopes: Tensor
    bias: Tensor
    steep: Tensor
    off: Tensor
    terms: Tensor
    noise: Tensor

    def least(self, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The bounds (S,) that slopes (S, W, K) make, their derivative (S, W, K), and the minima by patch (S, W)."""
        low, where = (self.height - torch.einsum("swk,wpk->swp", slopes, self.points)).min(-1)
        total = self._mixed(slopes)
        at = torch.nn.functional.pad(self.box.argmin(total[None])[0], (0, 1))[:, self.inputs]
        point = self.points.expand(len(low), -1, -1, -1)
        at -= point.gather(2, where[..., None, None].expand(-1, -1, 1, point.shape[-1]))[:, :, 0]
        return self.box.minimize(total[None])[0] + low.sum(1) + self.bias, at, low

    def _mixed(self, slopes: Tensor) -> Tensor:
        """The row on the input, (S, n)."""
        room = torch.nn.functional.pad(self.slopes, (0, 1))
        return room.index_add(1, self.inputs.flatten(), slopes.flatten(1))[:, :-1]

    def rounded(self, slopes: Tensor, low: Tensor) -> Tensor:
        """What rounding may have added to bounds by slopes (S, W, K) with minima low (S, W), (S,)."""
        size = self.box.lower.abs().maximum(self.box.upper.abs())[0]
        ends = torch.nn.functional.pad(size, (0, 1))[self.inputs] + self.off[:, None]
        moved = slopes.abs().sum(-1)
        parts = (self.steep + moved) * self.off + UNIT * 64 * (self.terms + (slopes.abs() * ends).sum(-1))
        sums = low.abs().sum(1) + (slopes.abs() * ends).sum((1, 2)) + self.slopes.abs() @ size + self.bias.abs()
        count = self.inputs.numel() + 2 * len(size) + 64
        return self.noise + parts.sum(1) + UNIT * count * sums


@dataclass(frozen=True)
class Asked:
    """Rows (S, M) of the output over one box, a float64 pass over it, and which bounds suffice, target (S,)."""

    engine: Engine
    box: Box
    found: Pass
    rows: Tensor
    target: Tensor
    deadline: float


def lower_bounds(asked: Asked) -> Tensor:
    """Lower bounds (S,) of the rows, rounding counted, raised until they exceed their targets or the time is up; -inf
    where the first layer has no patches.
    """
    made = _sums(asked)
    if made is None:
        return torch.full_like(asked.target, -torch.inf)
    sums, slopes, reach = made
    best = torch.full_like(asked.target, -torch.inf)
    first, second = torch.zeros_like(slopes), torch.zeros_like(slopes)
    for step in range(ROUNDS):
        bound, rise, low = sums.least(slopes)
        best = best.fmax(bound - sums.rounded(slopes, low))
        if bool((best > asked.target).all()) or time.monotonic() > asked.deadline:
            break
        rise = rise * reach  # in shares of what slopes may be
        first, second = first.lerp(rise, 1 - MEMORY[0]), second.lerp(rise**2, 1 - MEMORY[1])
        scale = (1 - MEMORY[1] ** (step + 1)) ** 0.5 / (1 - MEMORY[0] ** (step + 1))
        slopes = slopes + STEP * DECAY**step * reach * scale * first / (second.sqrt() + 1e-30)
    return best


def _sums(asked: Asked) -> tuple[Sums, Tensor, Tensor] | None:
    """The rows' sums over patches, slopes to begin with (S, W, K) and the sizes of all that make sense."""
    at = first_relu(asked.engine.graph)
    lines = asked.found.relaxations.get(at or "")
    if at is None or not isinstance(lines, ScalarLines):
        return None
    held = narrow(asked.engine.graph, at, asked.box, asked.found)
    if held is None:
        return None
    out = torch.zeros(lines.upper_slope[0].numel(), dtype=torch.bool)
    weight = _pulled(asked, at, Seen(lines, out))[1][:, held.entry]
    assert lines.upper_bias is not None
    chord, above = (x.flatten()[held.entry] for x in (lines.upper_slope, lines.upper_bias))
    parts = list(patches(held, asked.box, weight.abs().amax(0) * above))
    if not parts:
        return None
    taken = torch.cat([part.neurons.flatten() for part in parts])
    out[held.entry[taken]] = True
    rest = _pulled(asked, at, Seen(lines, out))[0]
    below = lines.lower_slope.flatten()[held.entry]
    made = [_laid(part, held, weight, torch.where(weight > 0, below, chord)) for part in parts]
    error = asked.engine.errors.get(asked.engine.graph[at].inputs[0])
    noise = torch.zeros_like(asked.target)
    if error is not None:
        noise = weight[:, taken].abs() @ error.flatten()[held.entry[taken]]
    most = max(part.point.shape[1] for part in made)
    point = torch.cat([_wide(part.point, most, 0.0, 1) for part in made])
    height = torch.cat([_wide(part.height, most, math.inf, 2) for part in made], 1)
    inputs = torch.cat([part.inputs for part in made])
    steep, terms, slopes, reach = (
        torch.cat([getattr(part, name) for part in made], 1) for name in ("steep", "terms", "slopes", "reach")
    )
    off = torch.cat([part.vertices.off for part in parts])
    sums = Sums(asked.box, inputs, point, height, rest.slopes[0], rest.bias[0], steep, off, terms, noise)
    return sums, slopes, reach


def _pulled(asked: Asked, at: str, seen: Seen) -> tuple[Pass, Tensor]:
    """The rows on the input, and those that came by node `at` (S, C)."""
    found = asked.engine.again(asked.box, asked.rows, asked.found, {at: seen}, asked.deadline)
    size = asked.engine.graph[at].size
    return found, torch.cat(seen.rows) if seen.rows else asked.rows.new_zeros(len(asked.rows), size)


class _Laid(NamedTuple):
    """Some patches of `Sums`, with slopes to begin with (S, N, K) and the sizes that slopes may have."""

    inputs: Tensor
    point: Tensor
    height: Tensor
    steep: Tensor
    terms: Tensor
    slopes: Tensor
    reach: Tensor


def _laid(patch: Patch, held: Narrow, weight: Tensor, line: Tensor) -> _Laid:
    """Patches with the rows' weights (S, E) and the slopes (S, E) of lines below."""
    owner, point = patch.vertices.owner, patch.vertices.point
    arranged, weight, line = patch.arrangement, weight[:, patch.neurons], line[:, patch.neurons]
    z = torch.einsum("vmk,vk->vm", arranged.weight[owner], point) + arranged.bias[owner]
    height = torch.einsum("svm,vm->sv", weight[:, owner], z.relu())
    count = torch.bincount(owner, minlength=len(patch.neurons))
    order = owner.argsort(stable=True)
    place = torch.arange(len(owner)) - (count.cumsum(0) - count)[owner[order]]
    most = int(count.max())
    points = point.new_zeros(len(count), most, MOST_INPUTS)
    heights = height.new_full((len(height), len(count), most), math.inf)
    points[owner[order], place, : point.shape[1]] = point[order]
    heights[:, owner[order], place] = height[:, order]
    size = arranged.weight.abs()
    ends = arranged.lower.abs().maximum(arranged.upper.abs()) + patch.vertices.off[:, None]
    terms = torch.einsum("nmk,nk->nm", size, ends) + arranged.bias.abs()
    slopes = torch.einsum("snm,nmk->snk", weight * line, arranged.weight)
    reach = torch.einsum("snm,nmk->snk", weight.abs(), size)
    pad = (0, MOST_INPUTS - point.shape[1])
    inputs = held.inputs[patch.neurons[:, 0]]
    steep = reach.sum(-1)
    terms = torch.einsum("snm,nm->sn", weight.abs(), terms)
    return _Laid(inputs, points, heights, steep, terms, *(torch.nn.functional.pad(x, pad) for x in (slopes, reach)))


def _wide(held: Tensor, size: int, value: float, axis: int) -> Tensor:
    """Padded to a size along an axis, the last or the one before (held has 3)."""
    room = size - held.shape[axis]
    return torch.nn.functional.pad(held, (0, room) if axis == 2 else (0, 0, 0, room), value=value)
