"""Two half-lines that meet in the origin, x for x >= 0 and a x for x < 0: ReLU and its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from relaxations.finite import all_finite, known
from relaxations.kernels.rectified import rectify
from relaxations.rule import Call, Interval, rule
from relaxations.scalar.lines import ScalarLines
from relaxations.scalar.rule import ScalarRule

_SLOPES = {"relu": 0.0, "abs": -1.0}


class Chord(torch.autograd.Function):
    """Slope and intercept of ReLU's upper line over boxes, with a third of the operations that the tape would take."""

    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """For ends (B, *N); rounded outward."""
        info = torch.finfo(lower.dtype)
        left, right = lower.clamp(max=0), upper.relu()
        width = (right - left).clamp_(min=info.tiny)
        share = right / width
        ctx.save_for_backward(lower, upper, width, share)
        bias = (share * left).neg_().maximum((1 - share).mul_(right))
        return share, bias.mul_(1 + 2 * info.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """With w = u - l: dk/du = (1 - k) / w, dk/dl = k / w, and d(-k l) = -l dk - k dl."""
        lower, upper, width, share = ctx.saved_tensors
        of_share, of_bias = grads
        rate = torch.addcmul(of_share, of_bias, lower.clamp(max=0), value=-1).div_(width)
        of_lower = (rate - of_bias).mul_(share).masked_fill_(lower >= 0, 0)
        return of_lower, rate.mul_(1 - share).masked_fill_(upper <= 0, 0)


class Rectified(ScalarLines):
    """ReLU's lines over a box in training: the native kernel makes them while rows pass; else they are made when asked
    for.
    """

    box: Interval
    made: Callable[[], ScalarLines]

    def __init__(self, box: Interval, made: Callable[[], ScalarLines]) -> None:
        self.__dict__.update(box=box, made=made)

    def __getattr__(self, name: str) -> Tensor | None:
        if name not in {field.name for field in fields(ScalarLines)}:
            raise AttributeError(name)
        self.__dict__.update(vars(self.made()))
        found: Tensor | None = self.__dict__[name]
        return found

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """As of the lines."""
        found = rectify(rows, *self.box)
        return super().pull(rows) if found is None else ((found[0],), found[1])

    def take(self, owner: Tensor) -> Self:
        """Of other boxes."""
        lower, upper = (x.index_select(0, owner) if len(x) > 1 else x for x in self.box)
        return type(self)(Interval(lower, upper), lambda: self.made().take(owner))


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
            return Rectified(box, lambda: self._lines(call, box))
        return self._lines(call, box)

    def _lines(self, call: Call, box: Interval) -> ScalarLines:
        a = self.slope(call)
        if not isinstance(a, Tensor) and a == 0 and torch.is_grad_enabled() and any(x.requires_grad for x in box):
            chord, bias = Chord.apply(*box)  # type: ignore[no-untyped-call]
            if all_finite(bias):
                return ScalarLines(self._flat(a, box), None, chord, bias)
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
