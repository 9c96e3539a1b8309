"""Swaps of neighbours that bring affine nodes next to what they fuse with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from graphs.ir import Node
from graphs.passes.rewrite import Sweep

AFFINE = ("scale", "shift")
FUSES = ("linear", "conv", "conv_transpose", "scale", "shift")
Swap = Callable[[Sweep, Node, Node, Node], str | None]


def reorder(sweep: Sweep, node: Node) -> str | None:
    """A rule for `rewrite`: try each swap on a node, its maker (which nothing else reads) and the maker's maker."""
    if len(node.inputs) != 1:
        return None
    maker = sweep.node(node.inputs[0])
    if len(maker.inputs) != 1 or not sweep.free(maker):
        return None
    first = sweep.node(maker.inputs[0])
    return next((new for swap in SWAPS if (new := swap(sweep, node, maker, first)) is not None), None)


def _negation(sweep: Sweep, node: Node, maker: Node, first: Node) -> str | None:
    """-x as a factor, where it fuses."""
    if node.op != "neg" or maker.op not in FUSES:
        return None
    factor = {"factor": torch.tensor(-1.0).double()}
    return sweep.builder.add("scale", [maker.name], factor, name=node.name, origin=node.origin)


def _scale_before_shift(sweep: Sweep, node: Node, maker: Node, first: Node) -> str | None:
    if (maker.op, node.op) != ("shift", "scale") or first.shape != maker.shape:
        return None
    factor, offset = sweep.params(node)["factor"], sweep.params(maker)["offset"]
    moved = sweep.between("scale", first.name, node, params={"factor": factor})
    return sweep.builder.add("shift", [moved], {"offset": offset * factor}, name=node.name, origin=maker.origin)


def _reshape_first(sweep: Sweep, node: Node, maker: Node, first: Node) -> str | None:
    """Scale and shift go behind a reshape that a linear (or another such) reads."""
    if node.op != "reshape" or maker.op not in AFFINE or first.shape != maker.shape:
        return None
    if any(reader.op not in ("linear", "reshape", *AFFINE) for reader in sweep.readers[node.name]):
        return None
    moved = sweep.between("reshape", first.name, node, attrs=node.attrs)
    return _spread(sweep, maker, moved, node, maker.shape)


def _reshape_last(sweep: Sweep, node: Node, maker: Node, first: Node) -> str | None:
    """Scale and shift go in front of a reshape whose maker is a linear that they fuse with."""
    fuses = first.op == "linear" and first.size == first.shape[-1] and sweep.free(first)
    if node.op not in AFFINE or maker.op != "reshape" or not fuses or node.shape != maker.shape:
        return None
    target = replace(node, name=f"{node.name}:{node.op}", shape=first.shape)
    moved = _spread(sweep, node, first.name, target, maker.shape)
    sweep.uses[moved] = 1
    return sweep.builder.add("reshape", [moved], attrs=maker.attrs, name=node.name, origin=maker.origin)


def _spread(sweep: Sweep, affine: Node, source: str, target: Node, shape: tuple[int, ...]) -> str:
    """A scale or shift of a value of some shape, on the reshaped `source` instead, as the value `target`."""
    ((role, value),) = sweep.params(affine).items()
    value = value.reshape(()) if value.numel() == 1 else value.expand(shape).reshape(target.shape)
    return sweep.builder.add(affine.op, [source], {role: value}, name=target.name, origin=affine.origin)


def _transpose_first(sweep: Sweep, node: Node, maker: Node, first: Node) -> str | None:
    """Scale and shift go behind a transpose, which may then cancel against another."""
    if node.op != "transpose" or maker.op not in AFFINE or first.shape != maker.shape:
        return None
    ((role, value),) = sweep.params(maker).items()
    full = value.reshape((1,) * (len(first.shape) - value.dim()) + tuple(value.shape))
    moved = sweep.between("transpose", first.name, node, attrs=node.attrs)
    params = {role: full.permute(*node.attrs["perm"])}
    return sweep.builder.add(maker.op, [moved], params, name=node.name, origin=maker.origin)


def _left_product(sweep: Sweep, node: Node, maker: Node, first: Node) -> str | None:
    """W x' as (x W')', where the transpose before it cancels."""
    rank = len(node.shape)
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    if (maker.op, node.op) != ("transpose", "matmul_left") or tuple(maker.attrs["perm"]) != swapped:
        return None
    weight = sweep.params(node)["weight"]
    if weight.dim() != 2:
        return None
    moved = sweep.between("linear", first.name, node, params={"weight": weight})
    return sweep.builder.add("transpose", [moved], attrs={"perm": swapped}, name=node.name, origin=node.origin)


SWAPS: tuple[Swap, ...] = (
    _negation,
    _scale_before_shift,
    _reshape_first,
    _reshape_last,
    _transpose_first,
    _left_product,
)
