"""Laws of slabs: every op that keeps them pulls them to what it pulls the same rows to when they are whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from relaxations import Relaxation
from relaxations.lanes import LaneRelaxation
from relaxations.slab_pulls import pull
from relaxations.slabs import Slab
from tests.laws.checks import ROWS, generator, relaxed
from tests.laws.table import Input, Row

BOXES = 3
COUNT = 7
MORE = [
    Row("matmul", (Input((2, 3, 4)), Input((2, 4, 5))), note="heads"),
    Row("softmax", (Input((2, 3, 4)),), attrs={"axis": 2}, note="heads"),
    Row("layer_norm", (Input((2, 3, 4)),), attrs={"axes": (2,), "eps": 1e-3}, note="tokens"),
    Row("linear", (Input((2, 3, 4)),), {"weight": torch.arange(20.0).reshape(5, 4).double() - 9}, note="no-bias"),
    Row("scale", (Input((2, 3)),), {"factor": torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)}, note="last-axis"),
    Row("scale", (Input((2, 3)),), {"factor": torch.tensor(-2.0, dtype=torch.float64)}, note="number"),
    Row("shift", (Input((2, 3)),), {"offset": torch.tensor([[2.0], [-1.0]], dtype=torch.float64)}, note="first-axis"),
    Row("reshape", (Input((1, 4, 6)),), attrs={"shape": (1, 4, 2, 3)}, note="parted"),
    Row("reshape", (Input((1, 4, 2, 3)),), attrs={"shape": (1, 4, 6)}, note="joined"),
    Row("reshape", (Input((4, 6)),), attrs={"shape": (3, 8, 1)}, note="mixed"),
    Row("reshape", (Input((24,)),), attrs={"shape": (1, 4, 6)}, note="flat"),
    Row("transpose", (Input((2, 3, 4)),), attrs={"perm": (1, 2, 0)}, note="turned"),
    Row("concat", (Input((2, 3)), Input((1, 3))), attrs={"axis": 0}, note="of-one"),
    Row("concat", (Input((2, 3)),), {"p": torch.ones(1, 3).double()}, {"axis": 0, "layout": ("p", 0, 0)}, note="twice"),
    Row("scale", (Input((1, 3)),), {"factor": torch.ones(2, 1, dtype=torch.float64)}, note="broadcast"),
    Row("mean", (Input((2, 3, 4)),), attrs={"axes": (1,)}, note="of-tokens"),
    Row("sum", (Input((2, 3, 4)),), attrs={"axes": (0, 2), "keepdims": True}, note="kept"),
]
KEPT = {"linear", "scale", "add", "shift", "sub", "neg", "transpose", "reshape", "concat", "mean", "sum"}
KEPT |= {"matmul", "softmax", "layer_norm", "relu", "mul"}
EVERY = [*ROWS, *MORE]


def slabs(shape: tuple[int, ...], random: torch.Generator) -> list[Slab]:
    """Random rows with two signs, fixed along every choice of long axes."""
    long = [axis for axis, size in enumerate(shape) if size > 1]
    places = {axis: torch.randint(shape[axis], (COUNT,), generator=random) for axis in long}
    found = []
    for choice in range(2 ** len(long)):
        fixed = {axis: places[axis] for bit, axis in enumerate(long) if choice >> bit & 1}
        reduced = [1 if axis in fixed else size for axis, size in enumerate(shape)]
        rows = torch.randn(COUNT, 2, *reduced, generator=random, dtype=torch.float64)
        found.append(Slab(rows, fixed, shape))
    return found


def whole(rows: Slab | Tensor) -> Tensor:
    return rows.dense() if isinstance(rows, Slab) else rows


def same(relaxation: Relaxation, rows: Slab, owner: Tensor | None, taken: Relaxation) -> bool:
    """Whether the op keeps slabs; if so, checks them against whole rows on a relaxation for each row."""
    found = pull(relaxation, rows, owner)
    if found is None:
        return False
    parts, bias = found
    expected, expected_bias = taken.pull(rows.dense())
    torch.testing.assert_close(bias, expected_bias)
    torch.testing.assert_close(tuple(whole(part) for part in parts), expected)
    return True


@pytest.mark.parametrize("row", EVERY, ids=str)
def test_slabs_are_pulled_as_whole_rows_are(row: Row) -> None:
    random = generator(row)
    _, interval, relaxation = relaxed(row, row.boxes(BOXES, 1.0, random, torch.float64))
    if isinstance(relaxation, LaneRelaxation):
        relaxation = replace(relaxation, level=None)  # few whole rows use that shares have the sum 1
    one = relaxation.take(torch.tensor([1]))
    owner = torch.randint(BOXES, (COUNT,), generator=random)
    for rows in slabs(tuple(interval.lower.shape[1:]), random):
        kept = same(relaxation, rows, owner, relaxation.take(owner))
        assert kept == same(relaxation, rows, torch.tensor([1]), one.take(torch.zeros(COUNT, dtype=torch.long)))
        assert kept == same(one, rows, None, one.take(torch.zeros(COUNT, dtype=torch.long)))
    assert kept or row.op not in KEPT or len(rows.fixed) < 2 or str(row) == "matmul-broadcast", "unit rows became whole"


def test_matrix_products_by_midpoints_keep_slabs() -> None:
    random = torch.Generator().manual_seed(0)
    row = MORE[0]
    _, interval, relaxation = relaxed(row, row.boxes(BOXES, 1.0, random, torch.float64))
    relaxation = replace(relaxation, planes=())
    owner = torch.randint(BOXES, (COUNT,), generator=random)
    for rows in slabs(tuple(interval.lower.shape[1:]), random)[1:]:
        assert same(relaxation, rows, owner, relaxation.take(owner))


def test_rows_that_are_not_finite_stay_so() -> None:
    """A NaN or an infinity in a row must not vanish behind a zero of a mask."""
    rows = Slab(torch.full((1, 1, 1, 3), torch.nan), {0: torch.tensor([1])}, (2, 3))
    assert rows.widened([0]).rows.isnan().any() and rows.dense().isnan().any()
