"""Passes over pairs of ends, entry by entry, without a tape: natively in one walk through memory, else by torch.

All tensors of a call have one shape.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from relaxations.kernels.library import available, function

_GRAIN = 1 << 15  # entries for which another thread is worth waking


def split(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Middle, and what is left to the upper end."""
    if (run := _served("split", lower, upper)) is None:
        middle = lower.lerp(upper, 0.5)
        return middle, upper - middle
    middle, radius = torch.empty_like(lower), torch.empty_like(lower)
    run(lower, upper, middle, radius)
    return middle, radius


def join(center: Tensor, reach: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """scale (center - reach) and scale (center + reach); both arguments may be overwritten."""
    if (run := _served("join", center, reach)) is None:
        return (center - reach).mul_(scale), (center + reach).mul_(scale)
    run(center, reach, center, reach, scale=scale)
    return center, reach


def total(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """high - low and high + low; the arguments stay."""
    if (run := _served("join", low, high)) is None:
        return high - low, high + low
    less, more = torch.empty_like(high), torch.empty_like(high)
    run(high, low, less, more, scale=1.0)
    return less, more


def add_signed(total: Tensor, change: Tensor, of: Tensor) -> Tensor:
    """total + change sign(of), in place of the total."""
    if (run := _served("add_signed", total, change, of)) is None:
        return total.addcmul_(change, of.sign())
    run(total, change, of)
    return total


def _served(name: str, *given: Tensor) -> Callable[..., int] | None:
    """The native function, to be called with tensors, then numbers; None where layouts differ or have gaps."""
    first = given[0]
    if not available(first.dtype) or not _dense(first):
        return None
    if any(not x.is_cpu or x.dtype != first.dtype or not _alike(x, first) for x in given):
        return None
    size = first.numel()
    threads = max(1, min(torch.get_num_threads(), size // _GRAIN))
    found = function(f"verif_{name}", first.dtype)

    def run(*tensors: Tensor, scale: float | None = None) -> int:
        more = [] if scale is None else [ctypes.c_double(scale)]
        addresses = [ctypes.c_void_p(x.data_ptr()) for x in tensors]
        return int(found(*addresses, ctypes.c_int64(size), ctypes.c_int32(threads), *more))

    return run


def _alike(x: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape lie in memory in the same order; the strides of axes of size 1 do not matter."""
    return all(size == 1 or a == b for size, a, b in zip(x.shape, x.stride(), other.stride(), strict=True))


def _dense(x: Tensor) -> bool:
    """Whether the entries fill their memory without gaps and without sharing, in some order of the axes."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
