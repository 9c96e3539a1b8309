"""Sigmoid and tanh with a proved rounding error, and lines around them.

exp: x = k ln 2 + r, |r| <= 0.36; the Taylor polynomial of degree 14 is off by r^15 / 15! * 1.6 < 2^-61 of e^r. The
products k * LOG2[0] are exact (32 bits times 10), r is off by less than 2^-52, Horner's rule by less than 4 units: in
all less than 2^-49 of the result. Lines have any slope k; their shifts come from sound values of f(z) - k z:

    where f is concave, it is least at an end; where f is convex, it lies above its tangent at any point p.

Lines above come from lines below by symmetry: f(z) = TOP - f(-z).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verif.checker.network import Array

UNIT = 2.0**-53
LOG2 = float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33")  # their sum is ln 2 to 2^-86
FLAT = 700.0  # beyond it e^-x is at most FLOOR
FLOOR = 2.0**-1000
VALUE = 2.0**-46  # absolute errors of f, at most 1 in size, and of its slope
CURVES = {"sigmoid": (1.0, 0.25), "tanh": (0.0, 1.0)}  # f(z) + f(-z), and the steepest slope


@dataclass(frozen=True)
class Below:
    """slope * z + shift lies below f on a range, entry by entry."""

    slope: Array
    shift: Array


def exponential(x: Array) -> Array:
    """e^x for |x| <= FLAT, off by less than 2^-49 of it."""
    k = np.rint(x / np.log(2.0))
    r = (x - k * LOG2[0]) - k * LOG2[1]
    value = np.ones_like(r)
    for n in range(14, 0, -1):
        value = 1.0 + r * value / n
    found: Array = np.ldexp(value, k.astype(np.int64))
    return found


def values(op: str, z: Array) -> Array:
    """f(z), off by less than VALUE."""
    size = np.abs(z)
    small = exponential(-np.minimum(size * (2.0 if op == "tanh" else 1.0), FLAT))
    above: Array = (1.0 - small if op == "tanh" else np.where(z < 0, small, 1.0)) / (1.0 + small)
    return np.copysign(above, z) if op == "tanh" else above


def steepness(op: str, z: Array) -> Array:
    """f'(z), off by less than 4 VALUE."""
    value = values(op, z)
    found: Array = (value if op == "sigmoid" else 1.0 + value) * (1.0 - value)
    return found


def ends(op: str, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The values on a range."""
    return values(op, lower) - VALUE, values(op, upper) + VALUE


def below(op: str, lower: Array, upper: Array) -> Below:
    """A line below f. Its slope is a choice, its shift is sound for any."""
    slope = _slope(op, lower, upper)
    ending = np.minimum(upper, 0.0)  # of the part where f is convex
    starting = np.maximum(lower, 0.0)  # of the part where it is concave
    place = np.clip(_touching(op, slope), np.minimum(lower, ending), ending)
    rise = steepness(op, place) - slope
    # Rounded differences are charged twice; what is below -FLAT or beyond has a slope of nothing.
    room = 4 * VALUE + 4 * UNIT
    tangent = np.minimum((rise + room) * (lower - place), (rise - room) * (ending - place))
    curved = _above_line(op, place, slope) + tangent - 8 * UNIT * np.abs(tangent)
    ended = np.minimum(_above_line(op, starting, slope), _above_line(op, upper, slope))
    least = np.where(lower >= 0, ended, np.where(upper <= 0, curved, np.minimum(curved, ended)))
    return Below(slope, least - 4 * UNIT * np.abs(least) - FLOOR)


def _above_line(op: str, z: Array, slope: Array) -> Array:
    """f(z) - slope z, from below."""
    product: Array = slope * z
    return values(op, z) - product - VALUE - 4 * UNIT * (np.abs(product) + 1.0)


def _slope(op: str, lower: Array, upper: Array) -> Array:
    """Of the chord where f is concave or bends late, else of the tangent through the upper end or in the middle."""
    width = upper - lower
    chord = (values(op, upper) - values(op, lower)) / np.where(width > 0, width, 1.0)
    left, right = lower.copy(), np.minimum(upper, 0.0)
    for _ in range(30):  # where the tangent meets the upper end, by bisection
        middle = (left + right) / 2
        gap = upper - middle
        over = values(op, middle) + steepness(op, middle) * gap > values(op, upper)
        left, right = np.where(over, left, middle), np.where(over, middle, right)
    through = steepness(op, left)
    tangent = np.where(upper <= 0, steepness(op, (lower + upper) / 2), through)
    early = (lower >= 0) | (values(op, lower) + steepness(op, lower) * width >= values(op, upper)) & (upper > 0)
    slope = np.where(width > 0, np.where(early, chord, tangent), 0.0)
    found: Array = np.clip(np.nan_to_num(slope), 0.0, CURVES[op][1])
    return found


def _touching(op: str, slope: Array) -> Array:
    """Where f, convex, has this slope, or nearly."""
    part = np.sqrt(np.clip(1.0 - slope / CURVES[op][1], 0.0, 1.0))
    with np.errstate(divide="ignore"):
        found = np.log1p(-part) - np.log1p(part)
    return found if op == "sigmoid" else found / 2
