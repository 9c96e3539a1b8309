"""Pulling rows that are windows (see windows.py) through ops that keep them windows.

Shape letters: R rows, T signs, C channels, H x W the map, h x w the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from relaxations.affine import AffineRelaxation
from relaxations.rule import Call, Relaxation
from relaxations.scalar.lines import ScalarLines
from relaxations.selections import Selection
from relaxations.transposes import spread
from relaxations.windows import Window

WORTHWHILE = 0.6  # share of a map from which a window is no gain
STARTS = {"conv", "conv_transpose"}  # ops whose unit rows are small windows on their inputs


def start(relaxation: AffineRelaxation, rows: Selection) -> tuple[Window, Tensor] | None:
    """Unit rows on the output of a 2-d convolution as windows on its input, and the bias (R, 1); None: no gain."""
    call, shape = relaxation.call, relaxation.shapes[0]
    if call.node.op == "conv_transpose":
        return _start_transpose(relaxation, rows)
    weight, a = call.params["weight"], call.attrs
    if not _plain(call, shape) or not _gains(weight.shape[2:], shape):
        return None
    _, _, height, width = call.node.shape
    channel, pixel = rows.index // (height * width), rows.index % (height * width)
    stride, padding = torch.tensor(tuple(a["stride"])), torch.tensor(tuple(a["padding"]))
    corner = torch.stack([pixel // width, pixel % width], 1) * stride - padding
    bias = call.params.get("bias")
    offset = weight.new_zeros(len(channel)) if bias is None else bias[channel]
    return Window(weight[channel].unsqueeze(1), corner, shape), offset[:, None]


def _start_transpose(relaxation: AffineRelaxation, rows: Selection) -> tuple[Window, Tensor] | None:
    """Unit rows on the output of a transposed convolution: windows of one pixel, pulled."""
    shape = relaxation.call.node.shape
    if len(shape) != 4 or shape[0] != 1:
        return None
    _, channels, height, width = shape
    unit = F.one_hot(rows.index // (height * width), channels).to(relaxation.call.params["weight"])
    pixel = rows.index % (height * width)
    corner = torch.stack([pixel // width, pixel % width], 1)
    found = _conv_transpose(relaxation, Window(unit[:, None, :, None, None], corner, shape, True))
    return None if found is None else (found[0][0], found[1])


def pull(relaxation: Relaxation, rows: Window, owner: Tensor | None) -> tuple[tuple[Window, ...], Tensor] | None:
    """Pull windows through a node; None where its op has no way to keep them (then they become dense)."""
    if isinstance(relaxation, ScalarLines):
        view = rows.view(owner)
        fields = (relaxation.lower_slope, relaxation.lower_bias, relaxation.upper_slope, relaxation.upper_bias)
        maps = (None if f is None else f.reshape(-1, *rows.shape) for f in fields)
        local = ScalarLines(*(None if m is None else view.read(m) for m in maps))  # type: ignore[arg-type]
        (pulled,), bias = local.pull(rows.rows)
        return (Window(pulled, rows.corner, rows.shape, True),), bias
    if isinstance(relaxation, AffineRelaxation):
        node = relaxation.call.node
        handler = _AFFINE.get(node.op) if node.op == "reshape" or node.shape == rows.shape else None
        return handler(relaxation, rows) if handler else None
    return None


def _conv(relaxation: AffineRelaxation, rows: Window) -> tuple[tuple[Window, ...], Tensor] | None:
    call, shape = relaxation.call, relaxation.shapes[0]
    a, weight = call.attrs, call.params["weight"]
    size = [(n - 1) * s + k for n, s, k in zip(rows.rows.shape[3:], a["stride"], weight.shape[2:], strict=True)]
    if not _plain(call, shape) or not _gains(size, shape):
        return None
    rows = rows.cleaned()
    back = spread(rows.rows.flatten(0, 1), weight, tuple(a["stride"]), (0, 0), tuple(size))
    corner = rows.corner * torch.tensor(tuple(a["stride"])) - torch.tensor(tuple(a["padding"]))
    bias = call.params.get("bias")
    offset = rows.rows.new_zeros(rows.rows.shape[:2]) if bias is None else rows.rows.sum((3, 4)) @ bias
    return (Window(back.unflatten(0, rows.rows.shape[:2]), corner, shape),), offset


def _add(relaxation: AffineRelaxation, rows: Window) -> tuple[tuple[Window, ...], Tensor] | None:
    if any(shape != rows.shape for shape in relaxation.shapes):  # of one that is repeated
        return None
    return (rows, rows), rows.rows.new_zeros(rows.rows.shape[:2])


def _flatten(relaxation: AffineRelaxation, rows: Window) -> tuple[tuple[Window, ...], Tensor] | None:
    """A map that is its input in another shape: the windows stay, for ops that do not ask where entries lie."""
    return (rows,), rows.rows.new_zeros(rows.rows.shape[:2])


def _conv_transpose(relaxation: AffineRelaxation, rows: Window) -> tuple[tuple[Window, ...], Tensor] | None:
    """A strided convolution of the window, laid where the kernels of all inputs that reach it begin."""
    call, shape = relaxation.call, relaxation.shapes[0]
    weight, stride, padding = call.params["weight"], tuple(call.attrs["stride"]), tuple(call.attrs["padding"])
    kernel, (h, w) = weight.shape[2:], rows.rows.shape[3:]
    steps, sizes = torch.tensor(stride), [transposed(n, k, s) for n, k, s in zip((h, w), kernel, stride, strict=True)]
    if not _plain(call, shape) or not _gains(sizes, shape):
        return None
    rows = rows.cleaned()
    reach = rows.corner + torch.tensor(padding) - torch.tensor(tuple(kernel)) + 1
    ahead = (-reach).remainder(steps)
    corner = (reach + ahead) // steps
    space = [(n - 1) * s + k for n, s, k in zip(sizes, stride, kernel, strict=True)]
    back = rows.rows.new_empty(*rows.rows.shape[:2], shape[1], *sizes)
    for above, left in ahead.unique(dim=0).tolist():
        here = ((ahead[:, 0] == above) & (ahead[:, 1] == left)).nonzero()[:, 0]
        top, first = kernel[0] - 1 - above, kernel[1] - 1 - left
        laid = F.pad(rows.rows[here].flatten(0, 1), (first, space[1] - first - w, top, space[0] - top - h))
        back[here] = F.conv2d(laid, weight, None, stride).unflatten(0, (len(here), -1))
    bias = call.params.get("bias")
    offset = rows.rows.new_zeros(rows.rows.shape[:2]) if bias is None else rows.rows.sum((3, 4)) @ bias
    return (Window(back, corner, shape),), offset


def transposed(size: int, kernel: int, stride: int) -> int:
    """How many inputs of a transposed convolution reach a window of `size` outputs, at most."""
    return (kernel + size - 2) // stride + 1


def _gather(relaxation: AffineRelaxation, rows: Window) -> tuple[tuple[Window, ...], Tensor] | None:
    """Rows or columns of a map that are repeated in order: of windows, those of their pixels are summed."""
    call, shape = relaxation.call, relaxation.shapes[0]
    axis, index = int(call.attrs["axis"]) - 2, call.params["index"].reshape(-1)
    if len(shape) != 4 or shape[0] != 1 or axis not in (0, 1) or bool((index.diff() < 0).any()):
        return None
    rows = rows.cleaned()
    size = rows.rows.shape[3 + axis]
    read = index[(rows.corner[:, axis, None] + torch.arange(size)).clamp(0, len(index) - 1)]
    place = read - read[:, :1]
    sizes = list(rows.rows.shape[3:])
    sizes[axis] = int(place.max()) + 1
    if not _gains(sizes, shape):
        return None
    place = place[:, None, None, :, None] if axis == 0 else place[:, None, None, None, :]
    back = rows.rows.new_zeros(*rows.rows.shape[:3], *sizes)
    back.scatter_add_(3 + axis, place.expand_as(rows.rows), rows.rows)
    corner = rows.corner.clone()
    corner[:, axis] = read[:, 0]
    return (Window(back, corner, shape, True),), back.new_zeros(back.shape[:2])


def _scale(relaxation: AffineRelaxation, rows: Window) -> tuple[tuple[Window, ...], Tensor] | None:
    if relaxation.shapes[0] != rows.shape:
        return None
    factor = relaxation.call.params["factor"].expand(1, *rows.shape)
    back = rows.rows * rows.view(None).read(factor)[:, None]
    return (Window(back, rows.corner, rows.shape, True),), back.new_zeros(back.shape[:2])


def _shift(relaxation: AffineRelaxation, rows: Window) -> tuple[tuple[Window, ...], Tensor] | None:
    if relaxation.shapes[0] != rows.shape:
        return None
    offset = rows.view(None).read(relaxation.call.params["offset"].expand(1, *rows.shape))
    return (rows,), (rows.rows * offset[:, None]).sum((2, 3, 4))


def _plain(call: Call, shape: Sequence[int]) -> bool:
    a = call.attrs
    return len(shape) == 4 and shape[0] == 1 and a.get("groups", 1) == 1 and tuple(a["dilation"]) == (1, 1)


def _gains(size: Sequence[int], shape: Sequence[int]) -> bool:
    return size[0] * size[1] <= WORTHWHILE * shape[2] * shape[3]


_Handler = Callable[[AffineRelaxation, Window], "tuple[tuple[Window, ...], Tensor] | None"]
_AFFINE: dict[str, _Handler] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "gather": _gather,
    "scale": _scale,
    "shift": _shift,
    "add": _add,
    "reshape": _flatten,
}
