"""S-shaped functions: one inflection at the origin, convex on one side of it and concave on the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from relaxations.rule import Call, Interval, rule
from relaxations.scalar.curve import CurveRule
from relaxations.scalar.pieces import Piece


class SigmoidRule(CurveRule):
    """Base of odd functions up to a shift; a rule gives f' and the non-negative solution of f'(x) = k."""

    contact_steps = 3  # leave a relative error of about 1e-6

    def derivative(self, x: Tensor) -> Tensor:
        """f'(x)."""
        raise NotImplementedError

    def distance(self, k: Tensor) -> Tensor:
        """|x| where f'(x) = k."""
        raise NotImplementedError

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """Convex, then concave."""
        return (
            Piece(-math.inf, 0.0, 1, self.derivative, lambda k: -self.distance(k)),
            Piece(0.0, math.inf, -1, self.derivative, self.distance),
        )


@rule("sigmoid")
class LogisticRule(SigmoidRule):
    """1 / (1 + e^-x)."""

    image = (0.0, 1.0)

    def derivative(self, x: Tensor) -> Tensor:
        """s(x) s(-x): no cancellation."""
        return x.sigmoid() * (-x).sigmoid()

    def distance(self, k: Tensor) -> Tensor:
        """log(q / (1 - q)) with q (1 - q) = k."""
        q = 0.5 + 0.5 * (1 - 4 * k).sqrt()
        return 2 * q.log() - k.log()


@rule("tanh")
class TanhRule(SigmoidRule):
    """Hyperbolic tangent."""

    image = (-1.0, 1.0)

    def derivative(self, x: Tensor) -> Tensor:
        """1 - tanh^2 as 4 s(2 x) s(-2 x): no cancellation."""
        return 4 * (2 * x).sigmoid() * (-2 * x).sigmoid()

    def distance(self, k: Tensor) -> Tensor:
        """artanh sqrt(1 - k)."""
        return (1 - k).sqrt().log1p() - 0.5 * k.log()


@rule("erf")
class ErfRule(SigmoidRule):
    """Error function."""

    image = (-1.0, 1.0)

    def derivative(self, x: Tensor) -> Tensor:
        """2 / sqrt(pi) e^(-x^2)."""
        return (2 / math.sqrt(math.pi)) * (-x * x).exp()

    def distance(self, k: Tensor) -> Tensor:
        """sqrt(log(2 / (k sqrt(pi))))."""
        return (math.log(2 / math.sqrt(math.pi)) - k.log()).sqrt()


@rule("atan")
class ArctangentRule(SigmoidRule):
    """Arctangent."""

    image = (-1.5707963267948968, 1.5707963267948968)

    def derivative(self, x: Tensor) -> Tensor:
        """1 / (1 + x^2)."""
        return (1 + x * x).reciprocal()

    def distance(self, k: Tensor) -> Tensor:
        """sqrt(1 / k - 1)."""
        return ((1 - k) / k).sqrt()


@rule("softsign")
class SoftsignRule(SigmoidRule):
    """x / (1 + |x|)."""

    image = (-1.0, 1.0)

    def derivative(self, x: Tensor) -> Tensor:
        """1 / (1 + |x|)^2."""
        return (1 + x.abs()).square().reciprocal()

    def distance(self, k: Tensor) -> Tensor:
        """1 / sqrt(k) - 1."""
        return k.rsqrt() - 1


@rule("signed_log")
class SignedLogRule(SigmoidRule):
    """sign(x) log(1 + |x|)."""

    def derivative(self, x: Tensor) -> Tensor:
        """1 / (1 + |x|)."""
        return (1 + x.abs()).reciprocal()

    def distance(self, k: Tensor) -> Tensor:
        """1 / k - 1."""
        return k.reciprocal() - 1


@rule("asin")
class ArcsineRule(CurveRule):
    """Arcsine: concave, then convex, with vertical ends."""

    image = (-1.5707963267948968, 1.5707963267948968)

    def valid(self, call: Call, box: Interval) -> Tensor:
        """-1 to 1."""
        return (box.lower >= -1) & (box.upper <= 1)

    def pieces(self, call: Call, box: Interval) -> Sequence[Piece]:
        """f' = 1 / sqrt(1 - x^2)."""

        def df(x: Tensor) -> Tensor:
            return ((1 - x) * (1 + x)).rsqrt()

        def distance(k: Tensor) -> Tensor:
            return (1 - (k * k).reciprocal()).sqrt()

        return Piece(-math.inf, 0.0, -1, df, lambda k: -distance(k)), Piece(0.0, math.inf, 1, df, distance)
