"""Which entries of a value count in a tile sweep, with the lines of the scalar op that makes the value."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from relaxations.kernels.library import function, pointers
from relaxations.kernels.program import Geometry
from relaxations.scalar.lines import ScalarLines, Turns

Choice = tuple[float, float] | Turns | None  # what lines an op may have instead of its own


@dataclass(frozen=True)
class Entries:
    """Which entries of a value count, pixel by pixel, for each box (or for all alike: a batch of one).

    start (B, pixels + 1), channel and flat (B, size), all int32; lines (B, size) in the same order, or none: slope and
    bias of the lower line, those of the upper line, and the range of slopes that the lower line may have instead; for
    curved ops then what these four gain on the way to other lines, on one side and on the other.
    `finite`: whether all slopes are; a product with a slope that is not could be lost among those that are left out.
    """

    start: Tensor
    channel: Tensor
    flat: Tensor
    lines: tuple[Tensor, ...] = ()
    finite: bool = True

    @classmethod
    def of(cls, relaxation: ScalarLines, geometry: Geometry, choice: Choice = None) -> Entries:
        """The entries that the lines do not zero. Where the lines differ, the lower one may have any slope of a range;
        of curved ops, both lines may turn as far as two others.
        """
        channels, area = geometry[0], geometry[1] * geometry[2]
        like = relaxation.lower_slope
        given = _fields(choice.own if isinstance(choice, Turns) else relaxation)
        if isinstance(choice, Turns):
            given += [None, None, *_gains(choice.own, choice.left), *_gains(choice.own, choice.right)]
        elif choice is not None:
            given += [torch.where(like != relaxation.upper_slope, end, like) for end in choice]
        boxes = max(len(x) for x in given if x is not None)
        held = [None if x is None else x.expand(boxes, *x.shape[1:]).contiguous() for x in given]
        held += [None] * (6 - len(held))
        index = [torch.empty(boxes, n, dtype=torch.int32) for n in (area + 1, channels * area, channels * area)]
        lines = tuple(like.new_empty(boxes, channels * area) for _ in held)
        sizes = map(ctypes.c_int64, (boxes, channels, area))
        outputs = (*(ctypes.c_void_p(x.data_ptr()) for x in index), pointers(lines))
        finite = function("list", like.dtype)(*sizes, len(held), pointers(held), *outputs)
        return cls(index[0], index[1], index[2], lines, bool(finite))

    def to(self, dtype: torch.dtype) -> Entries:
        """The same lines in another precision, rounded to nearest."""
        return replace(self, lines=tuple(line.to(dtype) for line in self.lines))

    @staticmethod
    @lru_cache(maxsize=64)
    def all(geometry: Geometry) -> Entries:
        """Every entry, without lines."""
        channels, area = geometry[0], geometry[1] * geometry[2]
        pixel = torch.arange(area, dtype=torch.int32)
        channel = torch.arange(channels, dtype=torch.int32)
        flat = channel * area + pixel[:, None]
        start = torch.arange(0, channels * area + 1, channels, dtype=torch.int32)
        return Entries(start[None], channel.repeat(area)[None], flat.reshape(1, -1))


def _fields(lines: ScalarLines) -> list[Tensor | None]:
    return [lines.lower_slope, lines.lower_bias, lines.upper_slope, lines.upper_bias]


def _gains(own: ScalarLines, way: Sequence[ScalarLines]) -> Iterator[Tensor]:
    """What slopes and biases gain on each stretch of a way; nothing where a line on either end is not known."""
    for before, after in pairwise([_fields(line) for line in (own, *way)]):
        for slope, bias in ((0, 1), (2, 3)):
            gains = [_difference(after[i], before[i]) for i in (slope, bias)]
            known = gains[0].isfinite() & gains[1].isfinite()
            yield from (torch.where(known, gain, 0) for gain in gains)


def _difference(a: Tensor | None, b: Tensor | None) -> Tensor:
    if a is None:
        return torch.zeros(()) if b is None else -b
    return a if b is None else a - b
