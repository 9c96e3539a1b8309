"""Affine ops. Inputs are batched (B, *N); weights and other constants carry no batch axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from graphs.ops.registry import Kind, op

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
SMALL = 256  # numbers of a channel up to which a depthwise convolution in float64 is a product with a dense matrix
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@op(Kind.AFFINE)
def linear(x: Tensor, *, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b over the last axis; weight (out, in), bias (out,)."""
    return F.linear(x, weight, bias)


@op(Kind.AFFINE)
def matmul_right(x: Tensor, *, weight: Tensor) -> Tensor:
    """x W, a stack of products; weight's rank is at most that of one sample of x, and at least 2."""
    return torch.matmul(x, weight)


@op(Kind.AFFINE)
def matmul_left(x: Tensor, *, weight: Tensor) -> Tensor:
    """W x, a stack of products; weight's rank is at most that of one sample of x, and at least 2."""
    return torch.matmul(weight, x)


@op(Kind.AFFINE)
def conv(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """Convolution in 1 to 3 dimensions of x (B, n, C, *space); weight (out, C / groups, *kernel)."""
    run, images = _CONV[len(stride)], x.flatten(0, 1)
    if groups > 1 and x.dtype == torch.float64 and _small(images, weight, groups):
        return _unflatten(_depthwise(images, weight, bias, (stride, padding, dilation)), x)
    y: Tensor = run(images, weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups)
    return _unflatten(y, x)


def _small(images: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether every channel is a group of its own and so small that its dense matrix costs less than torch's loop over
    groups and images, which is what float64 gets.
    """
    return images.shape[1] == groups == len(weight) and math.prod(images.shape[2:]) <= SMALL and len(images) > 1


def _depthwise(images: Tensor, weight: Tensor, bias: Tensor | None, where: Sequence[Sequence[int]]) -> Tensor:
    """A depthwise convolution of images (N, C, *space) as one product by a dense matrix for each channel."""
    space, (stride, padding, dilation) = images.shape[2:], map(tuple, where)
    units = torch.eye(math.prod(space), dtype=images.dtype, device=images.device).reshape(-1, 1, *space)
    dense = _CONV[len(space)](units, weight, None, stride, padding, dilation)
    y = torch.matmul(images.flatten(2).transpose(0, 1), dense.flatten(2).transpose(0, 1)).transpose(0, 1)
    return (y if bias is None else y + bias[:, None]).reshape(len(images), *dense.shape[1:])


@op(Kind.AFFINE)
def conv_transpose(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """Transposed convolution of x (B, n, C, *space); weight (C, out / groups, *kernel)."""
    run = _CONV_TRANSPOSE[len(stride)]
    y: Tensor = run(
        x.flatten(0, 1), weight, bias, tuple(stride), tuple(padding), tuple(output_padding), groups, tuple(dilation)
    )
    return _unflatten(y, x)


@op(Kind.AFFINE, monotone=True)
def avg_pool(
    x: Tensor, *, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], count_include_pad: bool = True
) -> Tensor:
    """Average pooling of x (B, n, C, *space)."""
    y: Tensor = _AVG_POOL[len(kernel)](
        x.flatten(0, 1), tuple(kernel), tuple(stride), tuple(padding), count_include_pad=count_include_pad
    )
    return _unflatten(y, x)


@op(Kind.AFFINE, monotone=True)
def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y of two variables of equal rank (axes of size 1 broadcast)."""
    return x + y


@op(Kind.AFFINE)
def sub(x: Tensor, y: Tensor) -> Tensor:
    """x - y of two variables of equal rank (axes of size 1 broadcast)."""
    return x - y


@op(Kind.AFFINE)
def neg(x: Tensor) -> Tensor:
    """-x."""
    return -x


@op(Kind.AFFINE)
def scale(x: Tensor, *, factor: Tensor) -> Tensor:
    """x times a constant that broadcasts to it or that it broadcasts to; the constant's rank is at most x's."""
    return x * factor


@op(Kind.AFFINE, monotone=True)
def shift(x: Tensor, *, offset: Tensor) -> Tensor:
    """x plus a constant that broadcasts to it or that it broadcasts to; the constant's rank is at most x's."""
    return x + offset


@op(Kind.AFFINE, monotone=True)
def sum_(x: Tensor, *, axes: Sequence[int], keepdims: bool = False) -> Tensor:
    """Sum over axes (numbered without the batch axis, from 0)."""
    return x.sum([a + 1 for a in axes], keepdim=keepdims)


@op(Kind.AFFINE, monotone=True)
def mean(x: Tensor, *, axes: Sequence[int], keepdims: bool = False) -> Tensor:
    """Mean over axes (numbered without the batch axis, from 0)."""
    return x.mean([a + 1 for a in axes], keepdim=keepdims)


@op(Kind.AFFINE, monotone=True)
def cumsum(x: Tensor, *, axis: int) -> Tensor:
    """Running sum along an axis (without the batch axis)."""
    return x.cumsum(axis + 1)


@op(Kind.AFFINE, monotone=True)
def reshape(x: Tensor, *, shape: Sequence[int]) -> Tensor:
    """The same numbers in another shape (without the batch axis; no -1)."""
    return x.reshape(x.shape[0], *shape)


@op(Kind.AFFINE, monotone=True)
def transpose(x: Tensor, *, perm: Sequence[int]) -> Tensor:
    """Permute the axes (numbered without the batch axis)."""
    return x.permute(0, *(p + 1 for p in perm))


@op(Kind.AFFINE, monotone=True)
def slice_(x: Tensor, *, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """x[start:stop:step] along one axis; 0 <= start <= stop <= size, step > 0."""
    index = [slice(None)] * (axis + 1) + [slice(start, stop, step)]
    return x[tuple(index)]


@op(Kind.AFFINE, monotone=True)
def gather(x: Tensor, *, index: Tensor, axis: int) -> Tensor:
    """Take entries along an axis by a constant integer tensor of any rank (non-negative); its axes replace `axis`."""
    shape = (*x.shape[: axis + 1], *index.shape, *x.shape[axis + 2 :])
    repeats = _repeats(index, x.shape[axis + 1])  # of nearest up-sampling, which takes a tenth of the time this way
    if repeats > 1:
        return x.repeat_interleave(repeats, axis + 1).reshape(shape)
    return x.index_select(axis + 1, index.reshape(-1)).reshape(shape)


@op(Kind.AFFINE, monotone=True)
def pick(x: Tensor, *, index: Tensor) -> Tensor:
    """Entries of the flattened sample by a constant integer tensor; the result has its shape."""
    return x.reshape(x.shape[0], -1).index_select(1, index.reshape(-1)).reshape(x.shape[0], *index.shape)


@op(Kind.AFFINE, monotone=True)
def concat(*xs: Tensor, axis: int, layout: Sequence[int | str] = (), **constants: Tensor) -> Tensor:
    """Join along an axis. `layout` orders the parts where some are constants: an int is an input, a str a param."""
    batch = xs[0].shape[0]
    parts = [
        xs[part] if isinstance(part, int) else constants[part].expand(batch, *constants[part].shape)
        for part in (layout or range(len(xs)))
    ]
    return torch.cat(parts, axis + 1)


@op(Kind.AFFINE, monotone=True)
def pad(x: Tensor, *, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """Surround with a constant; `before` and `after` per axis (without the batch axis); negative ones crop."""
    pairs = [n for pair in reversed(list(zip(before, after, strict=True))) for n in pair]
    return F.pad(x, pairs, value=value)


@op(Kind.AFFINE, monotone=True)
def expand(x: Tensor, *, shape: Sequence[int]) -> Tensor:
    """Repeat along axes of size 1 (shape without the batch axis, of the same rank)."""
    return x.expand(x.shape[0], *shape)


@op(Kind.AFFINE, monotone=True)
def tile(x: Tensor, *, repeats: Sequence[int]) -> Tensor:
    """Repeat whole copies along each axis."""
    return x.repeat(1, *repeats)


@op(Kind.AFFINE, monotone=True)
def select(x: Tensor, y: Tensor, *, mask: Tensor) -> Tensor:
    """x where the constant mask is true, else y; all of one shape."""
    return torch.where(mask, x, y)


@op(Kind.AFFINE, monotone=True)
def scatter(x: Tensor, updates: Tensor, *, index: Tensor) -> Tensor:
    """x with the entries at constant flat positions (no position twice) replaced by `updates`, in order."""
    flat = x.reshape(x.shape[0], -1).clone()
    flat[:, index.reshape(-1)] = updates.reshape(x.shape[0], -1)
    return flat.reshape(x.shape)


def _repeats(index: Tensor, size: int) -> int:
    """How often an index takes each of `size` entries, one after the other; 0 where it does anything else."""
    count, rest = divmod(index.numel(), max(1, size))
    if count < 2 or rest or index.device.type != "cpu":
        return 0
    return count if torch.equal(index.reshape(size, count), torch.arange(size)[:, None].expand(-1, count)) else 0


def _unflatten(y: Tensor, x: Tensor) -> Tensor:
    """Undo `x.flatten(0, 1)` on the result."""
    return y.reshape(*x.shape[:2], *y.shape[1:])
