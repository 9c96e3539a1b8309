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


def chord(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor, bool]:
    """ReLU's upper line, slope and bias (rounded outward); its lower slope: 1 where the box reaches further right than
    left, else 0; and whether every bias is finite (may say no by mistake where a sum overflows).
    """
    if (run := _served("chord", lower, upper)) is not None:
        slope, bias, flat = (torch.empty_like(lower) for _ in range(3))
        return slope, bias, flat, bool(run(lower, upper, slope, bias, flat))
    info = torch.finfo(lower.dtype)
    left, right = lower.clamp(max=0), upper.relu()
    slope = right / (right - left).clamp_(min=info.tiny)
    bias = (slope * left).neg_().maximum((1 - slope).mul_(right)).mul_(1 + 2 * info.eps)
    flat = (lower + upper).sign_().clamp_(min=0).nan_to_num_(nan=0.0)
    return slope, bias, flat, bool(bias.sum().isfinite())


def chord_gradient(lower: Tensor, upper: Tensor, of_slope: Tensor, of_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of both ends from those of the upper line's slope and bias."""
    grads = (x if _alike(x, lower) else torch.empty_like(lower).copy_(x) for x in (of_slope, of_bias))
    of_slope, of_bias = grads
    if (run := _served("chord_gradient", lower, upper, of_slope, of_bias)) is not None:
        of_lower, of_upper = torch.empty_like(lower), torch.empty_like(lower)
        run(lower, upper, of_slope, of_bias, of_lower, of_upper)
        return of_lower, of_upper
    left, right = lower.clamp(max=0), upper.relu()
    width = (right - left).clamp_(min=torch.finfo(lower.dtype).tiny)
    slope, rate = right / width, torch.addcmul(of_slope, of_bias, left, value=-1).div_(width)
    of_lower = (rate - of_bias).mul_(slope).masked_fill_(lower >= 0, 0)
    return of_lower, rate.mul_(1 - slope).masked_fill_(upper <= 0, 0)


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
