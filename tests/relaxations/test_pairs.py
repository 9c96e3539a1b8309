"""Passes over pairs of ends: the native versions against torch, on every layout."""

from __future__ import annotations

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
