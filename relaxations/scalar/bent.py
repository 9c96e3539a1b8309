"""Two half-lines that meet in the origin, x for x >= 0 and a x for x < 0: ReLU and its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from relaxations.finite import all_finite, known
from relaxations.kernels import pairs
from relaxations.rule import Call, Interval, rule
from relaxations.scalar.lines import ScalarLines
from relaxations.scalar.rule import ScalarRule

_SLOPES = {"relu": 0.0, "abs": -1.0}


class Chord(torch.autograd.Function):
    """ReLU's lines over boxes: slope and bias of the upper one, and the slope of the lower one, without a gradient."""

    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor, bool]:
        """As `pairs.chord`."""
        slope, bias, flat, finite = pairs.chord(lower, upper)
        ctx.save_for_backward(lower, upper)
        ctx.mark_non_differentiable(flat)
        ctx.set_materialize_grads(False)
        return slope, bias, flat, finite

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        """With w = u - l and k = u / w: dk/du = (1 - k) / w, dk/dl = k / w, and d(-k l) = -l dk - k dl."""
        lower, upper = ctx.saved_tensors
        of_slope, of_bias = (torch.zeros_like(lower) if grad is None else grad for grad in grads[:2])
        return pairs.chord_gradient(lower, upper, of_slope, of_bias)


@rule("relu", "leaky_relu", "prelu", "abs")
class BentRule(ScalarRule):
    """One line is the chord; the other goes through the origin with one of the two slopes, whichever leaves less area.

    For ReLU these are the lines of CROWN with its adaptive lower slope (Zhang et al. 2018, section 3.3).
    Values are kept as differences of slopes times x, so that intercepts have a relative error and zero stays zero.
    """

    ulps = 1.0
    turns = (0.0,)

    def slope(self, call: Call) -> Tensor | float:
        """The slope a left of the origin; a tensor broadcasts to one sample."""
        fixed = _SLOPES.get(call.node.op)
        found: Tensor | float = {**call.attrs, **call.params}["slope"] if fixed is None else fixed
        return found

    def lower_slopes(self, call: Call) -> tuple[float, float] | None:
        """Any line through the origin between the two half-lines is below a convex one."""
        a = self.slope(call)
        return (a, 1.0) if not isinstance(a, Tensor) and a <= 1 else None

    def noise(self, x: Tensor, value: Tensor) -> Tensor:
        """Only a x is rounded."""
        return torch.where(x < 0, value.abs() * torch.finfo(value.dtype).eps, 0)

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries that can have either sign."""
        (box,) = inputs
        return ((box.lower < 0) & (box.upper > 0),)

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """From the ends: few enough operations that an interval pass costs little beside its products."""
        (box,), a = inputs, self.slope(call)
        if isinstance(a, Tensor) or a < -1 or -1 < a < 0:
            return super().interval(call, inputs)
        if a == 0:
            return known(box.lower.relu(), box.upper.relu())
        if a < 0:
            return known(box.lower.maximum(-box.upper).relu(), box.upper.maximum(-box.lower))
        eps = 2 * torch.finfo(box.lower.dtype).eps  # the rounding of a and of the product
        rates = a * (1 + eps), a * (1 - eps)
        return known(*(x.relu() + x.clamp(max=0) * rate for x, rate in zip(box, rates, strict=True)))

    def lines(self, call: Call, box: Interval) -> ScalarLines:
        """Chord and adaptive line."""
        a = self.slope(call)
        if not isinstance(a, Tensor) and a == 0 and torch.is_grad_enabled() and any(x.requires_grad for x in box):
            chord, bias, flat, finite = Chord.apply(*box)  # type: ignore[no-untyped-call]
            if finite:
                return ScalarLines(flat, None, chord, bias)
        info = torch.finfo(box.lower.dtype)
        left, right = box.lower.clamp(max=0), box.upper.relu()
        share = right / (right - left).clamp(min=info.tiny)
        chord = a + (1 - a) * share if isinstance(a, Tensor) or a else share
        ends = (a - chord) * left, (1 - chord) * right
        convex = a <= 1
        if isinstance(convex, Tensor):
            bias = torch.where(convex, ends[0].maximum(ends[1]), ends[0].minimum(ends[1]))
        else:
            bias = ends[0].maximum(ends[1]) if convex else ends[0].minimum(ends[1])
        bias = bias * (1 + 2 * info.eps)
        flat = self._flat(a, box)
        if not all_finite(bias):
            finite = bias.isfinite()
            low, high = self.interval(call, [box])
            outer = torch.where(torch.as_tensor(convex, device=bias.device), high, low)
            chord, bias = torch.where(finite, chord, 0), torch.where(finite, bias, outer)
        if isinstance(convex, Tensor):
            zero = torch.zeros_like(bias)
            return ScalarLines(
                torch.where(convex, flat, chord),
                torch.where(convex, zero, bias),
                torch.where(convex, chord, flat),
                torch.where(convex, bias, zero),
            )
        return ScalarLines(flat, None, chord, bias) if convex else ScalarLines(chord, bias, flat, None)

    def _flat(self, a: Tensor | float, box: Interval) -> Tensor:
        """The slope of the line through the origin: 1 where the box reaches further right than left, else a."""
        if isinstance(a, float) and a == 0:  # twice as fast as a comparison and a choice
            with torch.no_grad():
                return (box.lower + box.upper).sign_().clamp_(min=0).nan_to_num_(nan=0.0)
        ones = torch.ones_like(box.lower)
        return torch.where(box.upper > -box.lower, ones, torch.as_tensor(a, dtype=ones.dtype, device=ones.device))

    def lines_at(self, call: Call, box: Interval, lower_slope: Tensor, upper_slope: Tensor) -> ScalarLines:
        """Intercepts from the two ends and the origin, where it is inside."""
        lower_bias = self._intercept(call, box, lower_slope, -1)
        upper_bias = self._intercept(call, box, upper_slope, 1)
        return self.guarded(call, box, ScalarLines(lower_slope, lower_bias, upper_slope, upper_bias))

    def _intercept(self, call: Call, box: Interval, k: Tensor, side: int) -> Tensor:
        """The largest (side 1) or smallest (side -1) value of f(x) - k x over the box, rounded outward."""
        a = self.slope(call)
        left, right = (a - k) * side, (1 - k) * side
        ends = [left * x.clamp(max=0) + right * x.clamp(min=0) for x in box]
        best = ends[0].maximum(ends[1])
        best = torch.where((box.lower < 0) & (box.upper > 0), best.clamp(min=0), best)
        eps = torch.finfo(best.dtype).eps
        return side * best + best.detach().abs() * (2 * eps * side)
