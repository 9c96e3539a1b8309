"""Lines and planes that values lie between. Slopes are choices; constants are rounded outward. Shapes: (B, N)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verif.checker import convex, curves, waves
from verif.checker.network import Array, Step

UNIT = 2.0**-53
LARGEST = 1e100  # sizes beyond which nothing is shown, so that FLOOR covers all underflow
FLOOR = 1e-180
SAFETY = (
    1.001  # covers the rounding of the error terms themselves, sums of fewer than 1e9 numbers that are not negative
)


def gamma(count: int) -> float:
    """The relative error of a sum of `count` products."""
    return 1.01 * (count + 2) * UNIT


@dataclass(frozen=True)
class Range:
    """Sound ends of a value's numbers, (B, N)."""

    lower: Array
    upper: Array

    @property
    def size(self) -> Array:
        """Largest absolute values, (B, N)."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))


@dataclass(frozen=True)
class Lines:
    """What f(z) lies between: lower * z + base from below, upper * z + shift from above, each (B, N)."""

    lower: Array
    base: Array
    upper: Array
    shift: Array


@dataclass(frozen=True)
class Planes:
    """What x y lies between: coefficients of x and y, `lower` with `base` and `upper` with `shift`, each (B, N)."""

    lower: tuple[Array, Array]
    base: Array
    upper: tuple[Array, Array]
    shift: Array


def moved(step: Step, held: list[Range]) -> Range:
    """The range of a step that is exact and grows with its sources."""
    ends = [[getattr(one, end) for one in held] for end in ("lower", "upper")]
    if step.op == "pick":
        return Range(*(first[:, step.index] for (first,) in ends))
    return Range(*(np.maximum(first, *rest or (0.0,)) for first, *rest in ends))


def relu_lines(held: Range) -> Lines:
    """Lines around max(z, 0) for z in a range; the shift is rounded up."""
    lower, upper = np.minimum(held.lower, 0.0), np.maximum(held.upper, 0.0)
    width = upper - lower
    slope = np.clip(upper / np.where(width > 0, width, 1.0), 0.0, 1.0)
    slope = np.where(held.lower >= 0, 1.0, np.where(held.upper <= 0, 0.0, slope))
    # max(z, 0) - slope z is convex: it is largest at an end.
    ends = np.maximum(-slope * lower, (1.0 - slope) * upper)
    shift = np.where((held.lower >= 0) | (held.upper <= 0), 0.0, ends * (1.0 + 8 * UNIT) + FLOOR)
    return Lines(np.where(upper > -lower * (1.0 + 1e-9), 1.0, 0.0) * (slope > 0), np.zeros_like(slope), slope, shift)


def curve_lines(op: str, held: Range) -> Lines:
    """Lines around a floor, a wave, a convex curve, or one that is symmetric to a point: f(z) = top - f(-z)."""
    if op == "floor":  # between z - 1 and z, which is exact, but flat where it has one step at most
        ends = np.floor(held.lower), np.floor(held.upper)
        slope = np.where(ends[1] - ends[0] > 1.0, 1.0, 0.0)
        return Lines(slope, np.where(slope > 0, -1.0, ends[0]), slope, np.where(slope > 0, 0.0, ends[1]))
    if op in waves.WAVES:
        return Lines(*waves.lines(op, held.lower, held.upper))
    if op in convex.CONVEX:
        return Lines(*convex.lines(op, held.lower, held.upper))
    low, high = curves.below(op, held.lower, held.upper), curves.below(op, -held.upper, -held.lower)
    top = curves.CURVES[op][0]
    shift = top - high.shift
    return Lines(low.slope, low.shift, high.slope, shift + 2 * UNIT * (np.abs(shift) + np.abs(high.shift)))


def product_planes(first: Range, second: Range) -> Planes:
    """From below (x - xl) (y - yl) >= 0 or (xu - x) (yu - y) >= 0, from above those with yl and yu swapped, or means of
    both: where y >= 0, those in which y has no coefficient. Constants are rounded outward.
    """
    (xl, xu), (yl, yu) = (first.lower, first.upper), (second.lower, second.upper)
    mixed = (xl < 0) & (xu > 0) & (yl >= 0)
    share = np.where(yl < 0, 0.0, np.where(mixed, xl / np.where(mixed, xl - xu, 1.0), np.where(xu <= 0, 1.0, 0.0)))
    y = np.where(mixed, 0.0, (1 - share) * xl + share * xu)
    room = 24 * UNIT * first.size * second.size + FLOOR
    base, shift = (-(1 - share) * xl * low - share * xu * high for low, high in ((yl, yu), (yu, yl)))
    low, high = (1 - share) * yl + share * yu, (1 - share) * yu + share * yl
    return Planes((low, y), base - room, (high, y), shift + room)


def maximum_planes(first: Range, second: Range) -> Planes:
    """max(x, y) is no less than x or y. It is convex: a plane that is no less at the four corners lies above it."""
    (xl, xu), (yl, yu) = (first.lower, first.upper), (second.lower, second.upper)
    x = (xl / 2 + xu / 2 >= yl / 2 + yu / 2).astype(float)
    over, under = xl >= yu, yl >= xu
    wide, high = xu - xl, yu - yl
    a = np.where(over, 1.0, np.where(under | (yu >= xu), 0.0, (xu - yu) / np.where(wide > 0, wide, 1.0)))
    b = np.where(under & ~over, 1.0, np.where(over | (xu >= yu), 0.0, (yu - xu) / np.where(high > 0, high, 1.0)))
    corners = np.stack([np.maximum(p, q) - a * p - b * q for p in (xl, xu) for q in (yl, yu)])
    room = np.where(over | under, 0.0, 16 * UNIT * (first.size + second.size) + FLOOR)
    return Planes((x, 1.0 - x), np.zeros_like(x), (a, b), np.where(over | under, 0.0, corners.max(0) + room))
