"""Maxima and minima: of two values, over axes, over pooling windows.

For max(x_1 .. x_n) with intervals [l_j, u_j]:
- below: the entry with the largest midpoint (least volume among weights in the simplex);
- above: g + sum of chords of relu(x_j - g), for any g. Its value at the midpoint is smallest for every g between the
  third and the second largest u (not under the largest l). We take the second largest: then a single chord is left, and
  the plane never exceeds the largest u on the box. Where one entry dominates, both planes are that entry, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphs.ops.custom import pad_windows
from relaxations.planes import Picks, Plane, Planes, any_broadcast, shapes_of
from relaxations.products import full, ratio
from relaxations.rule import Call, Interval, Relaxation, Rule, rule


class MaximumRule(Rule):
    """What maxima share: monotone, so the interval is the op of the ends; minima are maxima of the negated inputs."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Exact."""
        return Interval(call.forward(*(i.lower for i in inputs)), call.forward(*(i.upper for i in inputs)))


def _negated(inputs: Sequence[Interval]) -> list[Interval]:
    return [Interval(-i.upper, -i.lower) for i in inputs]


@rule("maximum", "minimum")
class PairRule(MaximumRule):
    """The larger or the smaller of two values."""

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Planes:
        """The planes of the module's docstring; constants where an interval is infinite."""
        is_min = call.node.op == "minimum"
        x, y = full(_negated(inputs) if is_min else inputs)
        hull = Interval(x.lower.maximum(y.lower), x.upper.maximum(y.upper))
        zero, one = torch.zeros_like(x.lower), torch.ones_like(x.lower)
        first = (x.lower + x.upper >= y.lower + y.upper).to(one)
        below = Plane((first, 1 - first), zero)
        level = hull.lower.maximum(x.upper.minimum(y.upper))
        on_x = x.upper >= y.upper
        top = Interval(torch.where(on_x, x.lower, y.lower), hull.upper)
        slope = ratio(top.upper - level, top.width)
        above = Plane((torch.where(on_x, slope, 0), torch.where(on_x, 0, slope)), level - slope * top.lower)
        if is_min:  # min(x, y) = -max(-x, -y): slopes stay, biases and sides turn
            below, above = Plane(above.slopes, -above.bias), Plane(below.slopes, -below.bias)
            hull = Interval(-hull.upper, -hull.lower)
        return Planes.of(below, above, hull, shapes_of(inputs))

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries whose order is not known."""
        x, y = full(inputs)
        open_ = (x.lower < y.upper) & (y.lower < x.upper)
        return tuple(any_broadcast(open_, shape) for shape in shapes_of(inputs))


def windows_of(call: Call, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Flat positions of the entries that each output entry is taken over: (*N_out, k); -1 is padding."""
    place = torch.arange(torch.Size(shape).numel(), device=device).reshape(shape)
    attrs = call.attrs
    if "axes" in attrs:
        moved = place.movedim(list(attrs["axes"]), list(range(-len(attrs["axes"]), 0)))
        flat = moved.flatten(-len(attrs["axes"]))
        return flat.reshape(*call.node.shape, flat.shape[-1])
    place = pad_windows((place + 1).unsqueeze(0), attrs["padding"], 0).squeeze(0) - 1
    for axis, (kernel, stride, dilation) in enumerate(
        zip(attrs["kernel"], attrs["stride"], attrs["dilation"], strict=True)
    ):
        place = place.unfold(axis + 2, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    return place.flatten(len(shape))


@rule("reduce_max", "reduce_min", "max_pool")
class WindowRule(MaximumRule):
    """The largest or the smallest of each window of one input."""

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Relaxation:
        """One entry of the window below and one above, as the module's docstring says."""
        is_min = call.node.op == "reduce_min"
        (x,) = _negated(inputs) if is_min else inputs
        windows = windows_of(call, tuple(x.lower.shape[1:]), x.lower.device)
        low, high = (_windowed(end, windows) for end in x)
        least = torch.finfo(low.dtype).min  # even an unbounded entry comes before padding
        best = torch.where(windows >= 0, (low + high).nan_to_num(nan=least, neginf=least), -torch.inf).argmax(-1)
        top, at = high.topk(min(2, high.shape[-1]), -1)
        level = low.amax(-1)
        if top.shape[-1] == 2:
            level = level.maximum(top[..., 1])
        start = low.gather(-1, at[..., :1]).squeeze(-1)
        slope = ratio(top[..., 0] - level, top[..., 0] - start)
        places = windows.expand_as(low)
        planes = Picks(
            places.gather(-1, best.unsqueeze(-1)).squeeze(-1), torch.ones_like(level), torch.zeros_like(level),
            places.gather(-1, at[..., :1]).squeeze(-1), slope, level - slope * start, shapes_of(inputs),
        )  # fmt: skip
        hull = Interval(low.amax(-1), top[..., 0])
        planes = planes.or_constant(hull)
        return planes.negate() if is_min else planes

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries that may be the largest of a window in which several may."""
        (x,) = _negated(inputs) if call.node.op == "reduce_min" else inputs
        windows = windows_of(call, tuple(x.lower.shape[1:]), x.lower.device)
        low, high = (_windowed(end, windows) for end in x)
        may = (high > low.amax(-1, keepdim=True)) | (low == low.amax(-1, keepdim=True))
        may = may & (high > low) & (may.sum(-1, keepdim=True) > 1) & (windows >= 0)
        places = windows.clamp(min=0).expand_as(may).flatten(1)
        count = torch.zeros_like(x.lower.flatten(1)).scatter_add(1, places, may.flatten(1).to(x.lower))
        return ((count > 0).reshape(x.lower.shape),)


def _windowed(values: Tensor, windows: Tensor) -> Tensor:
    """Entries of (B, *N) by window, (B, *N_out, k); -inf for padding."""
    picked = values.flatten(1)[:, windows.clamp(min=0)]
    return torch.where(windows >= 0, picked, -torch.inf)
