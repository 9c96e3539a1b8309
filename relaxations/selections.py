"""Unit rows: rows that pick one entry each, and affine ops that can pull them back without building them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from relaxations.rule import Call
from relaxations.transposes import Shapes


@dataclass(frozen=True)
class Selection:
    """Unit rows: row r picks the entry at flat position index[r]; `lead` is (boxes or 1, rows), of product R."""

    index: Tensor
    lead: tuple[int, int]

    def dense(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The rows themselves, (*lead, *shape)."""
        rows = like.new_zeros(len(self.index), math.prod(shape))
        return rows.scatter_(1, self.index[:, None], 1.0).reshape(*self.lead, *shape)


def has_offset(call: Call) -> bool:
    """Whether f(0) may be other than zero."""
    op = call.node.op
    return (
        op == "shift" or (op == "pad" and call.attrs.get("value", 0.0) != 0) or (op == "concat" and bool(call.params))
    )


def constant(call: Call, shapes: Shapes, like: Tensor) -> Tensor:
    """f(0), with a batch axis of 1."""
    return call.forward(*(like.new_zeros(1, *shape) for shape in shapes))


# Each: (call, input shapes, unit rows, a tensor for dtype) -> rows on each input (R, *N_in), bias (R,); None: no way.
Started = tuple[tuple[Tensor | Selection, ...], Tensor]
Start = Callable[[Call, Shapes, Selection, Tensor], Started | None]


def _start_linear(call: Call, shapes: Shapes, rows: Selection, like: Tensor) -> tuple[tuple[Tensor], Tensor] | None:
    weight, bias = call.params["weight"], call.params.get("bias")
    shape = shapes[0]
    if math.prod(shape) != shape[-1]:
        return None
    offset = weight.new_zeros(len(rows.index)) if bias is None else bias[rows.index]
    return (weight[rows.index].reshape(-1, *shape),), offset


def _start_conv(call: Call, shapes: Shapes, rows: Selection, like: Tensor) -> tuple[tuple[Tensor], Tensor] | None:
    """Unit rows pull back to one kernel each, placed at the window of their output pixel."""
    shape = shapes[0]
    weight, a = call.params["weight"], call.attrs
    if len(a["stride"]) != 2 or a.get("groups", 1) != 1 or shape[0] != 1:
        return None
    _, _, out_h, out_w = call.node.shape
    channel = rows.index // (out_h * out_w)
    y, x = rows.index // out_w % out_h, rows.index % out_w
    (ph, pw), (sh, sw), (dh, dw) = a["padding"], a["stride"], a["dilation"]
    c, h, w = shape[1:]
    kh, kw = weight.shape[2:]
    full_h, full_w = (
        max(h + 2 * ph, (out_h - 1) * sh + dh * (kh - 1) + 1),
        max(w + 2 * pw, (out_w - 1) * sw + dw * (kw - 1) + 1),
    )
    window = (torch.arange(c)[:, None, None] * full_h + torch.arange(kh)[:, None] * dh) * full_w + torch.arange(kw) * dw
    corner = (y * sh) * full_w + x * sw
    canvas = like.new_zeros(len(rows.index), c * full_h * full_w)
    canvas.scatter_(1, window.to(corner.device).reshape(1, -1) + corner[:, None], weight[channel].flatten(1))
    back = canvas.reshape(-1, 1, c, full_h, full_w)[..., ph : ph + h, pw : pw + w]
    bias = call.params.get("bias")
    return (back,), weight.new_zeros(len(rows.index)) if bias is None else bias[channel]


def _start_same(
    call: Call, shapes: Shapes, rows: Selection, like: Tensor
) -> tuple[tuple[Selection, ...], Tensor] | None:
    """Ops that leave flat positions as they are: reshape, shift and add without broadcasting."""
    if any(math.prod(shape) != call.node.size for shape in shapes):
        return None
    offset = like.new_zeros(len(rows.index))
    if has_offset(call):
        offset = constant(call, shapes, like).flatten()[rows.index]
    return tuple(rows for _ in shapes), offset


STARTS: dict[str, Start] = {
    "linear": _start_linear,
    "conv": _start_conv,
    "reshape": _start_same,
    "shift": _start_same,
    "add": _start_same,
}
