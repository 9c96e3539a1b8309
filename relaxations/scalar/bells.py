"""Derivatives of activations: bells (convex, concave, convex) and the slopes of gated units (a dip, then a crest)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from graphs.ir import Node
from relaxations.rule import Call, Interval, rule
from relaxations.scalar.curve import CurveRule
from relaxations.scalar.pieces import Piece
from relaxations.scalar.table import COUNT, Table

_FAR = 6.0


def _between(mask: Tensor, first: Piece, last: Piece, side: int) -> Piece:
    """The first piece where the mask is set, else the last."""
    ends = [[torch.as_tensor(end).to(mask.device, torch.float64) for end in (p.start, p.end)] for p in (first, last)]
    start, end = (torch.where(mask, left, right) for left, right in zip(*ends, strict=True))
    return Piece(start, end, side, first.df)


class BellRule(CurveRule):
    """Base: even, largest in the origin; a rule gives f' and the inflection point right of the origin."""

    op: str
    bend: float
    turns = (0.0,)
    slope_noise = 8.0
    ulps = 8.0
    contact_steps = 100  # for the tables

    def derivative(self, x: Tensor) -> Tensor:
        """f'(x)."""
        raise NotImplementedError

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Convex, concave, convex."""
        df, b = self.derivative, self.bend
        return Piece(-math.inf, -b, 1, df), Piece(-b, b, -1, df), Piece(b, math.inf, 1, df)

    def valley(self, call: Call, box: Interval, side: int) -> tuple[Piece | None, Interval]:
        """Of the two tails the one that the higher end of the box looks down on."""
        left, middle, right = self.pieces(call, box)
        if side < 0:
            return middle, box
        return self._cast(_between(box.upper.abs() <= box.lower.abs(), left, right, side), box), box

    def _contacts(self, call: Call, box: Interval, valley: Piece, side: int) -> tuple[Tensor, Tensor]:
        """From tables: on a part of the valley the contact is as near as it gets to that on the whole valley."""
        start, end = torch.as_tensor(valley.start), torch.as_tensor(valley.end)
        crown, tail = _tables(self)
        if side < 0:
            first, last = -crown.at(-self.bend / box.lower), crown.at(self.bend / box.upper)
        else:
            reach = _FAR + self.bend
            first, last = tail.at((self.bend - box.lower) / reach), -tail.at((self.bend + box.upper) / reach)
        first, last = (x.maximum(start).minimum(end) for x in (first, last))
        return torch.where(box.lower < start, first, start), torch.where(box.upper > end, last, end)

    def slope(self, call: Call, box: Interval, chord: Tensor, side: int) -> tuple[Tensor, Tensor | None]:
        """The chord below boxes that reach so far out on both sides that no contact is found there."""
        slope, x = super().slope(call, box, chord, side)
        if side < 0:
            return slope, x
        far = (box.lower < -_FAR) & (box.upper > _FAR)
        return torch.where(far, chord, slope), None if x is None else torch.where(far, box.lower, x)

    @staticmethod
    def _cast(piece: Piece, box: Interval) -> Piece:
        return piece._replace(
            start=torch.as_tensor(piece.start).to(box.lower), end=torch.as_tensor(piece.end).to(box.lower)
        )


@cache
def _tables(rule: BellRule) -> tuple[Table, Table]:
    """Contacts right of the origin: with the crown from anchors x > bend, by bend / x; with the right tail from anchors
    between -_FAR and bend, by their share of the way from bend.
    """
    node = Node(rule.op, rule.op, ("x",), {}, {}, (1,))
    call, b = Call(node, {}), rule.bend

    def crown(u: Tensor) -> Tensor:
        whole = Piece(torch.full_like(u, -b), torch.full_like(u, b), -1, rule.derivative)
        found = rule._contact(call, b / u.clamp(min=0.25 / COUNT), whole, -1)
        return torch.where(u > 0, torch.where(u < 1, found, b), 0.0)

    def tail(u: Tensor) -> Tensor:
        whole = Piece(torch.full_like(u, b), torch.full_like(u, min(rule.reach, 40.0)), 1, rule.derivative)
        return torch.where(u > 0, rule._contact(call, b - u * (_FAR + b), whole, 1), b)

    return Table.of(crown), Table.of(tail)


@rule("sigmoid_slope")
class LogisticSlopeRule(BellRule):
    """s(x) s(-x), s the logistic function."""

    op = "sigmoid_slope"
    bend = 1.3169578969248166  # log(2 + sqrt(3))
    image = (0.0, 0.25)
    reach = 40.0

    def derivative(self, x: Tensor) -> Tensor:
        """-s' tanh(x / 2)."""
        return -x.sigmoid() * (-x).sigmoid() * (0.5 * x).tanh()


@rule("gauss")
class GaussRule(BellRule):
    """e^(-x^2)."""

    op = "gauss"
    bend = 0.7071067811865476
    image = (0.0, 1.0)
    reach = 7.0

    def noise(self, x: Tensor, value: Tensor) -> Tensor:
        """The rounding of x^2 grows with it."""
        near = x.clamp(-40, 40)
        return super().noise(x, value) * (1 + near * near)

    def derivative(self, x: Tensor) -> Tensor:
        """-2 x e^(-x^2)."""
        near = x.clamp(-1e3, 1e3)
        return -2 * near * (-near * near).exp()


@rule("lorentz")
class LorentzRule(BellRule):
    """1 / (1 + x^2)."""

    op = "lorentz"
    bend = 0.5773502691896258
    image = (0.0, 1.0)

    def derivative(self, x: Tensor) -> Tensor:
        """-2 x / (1 + x^2)^2."""
        size = (1 + x * x).reciprocal()
        return -2 * (x * size) * size


class GateSlopeRule(CurveRule):
    """Base: concave, a dip, a crest, convex; a rule gives f' and the outer inflection point (the inner one is 0)."""

    bend: float
    slope_noise = 16.0
    ulps = 8.0

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The sizes of the two terms of f(x)."""
        raise NotImplementedError

    def noise(self, x: Tensor, value: Tensor) -> Tensor:
        """Two terms of other signs are added left of the origin."""
        first, second = self.parts(x)
        near = x.clamp(-40, 40)
        size = first.abs() + second.abs() * (1 + near * near)
        return size * (self.ulps * torch.finfo(value.dtype).eps) + 1024 * torch.finfo(value.dtype).tiny

    def derivative(self, x: Tensor) -> Tensor:
        """f'(x)."""
        raise NotImplementedError

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Concave, convex, concave, convex."""
        df, b = self.derivative, self.bend
        bounds = (-math.inf, -b, 0.0, b, math.inf)
        return [Piece(bounds[i], bounds[i + 1], 1 if i % 2 else -1, df) for i in range(4)]

    def valley(self, call: Call, box: Interval, side: int) -> tuple[Piece | None, Interval]:
        """Below, the dip if the box reaches it, else the right tail; above, the crest, else the left tail."""
        tail_left, dip, crest, tail_right = self.pieces(call, box)
        if side > 0:
            chosen = _between(box.lower < 0, dip, tail_right, side)
        else:
            chosen = _between(box.upper > 0, crest, tail_left, side)
        return BellRule._cast(chosen, box), box


@rule("gelu_slope")
class GeluSlopeRule(GateSlopeRule):
    """Phi(x) + x phi(x)."""

    bend = 2.0
    turns = (-math.sqrt(2), math.sqrt(2))
    reach = 7.0

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Phi(x) and x phi(x)."""
        tail: Tensor = torch.special.erfc(x * -math.sqrt(0.5))
        near = x.clamp(-1e3, 1e3)
        return 0.5 * tail, near * (-0.5 * near * near).exp() * (1 / math.sqrt(2 * math.pi))

    def derivative(self, x: Tensor) -> Tensor:
        """phi(x) (2 - x^2)."""
        near = x.clamp(-1e3, 1e3)
        return (2 - near * near) * (-0.5 * near * near).exp() * (1 / math.sqrt(2 * math.pi))


@rule("silu_slope")
class SiluSlopeRule(GateSlopeRule):
    """s(x) (1 + x s(-x)), s the logistic function."""

    bend = 3.4358409935351113
    turns = (-2.3993572805154677, 2.3993572805154677)
    reach = 20.0

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """s(x) and x s'(x); the second is as accurate as the first."""
        gate = x.sigmoid()
        return gate, (x * (-x).sigmoid() * gate) / (1 + x.clamp(-40, 40).square())

    def derivative(self, x: Tensor) -> Tensor:
        """s'(x) (2 - x tanh(x / 2))."""
        return x.sigmoid() * (-x).sigmoid() * (2 - x * (0.5 * x).tanh())
