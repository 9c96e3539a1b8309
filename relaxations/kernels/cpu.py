"""The kernels by the native library: each in one read (and one write) of the rows; see native/elementwise.cpp.

Every function answers None for what the library does not do; the caller then takes the reference.
Shape letters: B boxes, S rows, N one node's shape, n input numbers.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from relaxations.kernels.library import native

_NAMES = {torch.float32: "float", torch.float64: "double"}
_GRAIN = 1 << 15  # entries for which another thread is worth waking
_P, _I32, _I64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
_INPUTS = {"relax": 5, "minimize": 3, "gradient": 5}
_OTHERS = {"relax": 2, "minimize": 1, "gradient": 7}


def relax(
    rows: Tensor, lower_slope: Tensor, lower_bias: Tensor | None, upper_slope: Tensor, upper_bias: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Rows and biases as in `relaxations.kernels.relax`."""
    call = _prepare("relax", (rows, lower_slope, lower_bias, upper_slope, upper_bias))
    if call is None:
        return None
    pulled, bias = rows.new_empty(call.boxes, *rows.shape[1:]), rows.new_empty(call.boxes, rows.shape[1])
    call.run(pulled, bias)
    return pulled, bias


def minimize(rows: Tensor, center: Tensor, radius: Tensor) -> Tensor | None:
    """Minimum over boxes as in `relaxations.kernels.minimize`."""
    call = _prepare("minimize", (rows, center, radius))
    if call is None:
        return None
    least = rows.new_empty(call.boxes, rows.shape[1])
    call.run(least)
    return least


def gradient(
    rows: Tensor, lines: Sequence[Tensor | None], grads: tuple[Tensor, Tensor], needs: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]] | None:
    """Gradient of `relax` from that of its rows (B, S, *N) and biases (B, S): for the rows (B, S, *N), and for those of
    the four lines that are needed, (B, *N), summed over no box.
    """
    call = _prepare("gradient", (rows, *lines))
    if call is None:
        return None
    g, h = (grad.contiguous() for grad in grads)
    out = torch.empty_like(g)
    sums = [g.new_empty(call.boxes, *rows.shape[2:]) if need else None for need in needs]
    call.run(g, h, out, *sums)
    return out, sums


class _Call(NamedTuple):
    """A call of the library: the function, its inputs (kept alive here) and their number of boxes."""

    function: Callable[..., None]
    inputs: Sequence[Tensor | None]
    sizes: tuple[int, ...]
    boxes: int

    def run(self, *others: Tensor | None) -> None:
        """Call it with these tensors behind the sizes."""
        addresses = [None if x is None else x.data_ptr() for x in (*self.inputs, *others)]
        count = len(self.inputs)
        self.function(*addresses[:count], *self.sizes, *addresses[count:])


def _prepare(name: str, inputs: Sequence[Tensor | None]) -> _Call | None:
    """Rows (B or 1, S, *N) and what is beside them (B or 1, *N) as the library wants them; None: it does not serve."""
    rows = inputs[0]
    assert rows is not None
    dtype, (_, count, *entry) = rows.dtype, rows.shape
    function = _function(name, dtype)
    if function is None:
        return None
    kept: list[Tensor | None] = []
    boxes, shared = 1, 0
    for i, x in enumerate(inputs):
        if x is None:
            kept.append(None)
            continue
        length, *shape = x.shape
        if x.dtype != dtype or not x.is_cpu or (length != 1 and boxes not in (1, length)):
            return None
        if length == 1 or x.stride(0) == 0:  # one box, or one that is repeated
            shared |= 1 << i
        held = x[:1] if length > 1 and x.stride(0) == 0 else x
        boxes = boxes if length == 1 else length
        kept.append((held if i == 0 or shape == entry else held.expand(-1, *entry)).contiguous())
    size = math.prod(entry)
    threads = max(1, min(torch.get_num_threads(), boxes * count * size // _GRAIN))
    return _Call(function, kept, (shared, boxes, count, size, threads), boxes)


@cache
def _function(name: str, dtype: torch.dtype) -> Callable[..., None] | None:
    library = native().library
    if library is None or dtype not in _NAMES:
        return None
    found = getattr(library, f"verif_{name}_{_NAMES[dtype]}")
    found.restype = None
    found.argtypes = [*[_P] * _INPUTS[name], _I32, _I64, _I64, _I64, _I32, *[_P] * _OTHERS[name]]
    function: Callable[..., None] = found
    return function
