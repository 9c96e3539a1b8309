"""Intervals of decimals and the numbers of a model's element type that lie in them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verif.errors import PropertyError

Floats = NDArray[np.float64]
_TYPES = {
    "float16",
    "float32",
    "float64",
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


def boxes(lower: Tensor, upper: Tensor, dtypes: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outer and inner boxes (see `verif.query.Query`): outer lower, outer upper, inner lower, inner upper.

    `lower` and `upper` (D, n) float64; `dtypes` maps an element type to the positions (of n) that have it.
    """
    outer = [lower.double().numpy().copy(), upper.double().numpy().copy()]
    inner = [array.copy() for array in outer]
    for dtype, positions in dtypes.items():
        at = positions.numpy()
        results = _inwards(outer[0][:, at], outer[1][:, at], element(dtype))
        for array, values in zip((*outer, *inner), results, strict=True):
            array[:, at] = values
    return tuple(torch.from_numpy(array) for array in (*outer, *inner))  # type: ignore[return-value]


def element(dtype: str) -> np.dtype[np.generic]:
    """numpy's name of an element type. Raises PropertyError for those that numpy itself does not have (bfloat16)."""
    if dtype not in _TYPES:
        raise PropertyError("P113", f"inputs of type {dtype} are not supported", help="export it in float32")
    return np.dtype(dtype)


def _inwards(lower: Floats, upper: Floats, dtype: np.dtype[np.generic]) -> tuple[Floats, Floats, Floats, Floats]:
    if dtype == np.float64:
        return lower, upper, lower, upper
    low, high = up(lower, dtype), down(upper, dtype)
    none = low > high
    near = nearest((lower + upper) / 2, dtype)
    low, high = np.where(none, near, low), np.where(none, near, high)
    return np.minimum(lower, low), np.maximum(upper, high), low, high


def nearest(values: Floats, dtype: np.dtype[np.generic]) -> Floats:
    """The nearest numbers of the type, as float64."""
    if dtype.kind in "iub":
        return np.round(values)
    with np.errstate(over="ignore"):
        return values.astype(dtype).astype(np.float64)


def up(values: Floats, dtype: np.dtype[np.generic]) -> Floats:
    """The least numbers of the type that are at least `values`, as float64."""
    if dtype.kind in "iub":
        return np.ceil(values)
    with np.errstate(over="ignore"):
        near = values.astype(dtype)
        return np.where(near < values, np.nextafter(near, np.array(np.inf, dtype)), near).astype(np.float64)


def down(values: Floats, dtype: np.dtype[np.generic]) -> Floats:
    """The greatest numbers of the type that are at most `values`, as float64."""
    return -up(-values, dtype)
