"""Sine, cosine and tangent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from relaxations.rule import Call, Interval, rule
from relaxations.scalar.curve import CurveRule
from relaxations.scalar.pieces import Piece, Stretch

TURN = 2 * math.pi


@rule("sin", "cos")
class WaveRule(CurveRule):
    """A wave of period 2 pi: around a trough t, within a quarter turn, it is convex and f'(x) = sin(x - t)."""

    image = (-1.0, 1.0)

    def trough(self, call: Call, side: int) -> float:
        """One place where side * f is -1."""
        low = -math.pi / 2 if call.node.op == "sin" else math.pi
        return low if side == 1 else low + math.pi

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """From the ends, and -1 and 1 where the box may hold a trough or a crest."""
        (box,) = inputs
        low, high = super().interval(call, inputs)
        slack = 4 * torch.finfo(low.dtype).eps * (1 + box.lower.abs().maximum(box.upper.abs()))
        wide = ~(box.width < TURN)
        for side, value in ((1, -1.0), (-1, 1.0)):
            trough = self.trough(call, side)
            first = ((box.lower - slack - trough) / TURN).ceil()
            found = wide | (first * TURN + trough <= box.upper + slack)
            low, high = (torch.where(found, value, low), high) if side == 1 else (low, torch.where(found, value, high))
        return Interval(low.clamp(*self.image), high.clamp(*self.image))

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Only for f': the wave bends too often to list."""
        derivative = torch.cos if call.node.op == "sin" else lambda x: -x.sin()
        return (Piece(-math.inf, math.inf, 0, derivative),)

    def slopes(self, call: Call, box: Interval) -> Interval:
        """-1 to 1."""
        return Interval(torch.full_like(box.lower, -1.0), torch.ones_like(box.lower))

    def stretches(self, call: Call, box: Interval, k: Tensor, side: int, x: Tensor | None) -> list[Stretch]:
        """The first and the last valley whose point of slope k is inside: of several the least is at one of these."""
        trough, shift = self.trough(call, side), k.clamp(-1, 1).asin()
        (whole,) = self.pieces(call, box)
        found = []
        first = ((box.lower - trough - shift) / TURN).ceil()
        last = ((box.upper - trough - shift) / TURN).floor()
        for number in (first, last):
            centre = trough + number * TURN
            empty = (first > last) | (k.abs() > 1)
            start = torch.where(empty, box.lower, box.lower.maximum(centre - math.pi / 2))
            end = torch.where(empty, box.lower, box.upper.minimum(centre + math.pi / 2)).maximum(start)
            x = (centre + shift).maximum(start).minimum(end)
            found.append(Stretch(start, end, x, side * whole.df(x), start, end))
        return found

    def valley(self, call: Call, box: Interval, side: int) -> tuple[Piece | None, Interval]:
        """Between the troughs around the midpoint: the half valley that the higher end of the box looks down on."""
        trough = self.trough(call, side)
        with torch.no_grad():
            left = trough + ((0.5 * (box.lower + box.upper) - trough) / TURN).floor() * TURN
        right = left + TURN
        near = Interval(box.lower.maximum(left), box.upper.minimum(right))
        rising = side * self.f(call, near.upper) >= side * self.f(call, near.lower)
        start, end = torch.where(rising, left, right - math.pi / 2), torch.where(rising, left + math.pi / 2, right)
        return Piece(start, end, side, self.pieces(call, box)[0].df), near


@rule("tan")
class TangentRule(CurveRule):
    """Tangent on one branch; a box that holds a pole has no bounds."""

    def valid(self, call: Call, box: Interval) -> Tensor:
        """Both ends on one branch, by a margin for the rounding of the pole."""
        slack = 4 * torch.finfo(box.lower.dtype).eps * (1 + box.lower.abs().maximum(box.upper.abs()))
        return ((box.lower - slack) / math.pi).round() == ((box.upper + slack) / math.pi).round()

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Concave left of the branch's zero, convex right of it."""
        zero = (0.5 * (box.lower + box.upper) / math.pi).round() * math.pi

        def df(x: Tensor) -> Tensor:
            return 1 + x.tan().square()

        return Piece(-math.inf, zero, -1, df), Piece(zero, math.inf, 1, df)
