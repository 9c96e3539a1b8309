"""Sine and cosine with a proved rounding error, and lines around them.

x = k pi / 2 + r, |r| < 0.79: HALF_PI's first two parts have 33 bits, so that their products with k < 2^20 are exact;
what is left out of pi / 2 is below 2^-117, so r is off by less than 2^-51. The Taylor polynomials are off by less than
2^-80, Horner's rule by less than 4 units: in all less than VALUE. No second derivative exceeds 1: between points
that are h apart, f is no less than at one of these less h^2 / 8, and so is f less any line.
"""

from __future__ import annotations

import numpy as np

from verif.checker.curves import UNIT, VALUE
from verif.checker.network import Array

WAVES = ("sin", "cos")
HALF_PI = tuple(map(float.fromhex, ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2e037073p-69")))
FAR, WIDE = 2.0**20, 8.0  # no more is known of larger numbers, or of wider ranges, than that values lie in [-1, 1]
POINTS = 33


def values(op: str, z: Array) -> Array:
    """f(z), off by less than VALUE, for |z| <= FAR."""
    k = np.rint(z / HALF_PI[0])
    r = ((z - k * HALF_PI[0]) - k * HALF_PI[1]) - k * HALF_PI[2]
    square, sine, cosine = r * r, np.ones_like(r), np.ones_like(r)
    for n in range(22, 1, -2):
        sine, cosine = 1.0 - sine * square / (n * (n + 1)), 1.0 - cosine * square / (n * (n - 1))
    turn = (k.astype(np.int64) + (op == "cos")) % 4
    found: Array = np.where(turn % 2 == 0, r * sine, cosine) * np.where(turn < 2, 1.0, -1.0)
    return found


def _beyond(op: str, lower: Array, upper: Array, slope: Array) -> tuple[Array, Array]:
    """The least and the largest value of f(z) - slope z on a range; where it is far or wide, flat ones."""
    points = np.clip(lower + (upper - lower) * np.linspace(0.0, 1.0, POINTS)[:, None, None], lower, upper)
    points[-1] = upper
    points = np.clip(np.maximum.accumulate(points), -FAR, FAR)
    gaps = np.diff(points, axis=0).max(0)
    product = slope * points
    held = values(op, points) - product
    room = gaps * gaps / 8 * (1 + 8 * UNIT) + VALUE + 8 * UNIT * (np.abs(product).max(0) + 1.0)
    return held.min(0) - room, held.max(0) + room


def _known(lower: Array, upper: Array) -> Array:
    known: Array = (upper - lower <= WIDE) & (np.maximum(np.abs(lower), np.abs(upper)) <= FAR)
    return known


def ends(op: str, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The values on a range."""
    low, high = _beyond(op, lower, upper, np.zeros_like(lower))
    known = _known(lower, upper)
    return np.where(known, np.maximum(low, -1.0), -1.0), np.where(known, np.minimum(high, 1.0), 1.0)


def lines(op: str, lower: Array, upper: Array) -> tuple[Array, Array, Array, Array]:
    """Slope and shift of a line below, and of one above; the slope is that of the chord."""
    known, width = _known(lower, upper), upper - lower
    first, last = (values(op, np.clip(z, -FAR, FAR)) for z in (lower, upper))
    slope = np.where(known & (width > 0), np.clip((last - first) / np.where(width > 0, width, 1.0), -1.0, 1.0), 0.0)
    low, high = _beyond(op, lower, upper, slope)
    return slope, np.where(known, low, -1.0), slope, np.where(known, high, 1.0)
