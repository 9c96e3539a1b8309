"""Passes over pairs of ends: the native versions against torch on every layout; the chord against exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from relaxations.kernels import library, pairs

DTYPES = (torch.float32, torch.float64)
LAYOUTS = {
    "rows": lambda x: x.contiguous(),
    "channels last": lambda x: x.movedim(1, 3).contiguous().movedim(3, 1),
    "with gaps": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "mixed": None,
}
CALLS = {
    "split": (pairs.split, 2),
    "join": (lambda a, b: pairs.join(a.clone(), b.clone(), 0.5), 2),
    "total": (pairs.total, 2),
    "add_signed": (lambda a, b, c: (pairs.add_signed(a.clone(), b, c),), 3),
    "chord": (lambda a, b: pairs.chord(a, a + b.abs())[:3], 2),
    "chord_gradient": (lambda a, b, c, d: pairs.chord_gradient(a, a + b.abs(), c, d), 4),
}
needs_native = pytest.mark.skipif(library.native().library is None, reason=library.native().note)


def given(count: int, layout: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """Tensors (3, 5, 4, 7) with zeros among them; `mixed`: each of another layout."""
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(3, 5, 4, 7, generator=draw, dtype=torch.float64).to(dtype) for _ in range(count)]
    tensors[-1][0] = 0
    kinds = [name for name in LAYOUTS if name != "mixed"] if layout == "mixed" else [layout]
    return [LAYOUTS[kinds[i % len(kinds)]](x) for i, x in enumerate(tensors)]


@needs_native
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_native_equals_torch(monkeypatch, name, layout, dtype):
    call, count = CALLS[name]
    inputs = given(count, layout, dtype)
    kept = [x.clone() for x in inputs]
    found = call(*inputs)
    assert all(torch.equal(x, y) for x, y in zip(inputs, kept, strict=True))
    monkeypatch.setattr(pairs, "available", lambda dtype: False)
    for a, b in zip(found, call(*inputs), strict=True):
        torch.testing.assert_close(a, b)


@needs_native
@pytest.mark.parametrize("name", CALLS)
def test_threads_change_nothing(monkeypatch, name):
    call, count = CALLS[name]
    inputs = given(count, "rows", torch.float32)
    monkeypatch.setattr(pairs, "_GRAIN", 50)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(call(*inputs))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native), False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_chord_lies_above(monkeypatch, dtype, native):
    if not native:
        monkeypatch.setattr(pairs, "available", lambda dtype: False)
    draw = torch.Generator().manual_seed(1)
    lower = (torch.randn(2000, generator=draw) * 10 ** (8 * torch.rand(2000, generator=draw) - 4)).to(dtype)
    upper = lower + (torch.rand(2000, generator=draw) * 10 ** (8 * torch.rand(2000, generator=draw) - 4)).to(dtype)
    slope, bias, flat, finite = pairs.chord(lower, upper)
    assert finite
    for low, high, k, b, f in zip(*(x.tolist() for x in (lower, upper, slope, bias, flat)), strict=True):
        assert f == float(low + high > 0)
        for x in (low, high):
            assert Fraction(k) * Fraction(x) + Fraction(b) >= max(0, Fraction(x))


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native), False])
@pytest.mark.parametrize("lost", [(-math.inf, 1.0), (-1.0, math.inf), (math.nan, 1.0), (-1.0, math.nan)])
def test_a_chord_that_is_not_finite_is_said(monkeypatch, lost, native):
    if not native:
        monkeypatch.setattr(pairs, "available", lambda dtype: False)
    lower, upper = torch.full((40,), -1.0), torch.full((40,), 1.0)
    lower[17], upper[17] = lost
    assert not pairs.chord(lower, upper)[3]
    assert pairs.chord(lower[:17], upper[:17])[3]
