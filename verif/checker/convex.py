"""exp and 1 / z, z > 0, with a proved rounding error, and lines around them. Both are convex: they lie below their
chords and above their tangents.
"""

from __future__ import annotations

import numpy as np

from verif.checker.curves import FLAT, FLOOR, UNIT, exponential
from verif.checker.errors import Refused
from verif.checker.network import Array

CONVEX = ("exp", "reciprocal")
RELATIVE = 2.0**-44  # of values and of slopes


def values(op: str, z: Array) -> Array:
    """f(z), off by less than RELATIVE of it, for z within FLAT."""
    return exponential(np.clip(z, -FLAT, FLAT)) if op == "exp" else 1.0 / z


def ends(op: str, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The values on a range."""
    if op == "reciprocal":
        if not (lower > 0).all():
            raise Refused("a reciprocal of what may be 0")
        return values(op, upper) * (1.0 - RELATIVE), values(op, lower) * (1.0 + RELATIVE)
    low = np.where(lower < -FLAT, 0.0, values(op, lower) * (1.0 - RELATIVE))
    high = values(op, upper) * (1.0 + RELATIVE) + FLOOR
    return low, np.where(upper > FLAT, np.inf, high)


def lines(op: str, lower: Array, upper: Array) -> tuple[Array, Array, Array, Array]:
    """Slope and shift of a line below, and of one above. The slopes are choices, the shifts are sound for any."""
    touch = np.minimum(lower / 2 + upper / 2, lower + 1.0) if op == "exp" else np.sqrt(lower) * np.sqrt(upper)
    touch = np.clip(touch, lower, upper)
    value = values(op, touch)
    slope = value if op == "exp" else -value * value
    # The tangent has the slope of f, off from this one by no more than `room`.
    room = 4 * RELATIVE * np.abs(slope)
    least = value * (1.0 - RELATIVE) - slope * touch - room * np.maximum(touch - lower, upper - touch)
    base = least - 8 * UNIT * (value + np.abs(slope * touch)) - FLOOR
    if op == "exp":  # below -FLAT the exponential is 0 or more, and values() is not its value
        slope, base = np.where(touch < -FLAT, 0.0, slope), np.where(touch < -FLAT, 0.0, base)
    tops = [values(op, z) * (1.0 + RELATIVE) + FLOOR for z in (lower, upper)]
    width = upper - lower
    chord = np.nan_to_num((tops[1] - tops[0]) / np.where(width > 0, width, 1.0)) * (width > 0)
    shift = np.maximum(tops[0] - chord * lower, tops[1] - chord * upper)
    size = np.abs(chord) * np.maximum(np.abs(lower), np.abs(upper)) + np.maximum(*tops)
    return slope, base, chord, shift + 8 * UNIT * size + FLOOR
