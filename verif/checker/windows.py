"""2-D convolutions as linear maps: by images and taps of the kernel, never unfolded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from verif.checker.errors import Refused
from verif.checker.values import Array, count


@dataclass(frozen=True)
class Window:
    """A convolution of images `shape` (C, H, W) with a kernel (O, C / groups, P, Q); pads are top, left, bottom, right.

    `reverse` is its transpose. Shape letters: T images, G groups, L places of the kernel.
    """

    kernel: Array
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int = 1
    reverse: bool = False

    def __post_init__(self) -> None:
        outputs, depth = self.kernel.shape[:2]
        if min(self.shape) < 1:
            raise Refused("an image without numbers")
        fits = self.groups > 0 and self.shape[0] == depth * self.groups and not outputs % self.groups
        if not fits or min(self.strides) < 1 or min(self.pads) < 0 or min(self.places) < 1:
            raise Refused("a convolution whose shapes do not fit")
        count((outputs, *self.places))
        count(self.padded)

    @property
    def padded(self) -> tuple[int, int, int]:
        """The image with its pads."""
        channels, high, wide = self.shape
        return channels, high + self.pads[0] + self.pads[2], wide + self.pads[1] + self.pads[3]

    @property
    def places(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        _, high, wide = self.padded
        _, _, p, q = self.kernel.shape
        return (high - p) // self.strides[0] + 1, (wide - q) // self.strides[1] + 1

    @property
    def T(self) -> Window:
        """The transpose, as of an array."""
        return replace(self, reverse=not self.reverse)

    @property
    def fan(self) -> int:
        """Terms of each number of the result."""
        kernel = self.kernel.size // len(self.kernel)
        return self.kernel.size // self.groups if self.reverse else kernel

    @property
    def work(self) -> int:
        """Products in all."""
        rows, columns = self.places
        return self.kernel.size * rows * columns

    def times(self, x: Array) -> Array:
        """The map of each x (..., N)."""
        found = self._back(x.reshape(-1, x.shape[-1])) if self.reverse else self._forth(x.reshape(-1, x.shape[-1]))
        return found.reshape(*x.shape[:-1], -1)

    def _taps(self) -> list[tuple[Array, tuple[slice, ...]]]:
        """Of each tap its weights (G, O / G, C / G) and the entries of a padded image that it meets."""
        (down, right), (rows, columns) = self.strides, self.places
        outputs, depth, high, wide = self.kernel.shape
        weights = self.kernel.reshape(self.groups, outputs // self.groups, depth, high, wide)
        every = slice(None)
        return [
            (
                np.ascontiguousarray(weights[..., p, q]),
                (every, every, slice(p, p + down * rows, down), slice(q, q + right * columns, right)),
            )
            for p in range(high)
            for q in range(wide)
        ]

    def _forth(self, x: Array) -> Array:
        channels, high, wide = self.shape
        top, left = self.pads[:2]
        image = np.zeros((len(x), *self.padded))
        image[:, :, top : top + high, left : left + wide] = x.reshape(-1, channels, high, wide)
        found = np.zeros((len(x), self.groups, len(self.kernel) // self.groups, self.places[0] * self.places[1]))
        for weights, entries in self._taps():
            found += weights @ image[entries].reshape(len(x), self.groups, channels // self.groups, -1)
        return found

    def _back(self, y: Array) -> Array:
        _, high, wide = self.shape
        top, left = self.pads[:2]
        image = np.zeros((len(y), *self.padded))
        held = y.reshape(len(y), self.groups, len(self.kernel) // self.groups, -1)
        for weights, entries in self._taps():
            image[entries] += (weights.swapaxes(1, 2) @ held).reshape(len(y), self.shape[0], *self.places)
        return np.ascontiguousarray(image[:, :, top : top + high, left : left + wide])


def times(matrix: Array | Window, x: Array) -> Array:
    """matrix @ x for each x (..., N)."""
    if isinstance(matrix, Window):
        return matrix.times(x)
    found: Array = x @ matrix.T
    return found


def sizes(matrix: Array | Window) -> Array | Window:
    """The absolute values of a matrix."""
    return replace(matrix, kernel=np.abs(matrix.kernel)) if isinstance(matrix, Window) else np.abs(matrix)


def terms(matrix: Array | Window) -> int:
    """Products in each number of matrix @ x."""
    return matrix.fan if isinstance(matrix, Window) else matrix.shape[1]


def unfolded(matrix: Array | Window, size: int) -> Array:
    """As an array, of `size` columns."""
    return matrix.times(np.eye(size)).T if isinstance(matrix, Window) else matrix
