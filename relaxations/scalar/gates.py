"""Gated units, x times a sigmoid of x: concave, then convex around the origin, then concave."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from relaxations.rule import Call, Interval, rule
from relaxations.scalar.curve import CurveRule
from relaxations.scalar.pieces import Map, Piece


class GateRule(CurveRule):
    """Base: a rule gives f and f', the inflection points `bends` and where f is least (`turns`).

    Left of the inflections f' < 0, right of them f' > 1: no line touches both concave pieces.
    """

    bends: tuple[float, float]
    slope_noise = 8.0
    reach = 20.0

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and f'(x), which share their costly part."""
        raise NotImplementedError

    def derivative(self, x: Tensor) -> Tensor:
        """f'(x)."""
        return self.both(x)[1]

    def value_and_slope(self, call: Call, x: Tensor, df: Map) -> tuple[Tensor, Tensor]:
        """Both, at once."""
        return self.both(x)

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Concave, convex, concave."""
        left, right = self.bends
        df = self.derivative
        return Piece(-math.inf, left, -1, df), Piece(left, right, 1, df), Piece(right, math.inf, -1, df)


@rule("silu")
class SiluRule(GateRule):
    """x s(x), s the logistic function."""

    bends = (-2.3993572805154677, 2.3993572805154677)
    turns = (-1.2784645427610738,)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f' = s(x) (1 + x s(-x))."""
        gate = x.sigmoid()
        return x * gate, gate * (1 + x * (-x).sigmoid())


@rule("mish")
class MishRule(GateRule):
    """x tanh(softplus(x))."""

    ulps = 8.0
    bends = (-2.2563763963607931, 1.4905711794854285)
    turns = (-1.1924312145154952,)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f' = tanh(p) + x (1 - tanh(p)^2) s(x), p = softplus(x)."""
        p = torch.logaddexp(x, torch.zeros_like(x))
        gate = p.tanh()
        return x * gate, gate + x * x.sigmoid() * (4 * (2 * p).sigmoid() * (-2 * p).sigmoid())


class NormalGateRule(GateRule):
    """Base of both GELUs: left of the origin an exponential whose argument grows like x^2 spreads its rounding."""

    reach = 7.0

    def noise(self, x: Tensor, value: Tensor) -> Tensor:
        """A relative error of 4 (1 + x^2) eps left of the origin."""
        left = x.clamp(-40, 0)
        return super().noise(x, value) * (1 + left * left)


@rule("gelu")
class GeluRule(NormalGateRule):
    """x Phi(x), Phi the normal distribution function."""

    bends = (-math.sqrt(2), math.sqrt(2))
    turns = (-0.7517915246935645,)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f' = Phi(x) + x phi(x)."""
        value = x * (gate := _normal(x))
        return value, gate + x * ((-0.5 * x * x).exp() * (1 / math.sqrt(2 * math.pi)))


@rule("gelu_tanh")
class GeluTanhRule(NormalGateRule):
    """x s(2 v) with v = sqrt(2 / pi) (x + 0.044715 x^3), which is the usual form by tanh."""

    bends = (-1.4185040087908284, 1.4185040087908284)
    turns = (-0.7524614220710163,)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f' = s + x s (1 - s) (2 v)'; beyond 40 the second term is 0 and would overflow."""
        near = x.clamp(-40, 40)
        twice, rate = _twice(near), 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * near * near)
        gate = twice.sigmoid()
        return x * gate, gate * (1 + near * rate * (-twice).sigmoid())


def _normal(x: Tensor) -> Tensor:
    """The normal distribution function."""
    tail: Tensor = torch.special.erfc(x * -math.sqrt(0.5))
    return 0.5 * tail


def _twice(x: Tensor) -> Tensor:
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


@rule("hard_swish")
class HardSwishRule(GateRule):
    """0 up to -3, x (x + 3) / 6 up to 3, then x."""

    bends = (-3.0, 3.0)
    kinked = True
    turns = (-1.5,)

    def noise(self, x: Tensor, value: Tensor) -> Tensor:
        """x / 6 + 1/2 cancels left of the origin."""
        return super().noise(x, value) + 3 * torch.finfo(x.dtype).eps * ((x > -3) & (x < 0))

    def value_and_slope(self, call: Call, x: Tensor, df: Map) -> tuple[Tensor, Tensor]:
        """One after the other: f' is that of a piece."""
        return self.f(call, x), df(x)

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Between kinks that bend down, so that the outer lines count as concave."""
        return (
            Piece(-math.inf, -3.0, -1, torch.zeros_like),
            Piece(-3.0, 3.0, 1, lambda x: (2 * x + 3) / 6, lambda k: 3 * k - 1.5),
            Piece(3.0, math.inf, -1, torch.ones_like),
        )
