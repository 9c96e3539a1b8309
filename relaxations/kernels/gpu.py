"""The kernels in Triton, for CUDA tensors where Triton is installed: each in one read (and one write) of the rows.

Checked in Triton's interpreter and compiled for compute capability 8.0 and 9.0; not yet run on a GPU.
Shape letters: B boxes, S rows, N one node's shape, n input numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_MOST = 1024  # entries of a row at a time


@triton.jit
def relax_kernel(rows, lines, out, sizes, strides, BLOCK: tl.constexpr):
    """One row: the lower line where an entry is not negative. `strides`: numbers between two boxes, 0 where shared."""
    row, count, size = tl.program_id(0).to(tl.int64), sizes[0], sizes[1]
    box = row // count
    source = rows + box * strides[0] + row % count * size
    total = tl.zeros([BLOCK], dtype=rows.dtype.element_ty)
    for first in range(0, size, BLOCK):
        at = first + tl.arange(0, BLOCK)
        inside = at < size
        a = tl.load(source + at, mask=inside, other=0.0)
        k_low = tl.load(lines[0] + box * strides[1] + at, mask=inside, other=0.0)
        k_up = tl.load(lines[2] + box * strides[3] + at, mask=inside, other=0.0)
        tl.store(out[0] + row * size + at, a * tl.where(a < 0, k_up, k_low), mask=inside)
        b_low = tl.zeros([BLOCK], dtype=rows.dtype.element_ty)
        b_up = b_low
        if lines[1] is not None:
            b_low = tl.load(lines[1] + box * strides[2] + at, mask=inside, other=0.0)
        if lines[3] is not None:
            b_up = tl.load(lines[3] + box * strides[4] + at, mask=inside, other=0.0)
        if (lines[1] is not None) or (lines[3] is not None):
            total += tl.where(a == 0, 0.0, a * tl.where(a < 0, b_up, b_low))  # a zero does not see an infinite bias
    found = tl.sum(total, 0)
    tl.store(out[1] + row, tl.where(found == found, found, -float("inf")))


@triton.jit
def minimize_kernel(rows, interval, least, sizes, strides, BLOCK: tl.constexpr):
    """One row: its products with centre and radius are kept apart until the end."""
    row, count, size = tl.program_id(0).to(tl.int64), sizes[0], sizes[1]
    box = row // count
    source = rows + box * strides[0] + row % count * size
    middle = tl.zeros([BLOCK], dtype=rows.dtype.element_ty)
    reach = tl.zeros([BLOCK], dtype=rows.dtype.element_ty)
    for first in range(0, size, BLOCK):
        at = first + tl.arange(0, BLOCK)
        inside = at < size
        a = tl.load(source + at, mask=inside, other=0.0)
        middle += a * tl.load(interval[0] + box * strides[1] + at, mask=inside, other=0.0)
        reach += tl.where(a < 0, -a, a) * tl.load(interval[1] + box * strides[2] + at, mask=inside, other=0.0)
    tl.store(least + row, tl.sum(middle, 0) - tl.sum(reach, 0))


def relax(
    rows: Tensor, lower_slope: Tensor, lower_bias: Tensor | None, upper_slope: Tensor, upper_bias: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Rows and biases as in `relaxations.kernels.relax`; None for what these kernels do not do."""
    call = _Call.of(rows, (lower_slope, lower_bias, upper_slope, upper_bias))
    if call is None:
        return None
    pulled, bias = rows.new_empty(call.boxes, *rows.shape[1:]), rows.new_empty(call.boxes, rows.shape[1])
    call.run(relax_kernel, (pulled, bias))
    return pulled, bias


def minimize(rows: Tensor, center: Tensor, radius: Tensor) -> Tensor | None:
    """Minimum over boxes as in `relaxations.kernels.minimize`; None for what these kernels do not do."""
    call = _Call.of(rows, (center, radius))
    if call is None:
        return None
    least = rows.new_empty(call.boxes, rows.shape[1])
    call.run(minimize_kernel, least)
    return least


class _Call(NamedTuple):
    """Rows (B or 1, S, size) and what is beside them (B or 1, size), without gaps, and the numbers between boxes."""

    rows: Tensor
    beside: tuple[Tensor | None, ...]
    strides: tuple[int, ...]
    boxes: int

    @classmethod
    def of(cls, rows: Tensor, beside: Sequence[Tensor | None]) -> _Call | None:
        """The call, or None where the kernels do not serve these tensors."""
        given = [rows, *(x for x in beside if x is not None)]
        lengths = {len(x) for x in given} - {1}
        if len(lengths) > 1 or any(x.dtype != rows.dtype or x.device != rows.device for x in given):
            return None
        if rows.dtype not in (torch.float32, torch.float64):
            return None
        flat = [rows.unsqueeze(2).flatten(2)]
        flat += [x.expand(-1, *rows.shape[2:]).unsqueeze(1).flatten(1) for x in given[1:]]
        held = iter([(x[:1] if len(x) > 1 and x.stride(0) == 0 else x).contiguous() for x in flat])
        first, others = next(held), tuple(None if x is None else next(held) for x in beside)
        strides = tuple(0 if x is None or len(x) == 1 else x.stride(0) for x in (first, *others))
        return cls(first, others, strides, lengths.pop() if lengths else 1)

    def run(self, kernel: Any, out: Tensor | tuple[Tensor, Tensor]) -> None:
        """One program for each row."""
        _, count, size = self.rows.shape
        block = min(_MOST, triton.next_power_of_2(max(16, size)))
        if self.boxes * count:
            kernel[(self.boxes * count,)](self.rows, self.beside, out, (count, size), self.strides, block)
