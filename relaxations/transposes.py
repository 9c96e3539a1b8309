"""Transposes of the affine ops: rows on an output become rows on the inputs, (R, *N_out) to (R, *N_in).

Hot ops have a hand-written transpose, the others use the op's own vjp; a law checks every one against vjp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from graphs.ops.vjp import vjp
from relaxations.rule import Call

Shapes = tuple[tuple[int, ...], ...]
Transpose = Callable[[Call, Tensor, Shapes], tuple[Tensor, ...]]
FEW_NUMBERS = 12  # that a pixel spreads to, up to which a product and a fold beat a transposed convolution
FEW_CHANNELS = 4  # up to which phases beat it
LARGE = 64  # pixels of rows in float64 from which a mirrored kernel beats it


def vjp_transpose(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    """The transpose of any affine op, by automatic differentiation."""
    return vjp(call.forward, shapes, flat, call.params.values())


def _unbroadcast(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum over the axes along which an input of `shape` was repeated."""
    axes = [i + 1 for i, (n, m) in enumerate(zip(shape, flat.shape[1:], strict=True)) if n == 1 and m != 1]
    return flat.sum(axes, keepdim=True) if axes else flat


def times(rows: Tensor, weight: Tensor) -> Tensor:
    """rows (..., O) times a matrix (O, I), as one product (of permuted rows `@` makes one for each)."""
    return (rows.reshape(-1, rows.shape[-1]) @ weight).reshape(*rows.shape[:-1], weight.shape[1])


def _linear(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    return (times(flat, call.params["weight"]),)


def _conv(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    a, weight = call.attrs, call.params["weight"]
    stride, padding, dilation = tuple(a["stride"]), tuple(a["padding"]), tuple(a["dilation"])
    space, rows = shapes[0][2:], flat.flatten(0, 1)
    if len(stride) == 2 and dilation == (1, 1) and a.get("groups", 1) == 1:
        back = spread(rows, weight, stride, padding, tuple(space))
    else:
        run = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[len(stride)]
        extents = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        unread = _unread(space, padding, extents, stride)
        back = run(rows, weight, None, stride, padding, unread, a.get("groups", 1), dilation)
    return (back.unflatten(0, flat.shape[:2]),)


def _conv_transpose(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    a, weight, space = call.attrs, call.params["weight"], shapes[0][2:]
    run = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(a["stride"])]
    stride, padding, dilation = tuple(a["stride"]), tuple(a["padding"]), tuple(a["dilation"])
    back: Tensor = run(flat.flatten(0, 1), weight, None, stride, padding, dilation, a.get("groups", 1))
    for axis, size in enumerate(space):  # output padding may be as large as a stride
        back = back.narrow(axis + 2, 0, size)
    return (back.unflatten(0, flat.shape[:2]),)


def _unread(
    space: Sequence[int], padding: Sequence[int], extents: Sequence[int], stride: Sequence[int]
) -> tuple[int, ...]:
    """Pixels behind the last window, per axis."""
    return tuple((n + 2 * p - e) % s for n, p, e, s in zip(space, padding, extents, stride, strict=True))


def spread(
    rows: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...], space: tuple[int, ...]
) -> Tensor:
    """The transpose of a 2-d convolution: rows (R, O, h, w), weight (O, C, k, l), to (R, C, *space).

    Towards few channels (a network's first layer) the library's transposed convolution runs at a tenth of the speed of
    a product: there a product and a fold, or one convolution per phase of the stride, are two to three times as fast.
    In float64, where it has no code of its own, so is a convolution by the mirrored kernel.
    """
    kernel = (weight.shape[2], weight.shape[3])
    margin = (kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1])
    if stride == kernel:
        return _fit(_patches(rows, weight), padding, space)
    if stride == (1, 1) and weight[0].numel() <= FEW_NUMBERS:
        columns = torch.matmul(weight.flatten(1).t(), rows.flatten(2))
        return F.fold(columns, space, kernel, padding=padding, stride=stride)
    if stride == (1, 1) and rows.dtype == torch.float64 and min(margin) >= 0 and rows.shape[2] * rows.shape[3] >= LARGE:
        return F.conv2d(rows, weight.flip(2, 3).transpose(0, 1), None, 1, margin)
    if stride[0] == stride[1] > 1 and weight.shape[1] <= FEW_CHANNELS:
        return _fit(_phases(rows, weight, stride[0]), padding, space)
    return F.conv_transpose2d(rows, weight, None, stride, padding, _unread(space, padding, kernel, stride))


def _fit(back: Tensor, padding: tuple[int, ...], space: tuple[int, ...]) -> Tensor:
    """Without what lies in the padding, and with zeros behind the last window."""
    if padding == (0, 0) and tuple(back.shape[2:]) == tuple(space):
        return back
    back = back[..., padding[0] : padding[0] + space[0], padding[1] : padding[1] + space[1]]
    return F.pad(back, (0, space[1] - back.shape[3], 0, space[0] - back.shape[2]))


def _patches(rows: Tensor, weight: Tensor) -> Tensor:
    """Transposed convolution whose windows do not overlap: one product, and each patch to its place."""
    count, outputs, h, w = rows.shape
    _, channels, k, m = weight.shape
    patches = rows.permute(0, 2, 3, 1).reshape(-1, outputs) @ weight.flatten(1)
    return patches.reshape(count, h, w, channels, k, m).permute(0, 3, 1, 4, 2, 5).reshape(count, channels, h * k, w * m)


def _phases(rows: Tensor, weight: Tensor, s: int) -> Tensor:
    """Transposed convolution of stride s without padding: the s * s phases of the result are the channels of one
    ordinary convolution, and interleaving them is a shuffle.
    """
    k, m = weight.shape[2:]
    taps = (-(-k // s), -(-m // s))
    padded = F.pad(weight, (0, taps[1] * s - m, 0, taps[0] * s - k))
    phases = padded.unflatten(3, (taps[1], s)).unflatten(2, (taps[0], s)).flip(2, 4).permute(1, 3, 5, 0, 2, 4)
    mixed = F.conv2d(rows, phases.reshape(-1, weight.shape[0], *taps), None, 1, (taps[0] - 1, taps[1] - 1))
    return F.pixel_shuffle(mixed, s)[..., : (rows.shape[2] - 1) * s + k, : (rows.shape[3] - 1) * s + m]


def _scale(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    return (_unbroadcast(flat * call.params["factor"], shapes[0]),)


def _concat(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    axis, layout = call.attrs["axis"], call.attrs.get("layout") or range(len(shapes))
    pulled: list[Tensor] = [flat] * len(shapes)
    at = 0
    for part in layout:
        shape = shapes[part] if isinstance(part, int) else call.params[part].shape
        piece = flat.narrow(axis + 1, at, shape[axis])
        if isinstance(part, int):
            pulled[part] = piece if pulled[part] is flat else pulled[part] + piece
        at += shape[axis]
    return tuple(pulled)


def _slice(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    a = call.attrs
    back = flat.new_zeros(len(flat), *shapes[0])
    back[(slice(None),) * (a["axis"] + 1) + (slice(a["start"], a["stop"], a.get("step", 1)),)] = flat
    return (back,)


def _pick(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    back = flat.new_zeros(len(flat), math.prod(shapes[0]))
    back.index_add_(1, call.params["index"].reshape(-1), flat.reshape(len(flat), -1))
    return (back.reshape(len(flat), *shapes[0]),)


def _gather(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    """Sums of what was read from the same entry; of equal blocks (nearest up-sampling) without scattering."""
    index, axis, size = call.params["index"].reshape(-1), call.attrs["axis"] + 1, shapes[0][call.attrs["axis"]]
    flat = flat.reshape(len(flat), *shapes[0][: axis - 1], len(index), *shapes[0][axis:])
    times = len(index) // size
    if times * size == len(index) and torch.equal(index, torch.arange(size).to(index).repeat_interleave(times)):
        return (reduce(torch.add, flat.unflatten(axis, (size, times)).unbind(axis + 1)),)  # `sum` is slow along few
    return (flat.new_zeros(len(flat), *shapes[0]).index_add_(axis, index, flat),)


def _inverse(perm: Sequence[int]) -> list[int]:
    return sorted(range(len(perm)), key=lambda i: perm[i])


def _sum(flat: Tensor, call: Call, shape: tuple[int, ...]) -> Tensor:
    if not call.attrs.get("keepdims", False):
        for axis in sorted(a % len(shape) for a in call.attrs["axes"]):
            flat = flat.unsqueeze(axis + 1)
    return flat.expand(len(flat), *shape)


def _mean(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    count = math.prod(shapes[0][a] for a in call.attrs["axes"])
    return (_sum(flat, call, shapes[0]) / count,)


TRANSPOSES: dict[str, Transpose] = {
    "linear": _linear,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "scale": _scale,
    "concat": _concat,
    "slice": _slice,
    "pick": _pick,
    "gather": _gather,
    "mean": _mean,
    "sum": lambda call, flat, shapes: (_sum(flat, call, shapes[0]),),
    "neg": lambda call, flat, shapes: (-flat,),
    "reshape": lambda call, flat, shapes: (flat.reshape(len(flat), *shapes[0]),),
    "transpose": lambda call, flat, shapes: (flat.permute(0, *(p + 1 for p in _inverse(call.attrs["perm"]))),),
    "shift": lambda call, flat, shapes: (_unbroadcast(flat, shapes[0]),),
    "add": lambda call, flat, shapes: (_unbroadcast(flat, shapes[0]), _unbroadcast(flat, shapes[1])),
    "sub": lambda call, flat, shapes: (_unbroadcast(flat, shapes[0]), -_unbroadcast(flat, shapes[1])),
}
