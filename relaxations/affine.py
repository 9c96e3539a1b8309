"""Affine ops: exact in every direction. Hot ones have a hand-written transpose, the others use the op's own vjp.

A law checks every transpose against vjp. Interval and forward mode share one identity: with the midpoint m and the half
difference r of a pair (lower, upper), the pair of W x is (W m - |W| r, W m + |W| r); ops without negative
coefficients map the two ends directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from graphs.ops import OPS, Kind
from relaxations.rule import RULES, Affine, Call, Interval, Relaxation, Rule

Shapes = tuple[tuple[int, ...], ...]
FEW_NUMBERS = 12  # that a pixel spreads to, up to which a product and a fold beat a transposed convolution
FEW_CHANNELS = 4  # up to which phases beat it


@dataclass(frozen=True)
class Selection:
    """Unit rows: row r picks the entry at flat position index[r]; `lead` is (boxes or 1, rows), of product R."""

    index: Tensor
    lead: tuple[int, int]

    def dense(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The rows themselves, (*lead, *shape)."""
        rows = like.new_zeros(len(self.index), math.prod(shape))
        return rows.scatter_(1, self.index[:, None], 1.0).reshape(*self.lead, *shape)


@dataclass(frozen=True)
class AffineRelaxation(Relaxation):
    """An affine op as its own relaxation. `shapes` are those of its inputs, without the batch."""

    call: Call
    shapes: Shapes

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Exact: rows . f(x) = pulled . x + bias."""
        lead, flat = rows.shape[:2], rows.flatten(0, 1)
        transpose = TRANSPOSES.get(self.call.node.op, vjp_transpose)
        pulled = transpose(self.call, flat, self.shapes)
        return tuple(p.unflatten(0, lead) for p in pulled), self.offset(flat).unflatten(0, lead)

    def offset(self, flat: Tensor) -> Tensor:
        """flat . f(0): (R,)."""
        op, params = self.call.node.op, self.call.params
        if op == "linear" or op in ("conv", "conv_transpose"):
            bias = params.get("bias")
            if bias is None:
                return flat.new_zeros(len(flat))
            if op == "linear":
                rows = flat.reshape(len(flat), -1)
                return (rows if rows.shape[1] == len(bias) else rows.unflatten(1, (-1, len(bias))).sum(1)) @ bias
            return flat.flatten(3).sum((1, 3)) @ bias
        if not has_offset(self.call):
            return flat.new_zeros(len(flat))
        return flat.reshape(len(flat), -1) @ self.constant(flat).flatten()

    def constant(self, like: Tensor) -> Tensor:
        """f(0), with a batch axis of 1."""
        return self.call.forward(*(like.new_zeros(1, *shape) for shape in self.shapes))

    def start(self, rows: Selection, like: Tensor) -> tuple[tuple[Tensor | Selection, ...], Tensor] | None:
        """`pull` of unit rows without building them, flat: (R, *N_in) and (R,); None where that has no short cut."""
        short_cut = STARTS.get(self.call.node.op)
        return short_cut(self, rows, like) if short_cut else None

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """Exact: slopes are mapped by the linear part, biases by the op itself."""
        lower_slope, upper_slope = _pair(self.call, [(a.lower_slope, a.upper_slope) for a in inputs], linear=True)
        lower_bias, upper_bias = _pair(self.call, [(a.lower_bias, a.upper_bias) for a in inputs], linear=False)
        return Affine(lower_slope, lower_bias, upper_slope, upper_bias)


class AffineRule(Rule):
    """The rule of every affine op."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact when the inputs' entries vary independently; infinite ends stay sound (NaN becomes infinite)."""
        lower, upper = _pair(call, [(i.lower, i.upper) for i in inputs], linear=False)
        return Interval(torch.where(lower.isnan(), -math.inf, lower), torch.where(upper.isnan(), math.inf, upper))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> AffineRelaxation:
        """The op itself."""
        return AffineRelaxation(call, tuple(tuple(i.lower.shape[1:]) for i in inputs))


def has_offset(call: Call) -> bool:
    """Whether f(0) may be other than zero."""
    op = call.node.op
    return (
        op == "shift" or (op == "pad" and call.attrs.get("value", 0.0) != 0) or (op == "concat" and bool(call.params))
    )


def _pair(call: Call, pairs: Sequence[tuple[Tensor, Tensor]], *, linear: bool) -> tuple[Tensor, Tensor]:
    """Map (lower, upper) pairs through the op; `linear` drops the op's offset and takes (B, K, *N) tensors."""
    if not linear:
        return _ends(call, [p[0] for p in pairs], [p[1] for p in pairs], linear=False)
    lead = pairs[0][0].shape[:2]
    flat = [(lower.flatten(0, 1), upper.flatten(0, 1)) for lower, upper in pairs]
    lower, upper = _ends(call, [p[0] for p in flat], [p[1] for p in flat], linear=True)
    return lower.unflatten(0, lead), upper.unflatten(0, lead)


def _ends(call: Call, lower: list[Tensor], upper: list[Tensor], *, linear: bool) -> tuple[Tensor, Tensor]:
    drop = {"bias": None} if linear and "bias" in call.params else {}
    if OPS[call.node.op].monotone:
        low, high = call.forward(*lower), call.forward(*upper)
        if linear and has_offset(call):
            zero = call.forward(*(x.new_zeros(1, *x.shape[1:]) for x in lower))
            low, high = low - zero, high - zero
        return low, high
    middle = call.forward(*((a + b) / 2 for a, b in zip(lower, upper, strict=True)), **drop)
    spread = _absolute(call, [(b - a) / 2 for a, b in zip(lower, upper, strict=True)])
    return middle - spread, middle + spread


def _absolute(call: Call, xs: list[Tensor]) -> Tensor:
    """|linear part| applied to xs."""
    if call.node.op == "neg":
        return xs[0]
    if call.node.op == "sub":
        return xs[0] + xs[1]
    role = "factor" if call.node.op == "scale" else "weight"
    drop = {"bias": None} if "bias" in call.params else {}
    return call.forward(*xs, **{role: call.params[role].abs()}, **drop)


# --- transposes: (call, rows (R, *N_out), input shapes) -> rows on each input (R, *N_in) ---

Transpose = Callable[[Call, Tensor, Shapes], tuple[Tensor, ...]]


def vjp_transpose(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    """The transpose of any affine op, by automatic differentiation."""
    zeros = [flat.new_zeros(len(flat), *shape) for shape in shapes]
    pulled: tuple[Tensor, ...] = torch.func.vjp(call.forward, *zeros)[1](flat)
    return pulled


def _unbroadcast(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum over the axes along which an input of `shape` was repeated."""
    axes = [i + 1 for i, (n, m) in enumerate(zip(shape, flat.shape[1:], strict=True)) if n == 1 and m != 1]
    return flat.sum(axes, keepdim=True) if axes else flat


def _linear(call: Call, flat: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    return (flat @ call.params["weight"],)


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
    """
    kernel = (weight.shape[2], weight.shape[3])
    if stride == (1, 1) and weight[0].numel() <= FEW_NUMBERS:
        columns = torch.matmul(weight.flatten(1).t(), rows.flatten(2))
        return F.fold(columns, space, kernel, padding=padding, stride=stride)
    if stride[0] == stride[1] > 1 and weight.shape[1] <= FEW_CHANNELS:
        (p, q), back = padding, _phases(rows, weight, stride[0])
        back = back[..., p : p + space[0], q : q + space[1]]
        return F.pad(back, (0, space[1] - back.shape[3], 0, space[0] - back.shape[2]))
    return F.conv_transpose2d(rows, weight, None, stride, padding, _unread(space, padding, kernel, stride))


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
    "scale": _scale,
    "concat": _concat,
    "slice": _slice,
    "pick": _pick,
    "mean": _mean,
    "sum": lambda call, flat, shapes: (_sum(flat, call, shapes[0]),),
    "neg": lambda call, flat, shapes: (-flat,),
    "reshape": lambda call, flat, shapes: (flat.reshape(len(flat), *shapes[0]),),
    "transpose": lambda call, flat, shapes: (flat.permute(0, *(p + 1 for p in _inverse(call.attrs["perm"]))),),
    "shift": lambda call, flat, shapes: (_unbroadcast(flat, shapes[0]),),
    "add": lambda call, flat, shapes: (_unbroadcast(flat, shapes[0]), _unbroadcast(flat, shapes[1])),
    "sub": lambda call, flat, shapes: (_unbroadcast(flat, shapes[0]), -_unbroadcast(flat, shapes[1])),
}


# --- short cuts for unit rows: (relaxation, selection, a tensor for dtype) -> rows on each input, bias (R,) ---

Start = Callable[[AffineRelaxation, Selection, Tensor], "tuple[tuple[Tensor | Selection, ...], Tensor] | None"]


def _start_linear(relaxation: AffineRelaxation, rows: Selection, like: Tensor) -> tuple[tuple[Tensor], Tensor] | None:
    weight, bias = relaxation.call.params["weight"], relaxation.call.params.get("bias")
    shape = relaxation.shapes[0]
    if math.prod(shape) != shape[-1]:
        return None
    offset = weight.new_zeros(len(rows.index)) if bias is None else bias[rows.index]
    return (weight[rows.index].reshape(-1, *shape),), offset


def _start_conv(relaxation: AffineRelaxation, rows: Selection, like: Tensor) -> tuple[tuple[Tensor], Tensor] | None:
    """Unit rows pull back to one kernel each, placed at the window of their output pixel."""
    call, shape = relaxation.call, relaxation.shapes[0]
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
    relaxation: AffineRelaxation, rows: Selection, like: Tensor
) -> tuple[tuple[Selection, ...], Tensor] | None:
    """Ops that leave flat positions as they are: reshape, shift and add without broadcasting."""
    if any(math.prod(shape) != relaxation.call.node.size for shape in relaxation.shapes):
        return None
    offset = like.new_zeros(len(rows.index))
    if has_offset(relaxation.call):
        offset = relaxation.constant(like).flatten()[rows.index]
    return tuple(rows for _ in relaxation.shapes), offset


STARTS: dict[str, Start] = {
    "linear": _start_linear,
    "conv": _start_conv,
    "reshape": _start_same,
    "shift": _start_same,
    "add": _start_same,
}

_RULE = AffineRule()
RULES.update({name: _RULE for name, op in OPS.items() if op.kind is Kind.AFFINE})
