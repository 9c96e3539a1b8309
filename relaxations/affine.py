"""Affine ops: exact in every direction. Hot ones have a hand-written transpose, the others use the op's own vjp.

A law checks every transpose against vjp. Interval and forward mode share one identity: with the midpoint m and the half
difference r of a pair (lower, upper), the pair of W x is (W m - |W| r, W m + |W| r); ops without negative
coefficients, and those of one coefficient an entry, map the two ends directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs.ops import OPS, Kind
from relaxations.ends import SERVED, Ends
from relaxations.finite import known
from relaxations.rule import RULES, Affine, Call, Interval, Relaxation, Rule
from relaxations.selections import STARTS, Selection, constant, has_offset
from relaxations.transposes import TRANSPOSES, Shapes, vjp_transpose


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
        return flat.reshape(len(flat), -1) @ constant(self.call, self.shapes, flat).flatten()

    def start(self, rows: Selection, like: Tensor) -> tuple[tuple[Tensor | Selection, ...], Tensor] | None:
        """`pull` of unit rows without building them, flat: (R, *N_in) and (R,); None where that has no short cut."""
        short_cut = STARTS.get(self.call.node.op)
        return short_cut(self.call, self.shapes, rows, like) if short_cut else None

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """Exact: slopes are mapped by the linear part, biases by the op itself."""
        lower_slope, upper_slope = _pair(self.call, [(a.lower_slope, a.upper_slope) for a in inputs], linear=True)
        lower_bias, upper_bias = _pair(self.call, [(a.lower_bias, a.upper_bias) for a in inputs], linear=False)
        return Affine(lower_slope, lower_bias, upper_slope, upper_bias)


class AffineRule(Rule):
    """The rule of every affine op."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact when the inputs' entries vary independently; infinite ends stay sound (NaN becomes infinite)."""
        return known(*_pair(call, [(i.lower, i.upper) for i in inputs], linear=False))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> AffineRelaxation:
        """The op itself."""
        return AffineRelaxation(call, tuple(tuple(i.lower.shape[1:]) for i in inputs))


def _pair(call: Call, pairs: Sequence[tuple[Tensor, Tensor]], *, linear: bool) -> tuple[Tensor, Tensor]:
    """Map (lower, upper) pairs through the op; `linear` drops the op's offset and takes (B, K, *N) tensors."""
    if not linear:
        return _ends(call, [p[0] for p in pairs], [p[1] for p in pairs], linear=False)
    lead = pairs[0][0].shape[:2]
    lower = [p[0].flatten(0, 1) for p in pairs]
    upper = [low if p[1] is p[0] else p[1].flatten(0, 1) for p, low in zip(pairs, lower, strict=True)]
    low, high = _ends(call, lower, upper, linear=True)
    below = low.unflatten(0, lead)
    return below, below if high is low else high.unflatten(0, lead)


def _ends(call: Call, lower: list[Tensor], upper: list[Tensor], *, linear: bool) -> tuple[Tensor, Tensor]:
    """The op on pairs. One tensor on both sides, as before the first nonlinear op, stays one tensor."""
    drop = {"bias": None} if linear and "bias" in call.params else {}
    same = all(low is high for low, high in zip(lower, upper, strict=True))
    if same or OPS[call.node.op].monotone:
        low = call.forward(*lower, **drop)
        high = low if same else call.forward(*upper, **drop)
        if linear and not drop and has_offset(call):
            zero = call.forward(*(x.new_zeros(1, *x.shape[1:]) for x in lower))
            low = low - zero
            high = low if same else high - zero
        return low, high
    signed = SIGNED.get(call.node.op)
    if signed is not None:  # entry by entry: each end comes from one end, with no rounding on the way
        return signed(call, lower, upper)
    if call.node.op in SERVED and not drop and torch.is_grad_enabled():
        given = lower[0], upper[0], call.params["weight"], call.params.get("bias")
        if any(x is not None and x.requires_grad for x in given):
            low, high = Ends.apply(call, *given)  # type: ignore[no-untyped-call]
            return low, high
    middles = [a.lerp(b, 0.5) for a, b in zip(lower, upper, strict=True)]
    spread = _absolute(call, [b - m for b, m in zip(upper, middles, strict=True)])
    middle = call.forward(*middles, **drop)
    return middle - spread, middle.add_(spread)


def _absolute(call: Call, xs: list[Tensor]) -> Tensor:
    """|linear part| applied to xs."""
    drop = {"bias": None} if "bias" in call.params else {}
    return call.forward(*xs, weight=call.magnitude("weight"), **drop)


def _scale(call: Call, lower: list[Tensor], upper: list[Tensor]) -> tuple[Tensor, Tensor]:
    factor = call.params["factor"]
    low, high = lower[0] * factor, upper[0] * factor
    return torch.where(factor >= 0, low, high), torch.where(factor >= 0, high, low)


SIGNED = {
    "neg": lambda call, lower, upper: (-upper[0], -lower[0]),
    "sub": lambda call, lower, upper: (lower[0] - upper[1], upper[0] - lower[1]),
    "scale": _scale,
}
_RULE = AffineRule()
RULES.update({name: _RULE for name, op in OPS.items() if op.kind is Kind.AFFINE})
