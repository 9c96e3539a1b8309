"""Every version of a kernel against its definition, entry by entry, and its own backward pass against the tape."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from relaxations import kernels
from relaxations.kernels import cpu, library, reference

INF, NAN = math.inf, math.nan
DTYPES = (torch.float32, torch.float64)
needs_native = pytest.mark.skipif(library.native().library is None, reason=library.native().note)
VERSIONS = [
    pytest.param(reference, id="reference"),
    pytest.param(cpu, id="native", marks=needs_native),
    pytest.param(kernels, id="chosen"),
]
if os.environ.get("TRITON_INTERPRET") == "1":  # see test_triton.py
    from relaxations.kernels import gpu

    VERSIONS.append(pytest.param(gpu, id="triton"))
Lines = tuple[Tensor, Tensor | None, Tensor, Tensor | None]


class Case(NamedTuple):
    """Batches of rows and of lines (1: shared), rows, and the shape of an entry."""

    boxes: int
    lines: int
    count: int
    entry: tuple[int, ...]


CASES = [
    Case(1, 1, 1, (1,)),
    Case(2, 2, 3, ()),
    Case(3, 3, 4, (7,)),
    Case(3, 1, 5, (16,)),
    Case(1, 3, 9, (17,)),
    Case(2, 2, 8, (3, 4, 5)),
    Case(1, 1, 6, (513,)),
    Case(5, 5, 13, (97,)),
    Case(2, 2, 0, (5,)),
    Case(2, 2, 3, (0,)),
    Case(0, 0, 3, (4,)),
]


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def made(case: Case, dtype: torch.dtype, biases: str = "both") -> tuple[Tensor, Lines]:
    rows = normal((case.boxes, case.count, *case.entry), 0, dtype)
    rows = torch.where(normal(tuple(rows.shape), 1, dtype) > 1, 0, rows)
    lines = [normal((case.lines, *case.entry), 2 + i, dtype) for i in range(4)]
    lower = lines[1] if biases in ("both", "lower") else None
    upper = lines[3] if biases in ("both", "upper") else None
    return rows, (lines[0], lower, lines[2], upper)


def defined(rows: Tensor, lines: Lines) -> tuple[Tensor, Tensor]:
    """The kernel's definition, one line of each kind per entry, in float64."""
    zero = torch.zeros_like(lines[0])
    low_slope, low_bias, up_slope, up_bias = ((zero if x is None else x).double().unsqueeze(1) for x in lines)
    rows = rows.double()
    negative = rows < 0
    pulled = rows * torch.where(negative, up_slope, low_slope)
    terms = torch.where(rows == 0, 0, rows * torch.where(negative, up_bias, low_bias))
    bias = terms.unsqueeze(2).flatten(2).sum(2)
    return pulled, torch.where(bias.isnan(), -INF, bias)


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    bar = 1e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(found.double(), wanted, rtol=bar, atol=bar, equal_nan=True)
    assert found.dtype == dtype


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biases", ["both", "lower", "upper", "none"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_relax_is_its_definition(version, dtype, biases, case):
    rows, lines = made(case, dtype, biases)
    kept = rows.clone()
    pulled, bias = version.relax(rows, *lines)
    for found, wanted in zip((pulled, bias), defined(rows, lines), strict=True):
        close(found, wanted, dtype)
    assert torch.equal(rows, kept), "the rows were changed"


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "one box repeated": lambda x: x[:1].expand_as(x),
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "every second": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "an offset": lambda x: torch.cat([x[:1], x])[1:],
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", range(5))
def test_layouts(version, layout, which):
    case = Case(3, 3, 6, (4, 5))
    rows, lines = made(case, torch.float32)
    given = [rows, *lines]
    given[which] = LAYOUTS[layout](given[which])
    pulled, bias = version.relax(*given)
    for found, wanted in zip((pulled, bias), defined(given[0], tuple(given[1:])), strict=True):
        close(found, wanted, torch.float32)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("row", "low", "up", "bias"),
    [
        (0.0, -INF, INF, 0.0),  # a zero does not see its bias
        (-0.0, -INF, INF, 0.0),
        (0.0, NAN, NAN, 0.0),
        (1.0, -INF, 0.0, -INF),
        (-1.0, 0.0, INF, -INF),
        (1.0, 0.0, INF, 0.0),  # nor does an entry see the other line's bias
        (-1.0, -INF, 0.0, 0.0),
        (1.0, NAN, 0.0, -INF),
        (NAN, 1.0, 1.0, -INF),
        (NAN, 0.0, 0.0, -INF),
        (INF, 0.0, 0.0, -INF),
        (INF, 1.0, 0.0, INF),
    ],
)
@pytest.mark.parametrize("place", [0, 15, 16, 18])
def test_what_is_not_finite(version, dtype, row, low, up, bias, place):
    size = 19
    rows = torch.zeros(1, 5, size, dtype=dtype)
    rows[0, 3, place] = row
    lower, upper = torch.zeros(1, size, dtype=dtype), torch.zeros(1, size, dtype=dtype)
    lower[0, place], upper[0, place] = low, up
    slope = torch.ones_like(lower)
    pulled, found = version.relax(rows, slope, lower, slope, upper)
    torch.testing.assert_close(pulled, rows, equal_nan=True)
    wanted = torch.zeros(1, 5, dtype=dtype)
    wanted[0, 3] = bias
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("version", VERSIONS)
def test_infinities_that_cancel_are_unknown(version):
    rows = torch.tensor([[[1.0, -1.0, 2.0]]])
    slope, lower, upper = torch.zeros(1, 3), torch.tensor([[INF, 0.0, 1.0]]), torch.tensor([[0.0, INF, 1.0]])
    assert version.relax(rows, slope, lower, slope, upper)[1].item() == -INF


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("lines", ["none", "upper"])
def test_a_nan_in_a_row_stays_where_no_bias_sees_it(version, lines):
    for place in range(37):
        rows, lines_of = made(Case(1, 1, 5, (37,)), torch.float32, lines)
        rows[0, 2, place] = NAN
        pulled, bias = version.relax(rows, *lines_of)
        assert pulled.isnan().nonzero().tolist() == [[0, 2, place]]
        assert (bias[0] == -INF).tolist() == [False, False, lines == "upper", False, False]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [c for c in CASES if len(c.entry) == 1], ids=str)
def test_minimize_is_its_definition(version, dtype, case):
    rows, (center, _, radius, _) = made(case, dtype)
    radius = radius.abs()
    wanted = (rows.double() * center.double().unsqueeze(1)).sum(2) - (
        rows.double().abs() * radius.double().unsqueeze(1)
    ).sum(2)
    close(version.minimize(rows, center, radius), wanted, dtype)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("bad", [NAN, INF])
def test_minimize_keeps_what_is_not_finite(version, bad):
    for place in range(37):
        rows = torch.ones(1, 5, 37)
        rows[0, 2, place] = bad
        found = version.minimize(rows, torch.ones(1, 37), torch.ones(1, 37))
        assert found.isnan().nonzero().tolist() == [[0, 2]]


@needs_native
@pytest.mark.parametrize("count", [1, 1000])
def test_threads_change_nothing(count):
    rows, lines = made(Case(1, 1, count, (700,)), torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append((*cpu.relax(rows, *lines), cpu.minimize(rows, lines[0], lines[2])))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@needs_native
def test_native_leaves_to_torch_what_it_does_not_do():
    rows, lines = made(Case(1, 1, 2, (3,)), torch.float32)
    assert cpu.relax(rows.half(), *(x.half() for x in lines)) is None
    assert cpu.relax(rows.double(), *lines) is None
    assert cpu.relax(rows.to("meta"), *(x.to("meta") for x in lines)) is None
    wrong = [x.expand(4, 3) for x in lines]
    assert cpu.relax(rows.expand(3, 2, 3), *wrong) is None


GRADIENTS = [pytest.param(cpu.gradient, id="native", marks=needs_native), pytest.param(reference.gradient, id="torch")]


@pytest.mark.parametrize("biases", ["both", "lower", "upper", "none"])
@pytest.mark.parametrize("case", [c for c in CASES if 0 < c.boxes * c.count < 60], ids=str)
def test_gradients_are_those_of_the_tape(biases, case):
    rows, lines = made(case, torch.float64, biases)
    rows = torch.where(rows == 0, 0.5, rows)
    inputs = [x if x is None else x.detach().requires_grad_() for x in (rows, *lines)]
    found, wanted = ([*version.relax(*inputs)] for version in (kernels, reference))
    weights = [normal(tuple(x.shape), 7, torch.float64) for x in found]
    asked = [x for x in inputs if x is not None]
    got, want = (
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(out, weights, strict=True)), asked, allow_unused=True)
        for out in (found, wanted)
    )
    for x, a, b in zip(asked, got, want, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(x) if b is None else b)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradient_with_zeros_and_infinite_biases(gradient):
    rows = torch.tensor([[[0.0, 2.0, -3.0], [0.0, 0.0, -1.0]]])
    lower, upper = torch.tensor([[-INF, 1.0, 5.0]]), torch.tensor([[INF, 7.0, INF]])
    low_slope, up_slope = torch.tensor([[2.0, 3.0, 4.0]]), torch.tensor([[5.0, 6.0, 7.0]])
    g, h = torch.ones_like(rows), torch.tensor([[1.0, 10.0]])
    out, sums = gradient(rows, (low_slope, lower, up_slope, upper), (g, h), [True, True, False, True])
    assert out.tolist() == [[[2.0, 4.0, 7.0], [2.0, 13.0, 7.0]]]
    assert [None if x is None else x.flatten().tolist() for x in sums] == [[0, 2, 0], [0, 2, 0], None, [0, 0, -13]]


def test_gradcheck():
    rows, lines = made(Case(2, 1, 3, (4,)), torch.float64)
    rows = torch.where(rows == 0, 0.5, rows)
    inputs = [x.detach().requires_grad_() for x in (rows, *lines)]
    assert torch.autograd.gradcheck(kernels.relax, inputs)
    assert torch.autograd.gradcheck(kernels.minimize, [inputs[0], inputs[1], inputs[3]])


def test_only_what_needs_a_gradient_gets_one():
    rows, lines = made(Case(2, 2, 3, (4,)), torch.float32)
    slope = lines[0].clone().requires_grad_()
    pulled, bias = kernels.relax(rows, slope, *lines[1:])
    (pulled.sum() + bias.sum()).backward()
    torch.testing.assert_close(slope.grad, rows.clamp(min=0).sum(1))
    assert rows.grad is None
    with torch.no_grad():
        assert not kernels.relax(rows, slope, *lines[1:])[0].requires_grad
