"""The hot loops of bound passes: a reference in plain torch, and faster versions chosen at run time.

The native library (`cpu.py`, compiled by `build.py` where there is a compiler) serves float32 and float64 on the CPU,
Triton (`gpu.py`) CUDA tensors; everything else goes through `reference.py`. Which one serves changes rounding and
nothing else.
Shape letters: B boxes, S rows, N one node's shape, n input numbers. A leading 1 stands for all boxes alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relaxations.kernels import direct
from relaxations.kernels.gradients import Minimize, Relax


def relax(
    rows: Tensor, lower_slope: Tensor, lower_bias: Tensor | None, upper_slope: Tensor, upper_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Rows (B or 1, S, *N) through two lines per entry, each (B or 1, *N): rows (B, S, *N) and a bias (B, S).

    Positive entries take the lower line, negative ones the upper line. A bias of None is zero; an infinite one is not
    seen by an entry that is zero; a sum that is undefined is -inf; a row's NaN stays in it.
    """
    lines = lower_slope, lower_bias, upper_slope, upper_bias
    if rows.dim() == 6 and not rows.is_contiguous() and rows.movedim(3, 5).is_contiguous():  # channels last
        below, low, above, high = (None if x is None else x if x.dim() < 5 else x.movedim(2, 4) for x in lines)
        assert below is not None and above is not None
        pulled, bias = relax(rows.movedim(3, 5), below, low, above, high)
        return pulled.movedim(5, 3), bias
    if _taped(rows, *lines):
        pulled, bias = Relax.apply(rows, *lines)  # type: ignore[no-untyped-call]
        return pulled, bias
    return direct.relax(rows, *lines)


def minimize(rows: Tensor, center: Tensor, radius: Tensor) -> Tensor:
    """Minimum of rows (B or 1, S, n) over boxes center +- radius, each (B or 1, n): rows . center - |rows| . radius."""
    if _taped(rows, center, radius):
        least: Tensor = Minimize.apply(rows, center, radius)  # type: ignore[no-untyped-call]
        return least
    return direct.minimize(rows, center, radius)


def _taped(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
