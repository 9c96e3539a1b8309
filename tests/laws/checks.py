"""What the laws share: random draws of a row, and comparisons that allow rounding and nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from relaxations import RULES, Affine, Call, Interval, Relaxation, Rule
from tests.laws.table import Row, table

ROWS = table()
WIDTHS = (1e-7, 1e-5, 1e-3, 0.1, 1.0, 10.0, 1e3)
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}  # relative to the sizes of the terms of a sum


def generator(row: Row) -> torch.Generator:
    """The row's own reproducible randomness."""
    return torch.Generator().manual_seed(zlib.crc32(str(row).encode()))


def rule_of(row: Row) -> Rule:
    return RULES[row.op]


def all_boxes(row: Row, count: int, random: torch.Generator, dtype: torch.dtype = torch.float64) -> list[Interval]:
    """`count` boxes of every width, as one batch."""
    draws = [row.boxes(count, width, random, dtype) for width in WIDTHS]
    return [Interval(*(torch.cat(ends) for ends in zip(*boxes, strict=True))) for boxes in zip(*draws, strict=True)]


def random_rows(shape: Sequence[int], random: torch.Generator, dtype: torch.dtype) -> Tensor:
    """(B, 3, *N): dense rows, rows with zeros, and rows of one sign."""
    rows = torch.randn(shape[0], 3, *shape[1:], generator=random, dtype=torch.float64)
    keep = torch.rand(rows[:, 1].shape, generator=random) < 0.4
    rows[:, 1] *= keep
    rows[:, 2] = rows[:, 2].abs() * torch.where(torch.rand(shape[0], generator=random) < 0.5, -1, 1).reshape(
        -1, *[1] * (len(shape) - 1)
    )
    return rows.to(dtype)


def dot(rows: Tensor, x: Tensor) -> Tensor:
    """(B, S, *N) times (B, *N): (B, S); a coefficient of zero ignores infinities."""
    product = rows * x.unsqueeze(1)
    return torch.where(rows == 0, 0, product).reshape(*rows.shape[:2], -1).sum(2)


def lines_violation(relaxation: Relaxation, rows: Tensor, inputs: Sequence[Tensor], output: Tensor) -> float:
    """How far pulled rows exceed rows . output, relative to the sizes of the terms; all in float64.

    A few units in the last place of the inputs are free: they are what an op that subtracts inputs cannot avoid.
    """
    pulled, bias = relaxation.pull(rows)
    largest = torch.stack([x.abs().reshape(len(x), -1).amax(1) for x in inputs]).amax(0).double()
    free = 64 * torch.finfo(rows.dtype).eps * largest.unsqueeze(1) * rows.double().abs().reshape(*bias.shape, -1).sum(2)
    assert not bias.isnan().any() and all(p.isfinite().all() for p in pulled)
    pulled, bias, rows = tuple(p.double() for p in pulled), bias.double(), rows.double()
    claimed, size = bias, bias.abs()
    for p, x in zip(pulled, inputs, strict=True):
        claimed, size = claimed + dot(p, x.double()), size + dot(p.abs(), x.double().abs())
    size = size + dot(rows.abs(), output.abs()) + torch.finfo(torch.float32).tiny
    known = bias > -torch.inf
    return float(torch.where(known, (claimed - dot(rows, output) - free) / size, 0).max())


def rounding(interval: Interval, boxes: Sequence[Interval]) -> Tensor:
    """Slack (B, *N) for rounding: relative to the ends of the interval and to the largest ends of the inputs."""
    dims = interval.lower.dim() - 1
    size = torch.stack([end.abs().flatten(1).amax(1) if end.dim() > 1 else end.abs() for box in boxes for end in box])
    ends = interval.lower.abs().maximum(interval.upper.abs()).nan_to_num(posinf=0.0)
    ends = ends + size.amax(0).nan_to_num(posinf=0.0).reshape(-1, *[1] * dims)
    return (ROUNDING[ends.dtype] * ends + torch.finfo(torch.float32).tiny).double()


def outside(interval: Interval, output: Tensor) -> Tensor:
    """How far values lie outside of their interval."""
    return (interval.lower - output).maximum(output - interval.upper)


def forward64(row: Row, inputs: Sequence[Tensor]) -> Tensor:
    """The op in float64, whatever the precision of its inputs."""
    return row.call().forward(*(x.double() for x in inputs))


def forms(boxes: Sequence[Interval], row: Row, random: torch.Generator) -> Iterator[tuple[Affine, Tensor]]:
    """Per input, random linear bounds in z in [-1, 1]^2 that stay inside its boxes, and a point between them.

    The point belongs to one random z shared by all inputs; inputs that are integers get constant bounds.
    """
    count = boxes[0].lower.shape[0]
    z = (2 * torch.rand(count, 2, generator=random, dtype=torch.float64) - 1).to(boxes[0].lower)
    for box, spec, sample in zip(boxes, row.inputs, row.samples(boxes, random), strict=True):
        centre, radius = (box.lower + box.upper) / 2, box.width / 4
        slopes = [torch.rand(count, 2, *spec.shape, generator=random).to(radius) - 0.5 for _ in range(2)]
        low, high = (slope * radius.unsqueeze(1) * (not spec.integers) for slope in slopes)
        if spec.integers:
            yield Affine(low, box.lower, high, box.upper), z, sample
            continue
        form = Affine(low, centre - radius, high, centre + radius)
        ends = at(form, z)
        t = torch.rand(centre.shape, generator=random).to(centre).round(decimals=1)
        yield form, z, (ends[0] + t * (ends[1] - ends[0])).clamp(*box)


def at(form: Affine, z: Tensor) -> tuple[Tensor, Tensor]:
    """The values of both linear bounds at z (B, K)."""
    weight = z.reshape(*z.shape, *[1] * (form.lower_slope.dim() - 2))
    return (form.lower_slope * weight).sum(1) + form.lower_bias, (form.upper_slope * weight).sum(1) + form.upper_bias


def flat(x: Tensor) -> Tensor:
    """All axes after the first two as one, also where there are none."""
    return x.reshape(*x.shape[:2], -1)


def size_at(form: Affine, z: Tensor) -> Tensor:
    """The size of the terms of both bounds at z."""
    slopes = form.lower_slope.abs() + form.upper_slope.abs()
    return flat(slopes).sum(1).reshape(form.lower_bias.shape) + form.lower_bias.abs() + form.upper_bias.abs()


def relaxed(
    row: Row, boxes: Sequence[Interval], dtype: torch.dtype = torch.float64
) -> tuple[Call, Interval, Relaxation]:
    """Call, interval and relaxation of a row over boxes."""
    call, rule = row.call(dtype), rule_of(row)
    return call, rule.interval(call, boxes), rule.relax(call, boxes)
