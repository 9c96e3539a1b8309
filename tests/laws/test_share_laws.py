"""Laws of softmax, StableMax and their logarithms on many boxes: any tangent point is sound, and all is finite.

K from 2 to 1000, widths from 1e-7 to 1e4, entries that are tied, masked, or far from all others. The everyday run takes
a sample; `pytest -m long tests/laws/test_share_laws.py` takes more than 100,000 boxes.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphs.ops import OPS
from relaxations import RULES, Call, Interval
from relaxations.lanes import STEEPEST, LaneRelaxation, Side
from relaxations.planes import ordered
from tests.laws.checks import ROUNDING, lines_violation, outside, random_rows, rounding
from tests.laws.table import Input, Row
from verif.carries import top
from verif.planes import planes_of_softmax
from verif.roundoff import UNIT

SHARES = ("softmax", "log_softmax", "stablemax", "log_stablemax")
SIZES = (2, 3, 5, 10, 64, 1000)
KINDS = ("random", "tied", "one-hot", "masked", "equal widths")


def boxes(kind: str, count: int, size: int, random: torch.Generator, dtype: torch.dtype) -> Interval:
    """Boxes of one kind, each of its own width."""

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=torch.float64)

    width = 10 ** (11 * draw(count, 1) - 7)
    centre = torch.randn(count, size, generator=random, dtype=torch.float64) * 10 ** (2 * draw(count, 1) - 0.5)
    each = torch.ones(count, size, dtype=torch.float64) if kind == "equal widths" else draw(count, size)
    if kind == "tied":
        centre, each = centre[:, :1].expand(count, size), each[:, :1].expand(count, size).round(decimals=1)
    if kind == "one-hot":
        place = torch.randint(size, (count, 1), generator=random)
        centre = centre.scatter_add(1, place, 10 ** (4 * draw(count, 1)) * torch.where(draw(count, 1) < 0.8, 1, -1))
    low, high = centre - width * each / 2, centre + width * each / 2
    return ordered(low.to(dtype), high.to(dtype))


def call_of(op: str, kind: str, size: int, random: torch.Generator, dtype: torch.dtype) -> Call:
    """The node; its mask keeps the first entry at least."""
    mask = (torch.rand(size, generator=random, dtype=torch.float64) < 0.6).double()
    mask[0] = 1.0
    params = {"mask": mask} if op == "softmax" and kind == "masked" else {}
    return Row(op, (Input((size,)),), params, {"axis": 0}).call(dtype)


def worst_corner(x: Interval, random: torch.Generator) -> Tensor:
    """One entry at an end, all others at the opposite one: where a share is least or largest."""
    place = torch.randint(x.lower.shape[1], (len(x.lower), 1), generator=random)
    own = torch.zeros_like(x.lower).scatter(1, place, 1.0) > 0
    turned = torch.rand(len(x.lower), 1, generator=random) < 0.5
    return torch.where(own ^ turned, x.upper, x.lower)


def samples(x: Interval, random: torch.Generator) -> list[Tensor]:
    """Points of every box."""
    t = torch.rand(x.lower.shape, generator=random, dtype=torch.float64).to(x.lower)
    points = [x.lower + t * x.width, x.lower + t.round() * x.width, worst_corner(x, random), worst_corner(x, random)]
    return [torch.minimum(torch.maximum(point, x.lower), x.upper) for point in points]


def check(op: str, kind: str, size: int, count: int, dtype: torch.dtype, seed: int = 0) -> int:
    """How many boxes were checked: intervals and planes at the midpoint and at random points, with random rows."""
    random = torch.Generator().manual_seed(seed + 31 * size + len(op) + 7 * KINDS.index(kind))
    call, rule, x = call_of(op, kind, size, random, dtype), RULES[op], boxes(kind, count, size, random, dtype)
    hull = rule.interval(call, [x])
    assert all(end.isfinite().all() for end in hull)
    rows = torch.cat([random_rows(x.lower.shape, random, dtype), _units(x.lower, random)], 1)
    points = samples(x, random)
    wide = {**{name: p.double() for name, p in call.params.items()}, **call.attrs}
    values = [OPS[op].forward(point.double(), **wide) for point in points]
    relaxed = [rule.relax(call, [x]), rule.relax_at(call, [x], samples(x, random)[seed % 4])]  # type: ignore[attr-defined]
    for point, value in zip(points, values, strict=True):
        assert (outside(hull, value) <= rounding(hull, [x])).all()
        for relaxation in relaxed:
            assert lines_violation(relaxation, rows, [point], value) <= ROUNDING[dtype]
    return count


def _units(like: Tensor, random: torch.Generator) -> Tensor:
    """Two unit rows of random sign for every box, (B, 2, K)."""
    place = torch.randint(like.shape[1], (len(like), 2, 1), generator=random)
    sign = torch.where(torch.rand(len(like), 2, 1, generator=random) < 0.5, -1.0, 1.0).to(like)
    return like.new_zeros(len(like), 2, like.shape[1]).scatter(2, place, sign)


@pytest.mark.parametrize("dtype", ROUNDING, ids=["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", SHARES)
def test_shares_of_all_kinds(op: str, kind: str, dtype: torch.dtype) -> None:
    for size in SIZES:
        check(op, kind, size, math.ceil(900 / size), dtype)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "masked"])
def test_what_rounding_does_to_softmax_is_bounded(kind: str) -> None:
    """What proofs of rounding rest on: how steep planes are, and how far those of float32 are on the wrong side."""
    steepest = worst = 0.0
    for size in (2, 3, 10, 64):
        random = torch.Generator().manual_seed(size)
        call, x = call_of("softmax", kind, size, random, torch.float32), boxes(kind, 150, size, random, torch.float32)
        off, _ = planes_of_softmax(call, x, top(x), UNIT[torch.float32])
        for relaxation in (RULES["softmax"].relax(call, [x]),):
            assert isinstance(relaxation, LaneRelaxation)
            for side, sign in ((relaxation.lower, 1), (relaxation.upper, -1)):
                slopes = side.own.abs() + sum(
                    left.abs() * right.abs().sum(-1, keepdim=True) for left, right in side.pairs
                )
                assert (slopes <= STEEPEST).all()
                steepest = max(steepest, float(slopes.max()))
                exact = Side.of_parts(*(part.double() for part in side.parts()))
                for point in samples(Interval(x.lower.double(), x.upper.double()), random):
                    beyond = sign * (exact.at(point[:, None]) - point.softmax(-1)[:, None])[:, 0]
                    assert (beyond <= off).all()
                    worst = max(worst, float(beyond.max()))
    assert steepest > 0.2
    assert worst > 0  # some are on the wrong side


@pytest.mark.long
@pytest.mark.parametrize("dtype", ROUNDING, ids=["float64", "float32"])
@pytest.mark.parametrize("op", SHARES)
def test_a_hundred_thousand_boxes(op: str, dtype: torch.dtype) -> None:
    per_size = {2: 800, 3: 800, 5: 600, 10: 400, 64: 100, 1000: 8}
    total = sum(
        check(op, kind, size, count, dtype, seed)
        for kind in KINDS
        for size, count in per_size.items()
        for seed in range(1, 11)
    )
    assert total > 100_000
