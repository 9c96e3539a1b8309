"""Ops with a rule of their own: maxima, normalisers, choices and indexing by computed values.

Inputs are batched (B, *N); axes are numbered without the batch axis. Truth values are 0.0 and 1.0, indices are floats.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from graphs.ops.registry import Kind, op
from graphs.ops.scalar import signed_log

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _batched(axes: Sequence[int]) -> list[int]:
    """Axes of a sample as axes of a batch."""
    return [axis + 1 for axis in axes]


@op(Kind.CUSTOM, monotone=True)
def maximum(x: Tensor, y: Tensor) -> Tensor:
    """The larger of two variables of equal rank, elementwise (axes of size 1 broadcast)."""
    return torch.maximum(x, y)


@op(Kind.CUSTOM, monotone=True)
def minimum(x: Tensor, y: Tensor) -> Tensor:
    """The smaller of two variables of equal rank, elementwise (axes of size 1 broadcast)."""
    return torch.minimum(x, y)


@op(Kind.CUSTOM, monotone=True)
def reduce_max(x: Tensor, *, axes: Sequence[int], keepdims: bool = False) -> Tensor:
    """Maximum over axes."""
    return x.amax(_batched(axes), keepdim=keepdims)


@op(Kind.CUSTOM, monotone=True)
def reduce_min(x: Tensor, *, axes: Sequence[int], keepdims: bool = False) -> Tensor:
    """Minimum over axes."""
    return x.amin(_batched(axes), keepdim=keepdims)


def pad_windows(x: Tensor, padding: Sequence[int], value: float) -> Tensor:
    """Pad the trailing spatial axes: one number per axis (both sides), or all begins followed by all ends."""
    space = x.dim() - 3
    begins, ends = (padding, padding) if len(padding) == space else (padding[:space], padding[space:])
    pairs = [n for pair in reversed(list(zip(begins, ends, strict=True))) for n in pair]
    return F.pad(x, pairs, value=value) if any(pairs) else x


@op(Kind.CUSTOM, monotone=True)
def max_pool(
    x: Tensor, *, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Max pooling of x (B, n, C, *space), padded with -inf; padding per axis, or all begins then all ends (as ONNX)."""
    inside = tuple(padding)
    if len(inside) != len(kernel) or not all(0 <= 2 * n <= k for n, k in zip(inside, kernel, strict=True)):
        # torch itself pads by half a window at most
        x, inside = pad_windows(x, padding, float("-inf")), (0,) * len(kernel)
    y: Tensor = _MAX_POOL[len(kernel)](x.flatten(0, 1), tuple(kernel), tuple(stride), inside, tuple(dilation))
    return y.reshape(*x.shape[:2], *y.shape[1:])


@op(Kind.CUSTOM)
def softmax(x: Tensor, *, axis: int, mask: Tensor | None = None) -> Tensor:
    """exp(x) divided by its sum along an axis, over the entries that a mask (0 or 1, broadcast to x) keeps; else 0."""
    if mask is None:
        return x.softmax(axis + 1)
    return x.masked_fill(mask == 0, -torch.inf).softmax(axis + 1)


@op(Kind.CUSTOM, monotone=True)
def top_k(x: Tensor, *, k: int, axis: int) -> Tensor:
    """The k largest entries along an axis, in falling order."""
    return x.topk(k, axis + 1).values


@op(Kind.CUSTOM)
def top_k_softmax(x: Tensor, gaps: Tensor | None = None, *, k: int, axis: int) -> Tensor:
    """Softmax among the k largest entries along an axis (of equal ones the first), 0 elsewhere: sparse gating.

    `gaps`, where given, are x_j - x_i (..., n, n): what x says already, for bounds.
    """
    place = x.sort(dim=axis + 1, descending=True, stable=True).indices.narrow(axis + 1, 0, k)
    return torch.zeros_like(x).scatter(axis + 1, place, x.gather(axis + 1, place).softmax(axis + 1))


@op(Kind.CUSTOM)
def shares(x: Tensor, *, axis: int, eps: float) -> Tensor:
    """x divided by the sum of eps > 0 and x along an axis, for x that cannot be negative."""
    return x / (x.sum(axis + 1, keepdim=True) + eps)


@op(Kind.CUSTOM)
def codebook(x: Tensor, *, table: Tensor) -> Tensor:
    """The row of a table (K, M) at the first position of the maximum of x (B, ..., K) along the last axis."""
    first = x.sort(dim=-1, descending=True, stable=True).indices[..., 0]
    return table[first]


@op(Kind.CUSTOM)
def log_softmax(x: Tensor, *, axis: int) -> Tensor:
    """x minus its log-sum-exp along an axis."""
    return x.log_softmax(axis + 1)


@op(Kind.CUSTOM)
def stablemax(x: Tensor, *, axis: int) -> Tensor:
    """stable_exp(x) divided by its sum along an axis (StableMax)."""
    return log_stablemax(x, axis=axis).exp()


@op(Kind.CUSTOM)
def log_stablemax(x: Tensor, *, axis: int) -> Tensor:
    """Logarithm of stablemax."""
    return signed_log(x).log_softmax(axis + 1)


@op(Kind.CUSTOM, monotone=True)
def logsumexp(x: Tensor, *, axes: Sequence[int], keepdims: bool = False) -> Tensor:
    """log of the sum of exp over axes."""
    return x.logsumexp(_batched(axes), keepdim=keepdims)


@op(Kind.CUSTOM)
def layer_norm(x: Tensor, *, axes: Sequence[int], eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over axes; no scale or shift."""
    centred = x - x.mean(_batched(axes), keepdim=True)
    return rms_norm(centred, axes=axes, eps=eps)


@op(Kind.CUSTOM)
def rms_norm(x: Tensor, *, axes: Sequence[int], eps: float) -> Tensor:
    """x / sqrt(mean of x^2 + eps) over axes; no scale."""
    return x / (x.square().mean(_batched(axes), keepdim=True) + eps).sqrt()


@op(Kind.CUSTOM)
def arg_max(x: Tensor, *, axis: int, keepdims: bool = False, last: bool = False) -> Tensor:
    """Position of the maximum along an axis, as a float; of several the first, or the last."""
    axis += 1
    size = x.shape[axis]
    top = x == x.amax(axis, keepdim=True)
    count = torch.arange(size, device=x.device) if last else torch.arange(size, 0, -1, device=x.device)
    place = (top * count.reshape(-1, *[1] * (x.dim() - 1 - axis))).amax(axis, keepdim=keepdims)
    return (place if last else size - place).to(x.dtype)


@op(Kind.CUSTOM)
def where(c: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition c (0 or 1) is true, else y; all variable and of equal rank (axes of size 1 broadcast)."""
    return torch.where(c > 0.5, x, y)


def as_index(i: Tensor, size: int) -> Tensor:
    """Float-valued indices into an axis as integers: negative ones count from the end, others are clamped to it."""
    index = i.detach().round().long()
    return torch.where(index < 0, index + size, index).clamp(0, size - 1)


@op(Kind.CUSTOM)
def gather_at(x: Tensor, i: Tensor, *, axis: int) -> Tensor:
    """Entries of x (B, *N) along an axis at computed, float-valued indices i (B, *I); I's axes replace `axis`."""
    index = as_index(i, x.shape[axis + 1]).reshape(x.shape[0], -1, *[1] * (x.dim() - 2))
    moved = x.movedim(axis + 1, 1)
    picked = moved.gather(1, index.expand(-1, -1, *moved.shape[2:])).movedim(1, axis + 1)
    return picked.reshape(*x.shape[: axis + 1], *i.shape[1:], *x.shape[axis + 2 :])


@op(Kind.CUSTOM)
def scatter_at(x: Tensor, i: Tensor, u: Tensor) -> Tensor:
    """x (B, *N) with slices replaced by u (B, *Q, *N[k:]) at computed indices i (B, *Q, k) (ONNX ScatterND)."""
    depth = i.shape[-1]
    place = flat_index(i, x.shape[1 : depth + 1])
    rest = x.shape[depth + 1 :].numel()
    flat = x.reshape(x.shape[0], -1, rest)
    updates = u.reshape(x.shape[0], -1, rest)
    return flat.scatter(1, place.unsqueeze(-1).expand(-1, -1, rest), updates).reshape(x.shape)


@op(Kind.CUSTOM)
def spread(x: Tensor) -> Tensor:
    """Anything between -x and x, for x >= 0: what parameters may do that move within radii (0 where they do not)."""
    return torch.zeros_like(x)


def flat_index(i: Tensor, sizes: Sequence[int]) -> Tensor:
    """Multi-indices i (B, *Q, k) into axes of these sizes as flat positions (B, |Q|)."""
    flat = torch.zeros(i.shape[:-1], dtype=torch.long, device=i.device)
    for coordinate, size in zip(i.unbind(-1), sizes, strict=True):
        flat = flat * size + as_index(coordinate, size)
    return flat.reshape(i.shape[0], -1)
