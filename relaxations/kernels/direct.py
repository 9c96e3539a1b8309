"""The kernels without a tape: the fastest version that serves the tensors at hand, else the reference.

Arguments and results as in `relaxations.kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from torch import Tensor

from relaxations.kernels import cpu, reference


def relax(
    rows: Tensor, lower_slope: Tensor, lower_bias: Tensor | None, upper_slope: Tensor, upper_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Rows through two lines per entry."""
    given = rows, lower_slope, lower_bias, upper_slope, upper_bias
    return _fast(rows).relax(*given) or reference.relax(*given)


def minimize(rows: Tensor, center: Tensor, radius: Tensor) -> Tensor:
    """Minimum of rows over boxes."""
    found: Tensor | None = _fast(rows).minimize(rows, center, radius)
    return reference.minimize(rows, center, radius) if found is None else found


def gradient(
    rows: Tensor, lines: Sequence[Tensor | None], grads: tuple[Tensor, Tensor], needs: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradient of `relax` from that of its rows (B, S, *N) and biases (B, S): for the rows (B, S, *N), and for those of
    the four lines that are needed, (B, *N), summed over no box.
    """
    return cpu.gradient(rows, lines, grads, needs) or reference.gradient(rows, lines, grads, needs)


def _fast(rows: Tensor) -> Any:
    """The module whose kernels may serve these rows."""
    return cpu if rows.is_cpu or not rows.is_cuda else _gpu()


@cache
def _gpu() -> ModuleType:
    """The Triton kernels; without Triton, or with one that takes no tuples, a module that serves no CUDA tensor."""
    if find_spec("triton") is None:
        return cpu
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 3):
        return cpu
    from relaxations.kernels import gpu

    return gpu
