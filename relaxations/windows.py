"""Rows on feature maps that are zero outside a small window: what a convolution's unit rows are, several layers deep.

A row that starts at one output pixel of a convolution touches only that pixel's receptive field. Keeping the field
alone saves most of the arithmetic and memory that dense rows take (the idea of "patches", Xu et al. 2020, section 4,
here without unfolding). Shape letters: R rows, T signs, C channels, H x W the map, h x w the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from relaxations import kernels
from relaxations.sets import Box


@dataclass(frozen=True)
class Window:
    """Rows (R, T, C, h, w); entry (0, 0) of row r lies at map position corner[r] (R, 2), which may be outside.

    Entries outside the map (1, C, H, W) count as zero whatever they hold, until `clean` says that they are.
    """

    rows: Tensor
    corner: Tensor
    shape: tuple[int, ...]
    clean: bool = False

    def view(self, owner: Tensor | None) -> _View:
        """How to read per-box maps at the windows; row r belongs to box owner[r] (None: all to the only one)."""
        frame = self._frame()
        start = frame.start(self.corner)
        if owner is not None:
            start = start + owner * (self.shape[1] * frame.height * frame.width)
        places, inverse = start.unique(return_inverse=True)
        index = (places[:, None] + frame.inside(self)).reshape(-1)
        return _View(index, inverse, self.rows.shape[3:], frame)

    def _frame(self) -> _Frame:
        """The map with just the margin that the windows need."""
        (height, width), (h, w) = self.shape[2:], self.rows.shape[3:]
        low, high = self.corner.amin(0).tolist(), self.corner.amax(0).tolist()
        top, left = max(0, -low[0]), max(0, -low[1])
        bottom, right = max(0, high[0] + h - height), max(0, high[1] + w - width)
        return _Frame(top, left, height + top + bottom, width + left + right, (left, right, top, bottom))

    def cleaned(self) -> Window:
        """The same with zeros outside the map."""
        if self.clean:
            return self
        mask = self.view(None).read(self.rows.new_ones(1, *self.shape))
        return replace(self, rows=self.rows * mask[:, None], clean=True)

    def dense(self) -> Tensor:
        """Rows on the whole map, (R, T, 1, C, H, W)."""
        _, channels, height, width = self.shape
        count, signs = self.rows.shape[:2]
        frame = self._frame()
        canvas = self.rows.new_zeros(count, signs, channels * frame.height * frame.width)
        index = (frame.start(self.corner)[:, None] + frame.inside(self))[:, None].expand(-1, signs, -1)
        canvas.scatter_(2, index, self.rows.flatten(2))
        canvas = canvas.reshape(count, signs, 1, channels, frame.height, frame.width)
        return canvas[..., frame.top : frame.top + height, frame.left : frame.left + width]

    def negated(self) -> Window:
        """Both signs: the negated rows behind the rows along T."""
        return replace(self, rows=torch.cat([self.rows, -self.rows], 1))

    def plus(self, other: Window) -> Window | None:
        """The sum on a window that holds both; None where the windows lie differently from row to row, or the maps are
        of other shapes.
        """
        shift = other.corner - self.corner
        if self.shape != other.shape or not bool((shift == shift[:1]).all()):
            return None
        dy, dx = shift[0].tolist()
        (h, w), (k, m) = self.rows.shape[3:], other.rows.shape[3:]
        top, left = max(0, -dy), max(0, -dx)
        bottom, right = max(0, dy + k - h), max(0, dx + m - w)
        a, b = self.cleaned(), other.cleaned()
        total = F.pad(a.rows, (left, right, top, bottom))
        if not self.rows.requires_grad and not other.rows.requires_grad:
            total[..., top + dy : top + dy + k, left + dx : left + dx + m] += b.rows
        else:
            rest = (left + dx, total.shape[4] - left - dx - m, top + dy, total.shape[3] - top - dy - k)
            total = total + F.pad(b.rows, rest)
        return Window(total, self.corner - torch.tensor([top, left]), self.shape, True)


@dataclass(frozen=True)
class _Frame:
    """A map with a margin, `top` and `left` of it before the map; `margin` as torch pads the last two axes."""

    top: int
    left: int
    height: int
    width: int
    margin: tuple[int, int, int, int]

    def start(self, corner: Tensor) -> Tensor:
        """Flat position of each window's first entry, (R,)."""
        return (corner[:, 0] + self.top) * self.width + corner[:, 1] + self.left

    def inside(self, window: Window) -> Tensor:
        """Flat positions of a window's entries from its first one, (C * h * w,)."""
        _, _, channels, h, w = window.rows.shape
        plane = torch.arange(channels)[:, None, None] * self.height + torch.arange(h)[:, None]
        return (plane * self.width + torch.arange(w)).reshape(-1)


@dataclass(frozen=True)
class _View:
    """Flat positions of windows in framed maps, each distinct window once."""

    index: Tensor
    inverse: Tensor
    size: Sequence[int]
    frame: _Frame

    def read(self, maps: Tensor) -> Tensor:
        """Maps (B, 1, C, H, W), zero outside, at the windows: (R, C, h, w)."""
        framed = F.pad(maps[:, 0], self.frame.margin).reshape(-1)
        return framed[self.index].reshape(-1, maps.shape[2], *self.size)[self.inverse]


def minimize(box: Box, rows: Window, owner: Tensor | None) -> Tensor:
    """Minimum over each box of windows on its flat input, (R, T); `owner` as in `Window.view`."""
    view = rows.view(owner)
    center, radius = (view.read(x.reshape(-1, *rows.shape)).flatten(1) for x in (box.center, box.radius))
    return kernels.minimize(rows.rows.flatten(2), center, radius)
