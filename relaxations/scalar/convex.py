"""Functions of one curvature, or of one on each side of the origin: exponentials, logarithm, roots and powers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from relaxations.rule import Call, Interval, rule
from relaxations.scalar.curve import CurveRule
from relaxations.scalar.pieces import Piece


@rule("exp")
class ExponentialRule(CurveRule):
    """e^x; infinite where that overflows."""

    image = (0.0, math.inf)

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Convex."""
        return (Piece(-math.inf, math.inf, 1, torch.exp, torch.log),)


@rule("stable_exp")
class StableExponentialRule(CurveRule):
    """x + 1 where x >= 0, else 1 / (1 - x)."""

    image = (0.0, math.inf)

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Convex, then straight, with equal slopes where they meet."""

        def df(x: Tensor) -> Tensor:
            return (1 - x.clamp(max=0)).square().reciprocal()

        return Piece(-math.inf, 0.0, 1, df, lambda k: 1 - k.rsqrt()), Piece(0.0, math.inf, 1, torch.ones_like)


@rule("softplus")
class SoftplusRule(CurveRule):
    """log(1 + e^x)."""

    image = (0.0, math.inf)

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Convex."""
        return (Piece(-math.inf, math.inf, 1, torch.sigmoid, torch.logit),)


@rule("log_softplus")
class LogSoftplusRule(CurveRule):
    """log log(1 + e^x)."""

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Concave; f' = s(x) / softplus(x), which tends to 1 - e^x / 2 on the left."""

        def df(x: Tensor) -> Tensor:
            e = x.clamp(max=-12.0).exp()
            right = x.clamp(min=-12.0)
            return torch.where(x < -12.0, 1 - e / 2 + e * e / 6, right.sigmoid() / torch.logaddexp(right, 0 * right))

        return (Piece(-math.inf, math.inf, -1, df),)


@rule("log")
class LogarithmRule(CurveRule):
    """Natural logarithm; a box that leaves x >= 0 has no bounds, one that touches 0 no lower bound."""

    def valid(self, call: Call, box: Interval) -> Tensor:
        """x >= 0."""
        return box.lower >= 0

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Concave."""
        return (Piece(0.0, math.inf, -1, torch.reciprocal, torch.reciprocal),)


@rule("sqrt")
class RootRule(CurveRule):
    """Square root; a box that leaves x >= 0 has no bounds."""

    image = (0.0, math.inf)

    def valid(self, call: Call, box: Interval) -> Tensor:
        """x >= 0."""
        return box.lower >= 0

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Concave."""
        return (Piece(0.0, math.inf, -1, lambda x: 0.5 * x.rsqrt(), lambda k: 0.25 / (k * k)),)


@rule("power", "square", "reciprocal")
class PowerRule(CurveRule):
    """x^p. Without bounds: boxes with 0 inside for p < 0 (a pole), or that leave x >= 0 for p not an integer."""

    turns = (0.0,)

    def exponent(self, call: Call) -> float:
        """The exponent p."""
        fixed = {"square": 2.0, "reciprocal": -1.0}
        return float(fixed[call.node.op] if call.node.op in fixed else call.attrs["exponent"])

    def range(self, call: Call) -> tuple[float, float]:
        """Even and fractional powers are never negative."""
        return (-math.inf if self.exponent(call) % 2 == 1 else 0.0), math.inf

    def valid(self, call: Call, box: Interval) -> Tensor | None:
        """The side of 0 on which x^p is defined."""
        p = self.exponent(call)
        if p == int(p):
            return None if p >= 0 else (box.lower > 0) | (box.upper < 0)
        return box.lower >= 0 if p > 0 else box.lower > 0

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """f' = p x^(p - 1); odd powers bend one way on each side of 0."""
        p = self.exponent(call)

        def df(x: Tensor) -> Tensor:
            return p * x.pow(p - 1)

        def size(k: Tensor) -> Tensor:
            return (k / p).abs().pow(1 / (p - 1))

        right = (p > 1) - (p < 1) if p > 0 else 1
        if p in (0.0, 1.0):
            return (Piece(-math.inf, math.inf, 0, df),)
        if p % 2 == 0:
            return (Piece(-math.inf, math.inf, 1, df, lambda k: size(k).copysign(k / p)),)
        if p % 2 == 1:
            return Piece(-math.inf, 0.0, -1, df, lambda k: -size(k)), Piece(0.0, math.inf, 1, df, size)
        return (Piece(0.0, math.inf, right, df, size),)


@rule("elu", "celu")
class ExponentialUnitRule(CurveRule):
    """x for x > 0, else alpha (e^x - 1), or alpha (e^(x / alpha) - 1): a kink in the origin unless alpha is 1."""

    kinked = True
    turns = (0.0,)

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Left an exponential, right a line; together convex for 0 <= alpha <= 1 and for celu."""
        alpha = float(call.attrs.get("alpha", 1.0))
        scale, rate = (alpha, 1.0) if call.node.op == "elu" else (1.0, 1 / alpha)

        def df(x: Tensor) -> Tensor:
            return scale * (x.clamp(max=0) * rate).exp()

        def inverse(k: Tensor) -> Tensor:
            return (k / scale).log() / rate

        left, right = (1 if scale >= 0 else -1), (1 if scale <= 1 else -1)
        return (
            Piece(-math.inf, 0.0, left, df, inverse),
            Piece(0.0, math.inf, right, torch.ones_like),
        )
