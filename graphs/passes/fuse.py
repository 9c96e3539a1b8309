"""Affine fusion: chains of linear, conv, scale and shift become one node where the value between has one reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphs.ir import Graph, Node
from graphs.passes.dead import drop_dead
from graphs.passes.identity import drop_identities
from graphs.passes.reorder import reorder
from graphs.passes.rewrite import Sweep, rewrite


@dataclass(frozen=True)
class Pair:
    """A value's only reader `after` and its maker `before`, whose own input has shape `shape`."""

    before: Node
    after: Node
    shape: tuple[int, ...]
    b: Mapping[str, Tensor]
    a: Mapping[str, Tensor]


@dataclass(frozen=True)
class Fused:
    """The node that does both: reads what `before` read."""

    op: str
    params: Mapping[str, Tensor]
    attrs: Mapping[str, Any]


Fusion = Callable[[Pair], Fused | None]
CONVS = ("conv", "conv_transpose")


def fuse_affine(graph: Graph) -> Graph:
    """Apply all fusions, each node with its maker, until no two neighbours fuse."""
    while True:
        fused = drop_dead(rewrite(drop_dead(drop_identities(rewrite(graph, reorder))), _rule))
        if [node.op for node in fused] == [node.op for node in graph]:
            return fused
        graph = fused


def _rule(sweep: Sweep, node: Node) -> str | None:
    if len(node.inputs) != 1:
        return None
    maker = sweep.node(node.inputs[0])
    fusion = FUSIONS.get((maker.op, node.op))
    if fusion is None or len(maker.inputs) != 1 or not sweep.free(maker):
        return None
    pair = Pair(maker, node, sweep.node(maker.inputs[0]).shape, sweep.params(maker), sweep.params(node))
    fused = fusion(pair)
    if fused is None:
        return None
    heavy = maker if maker.op in ("linear", *CONVS) else node
    return sweep.builder.add(fused.op, maker.inputs, fused.params, fused.attrs, name=node.name, origin=heavy.origin)


def _along(value: Tensor, shape: tuple[int, ...], axis: int) -> Tensor | None:
    """A constant that varies along one axis only, as one number per entry of that axis; else None."""
    if value.numel() == 1:
        return value.reshape(1).expand(shape[axis])
    full = value.reshape((1,) * (len(shape) - value.dim()) + tuple(value.shape))
    if full.shape[axis] != shape[axis] or full.numel() != shape[axis]:
        return None
    return full.reshape(-1)


def _axis(node: Node) -> int:
    """The axis of a linear's or convolution's features."""
    return len(node.shape) - 1 if node.op == "linear" else 1


def _merge_scales(pair: Pair) -> Fused | None:
    return Fused("scale", {"factor": pair.b["factor"] * pair.a["factor"]}, {})


def _merge_shifts(pair: Pair) -> Fused | None:
    return Fused("shift", {"offset": pair.b["offset"] + pair.a["offset"]}, {})


def _linear_linear(pair: Pair) -> Fused | None:
    first, second = pair.b["weight"], pair.a["weight"]
    if second.shape[0] * first.shape[1] > 1.5 * (first.numel() + second.numel()):  # a bottleneck is worth its node
        return None
    bias = pair.b.get("bias")
    moved = None if bias is None else second @ bias
    return Fused("linear", _with_bias({"weight": second @ first}, moved, pair.a.get("bias")), {})


def _then_scale(pair: Pair) -> Fused | None:
    """linear or convolution, then a factor per feature."""
    factor = (
        None
        if pair.after.shape != pair.before.shape
        else _along(pair.a["factor"], pair.after.shape, _axis(pair.before))
    )
    if factor is None:
        return None
    weight, bias = pair.b["weight"], pair.b.get("bias")
    if pair.before.op == "conv_transpose":
        groups = pair.before.attrs.get("groups", 1)
        per = factor.reshape(groups, 1, -1, *(1,) * (weight.dim() - 2))
        weight = (weight.reshape(groups, -1, *weight.shape[1:]) * per).reshape(weight.shape)
    else:
        weight = weight * factor.reshape(-1, *(1,) * (weight.dim() - 1))
    return Fused(
        pair.before.op, _with_bias({"weight": weight}, None if bias is None else bias * factor), pair.before.attrs
    )


def _then_shift(pair: Pair) -> Fused | None:
    """linear or convolution, then an offset per feature."""
    offset = (
        None
        if pair.after.shape != pair.before.shape
        else _along(pair.a["offset"], pair.after.shape, _axis(pair.before))
    )
    if offset is None:
        return None
    params = _with_bias({"weight": pair.b["weight"]}, pair.b.get("bias"), offset)
    return Fused(pair.before.op, params, pair.before.attrs)


def _scale_then(pair: Pair) -> Fused | None:
    """A factor per feature, then linear or conv."""
    factor = None if pair.shape != pair.before.shape else _along(pair.b["factor"], pair.shape, _axis(pair.after))
    if factor is None:
        return None
    weight = pair.a["weight"]
    if pair.after.op == "linear":
        weight = weight * factor
    else:
        groups = pair.after.attrs.get("groups", 1)
        per = factor.reshape(groups, 1, -1, *(1,) * (weight.dim() - 2))
        weight = (weight.reshape(groups, -1, *weight.shape[1:]) * per).reshape(weight.shape)
    return Fused(pair.after.op, {**pair.a, "weight": weight}, pair.after.attrs)


def _shift_then(pair: Pair) -> Fused | None:
    """An offset per feature, then linear, or conv without padding."""
    offset = None if pair.shape != pair.before.shape else _along(pair.b["offset"], pair.shape, _axis(pair.after))
    if offset is None or any(pair.after.attrs.get("padding", ())):
        return None
    weight = pair.a["weight"]
    if pair.after.op == "linear":
        moved = weight @ offset
    else:
        groups = pair.after.attrs.get("groups", 1)
        per = weight.flatten(2).sum(2).reshape(groups, -1, weight.shape[1])
        moved = (per * offset.reshape(groups, 1, -1)).sum(2).reshape(-1)
    return Fused(pair.after.op, _with_bias({"weight": weight}, moved, pair.a.get("bias")), pair.after.attrs)


def _pad_then(pair: Pair) -> Fused | None:
    """Zeros on both sides alike, then conv or average pooling."""
    before, after = pair.before.attrs["before"], pair.before.attrs["after"]
    inside = any(before[:2]) or tuple(before) != tuple(after) or min(before) < 0
    if inside or pair.before.attrs.get("value", 0.0) != 0.0:
        return None
    padding = tuple(p + q for p, q in zip(before[2:], pair.after.attrs["padding"], strict=True))
    pooling = pair.after.op == "avg_pool"
    if pooling and any(2 * p > k for p, k in zip(padding, pair.after.attrs["kernel"], strict=True)):
        return None
    if pooling and not pair.after.attrs.get("count_include_pad", True):
        return None
    return Fused(pair.after.op, pair.a, {**pair.after.attrs, "padding": padding})


def _with_bias(params: dict[str, Tensor], *biases: Tensor | None) -> dict[str, Tensor]:
    known = [bias for bias in biases if bias is not None]
    return {**params, "bias": torch.stack(known).sum(0)} if known else params


FUSIONS: dict[tuple[str, str], Fusion] = {
    ("scale", "scale"): _merge_scales,
    ("shift", "shift"): _merge_shifts,
    ("linear", "linear"): _linear_linear,
    ("pad", "conv"): _pad_then,
    ("pad", "avg_pool"): _pad_then,
    **{(op, "scale"): _then_scale for op in ("linear", *CONVS)},
    **{(op, "shift"): _then_shift for op in ("linear", *CONVS)},
    **{("scale", op): _scale_then for op in ("linear", "conv")},
    **{("shift", op): _shift_then for op in ("linear", "conv")},
}
