"""Points with short decimals near a solver's point, which is off by its tolerance: where a condition is met only at its
boundary, that decides. Shape letters: P points, n inputs.
"""

from __future__ import annotations

import numpy as np

from verif.exact.matrices import Array

SNAP = 1e-6  # of an interval's width: how near to its end an input is moved onto it
GRIDS = tuple(float(2**k) for k in (0, 2, 4, 6, 8, 10, 12, 16, 20)) + tuple(float(10**k) for k in (1, 2, 3, 4, 5))


def nearby(points: Array, lower: Array, upper: Array) -> Array:
    """The points (P, n), the same with inputs moved onto the ends of the box (n,) that they nearly touch, and rounded
    to multiples of powers of 1/2 and 1/10 from the finest to the coarsest, all inside the box.
    """
    width = SNAP * (upper - lower)
    snapped = np.where(points - lower <= width, lower, np.where(upper - points <= width, upper, points))
    ends = (snapped == lower) | (snapped == upper)
    rounded = [np.where(ends, snapped, np.round(snapped * grid) / grid) for grid in sorted(GRIDS, reverse=True)]
    found = np.concatenate([points, snapped, *rounded])
    return np.unique(np.clip(found, lower, upper), axis=0)
