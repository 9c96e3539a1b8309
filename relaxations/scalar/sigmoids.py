"""S-shaped functions: one inflection at the origin, convex on one side of it and concave on the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from relaxations.rule import Call, Interval, rule
from relaxations.scalar.curve import CurveRule, Piece


class SigmoidRule(CurveRule):
    """Base of odd functions up to a shift; a rule gives f' and the non-negative solution of f'(x) = k."""

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
