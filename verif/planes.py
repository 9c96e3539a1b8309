"""What planes make of errors and sizes of their inputs, for bounds that count their rounding (`verif.running`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from graphs.ops import OPS, Kind
from relaxations import Call, Interval
from relaxations.lanes import STEEPEST, Lanes
from verif.carries import carry, top
from verif.roundoff import BENT, MOST, absolute


def passed_on(call: Call, held: Sequence[Interval], ts: Sequence[Tensor], unit: float) -> Tensor:
    """What |slopes| of any planes make of errors, (B or 1, *N)."""
    node, xs = call.node, list(ts)
    if OPS[node.op].kind is Kind.AFFINE:
        return absolute(call, xs)
    if node.op in BENT:
        return alive(call, held[0], xs[0] * steepest(call))
    if node.op == "softmax":
        axis = call.attrs["axis"]
        largest = xs[0].amax(1 + axis, keepdim=True).expand_as(xs[0])
        return torch.mul(largest, (1 + node.shape[axis]) * 1.01 * STEEPEST)
    found = carry(call, held, 2 * unit)
    return xs[0].new_full((1, *node.shape), math.inf) if found is None else found.through(xs)


def steepest(call: Call) -> float:
    """The steepest slope of max(x, a x) or |x|."""
    return max(1.0, abs(float({**call.attrs, **call.params}.get("slope", 0.0))))


def alive(call: Call, held: Interval, sizes: Tensor) -> Tensor:
    """Sizes, and 0 where a ReLU's lines are 0: rows end there."""
    return torch.where(held.upper < 0, 0.0, sizes) if call.node.op == "relu" else sizes


def planes_of_softmax(call: Call, held: Interval, sizes: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """Of planes of softmax: what rounding does to them, and the size of their terms.

    Planes have slopes with a sum of at most STEEPEST. They touch a concave or convex function at a point: values there
    are sums of n exponentials of differences of x, each off by gamma(1 + |x|) of itself, and so are slopes, which
    count with the distance to the point. Before rows are pulled, one number may be taken off all entries of a lane,
    which is no larger than a row's largest entry: each entry pays for its whole lane.
    """
    lanes = Lanes(tuple(held.lower.shape[1:]), (call.attrs["axis"],))
    x = lanes.split(top(held)).amax(-1, keepdim=True)
    mass, n = lanes.split(sizes).amax(-1, keepdim=True).maximum(x), lanes.split(sizes).shape[-1]
    steep = 1.01 * STEEPEST
    share = (32 * n + 256 * (1 + x)) * unit  # gamma of as many roundings
    off = torch.where(share < MOST, share / (1 - share), math.inf) * (1 + 3 * steep * x)
    whole = (1 + n) * torch.ones_like(lanes.split(sizes))
    return lanes.join(off * whole), lanes.join((2 + 2 * steep * mass) * whole)
