"""Networks that were exported with channels last: their transposes go into the weights beside them.

A map of C channels at every pixel, (H, W, C), is a map of one channel, (H, W C), to which a convolution is one with a
wider kernel and a longer stride along the width.
"""

from __future__ import annotations

import torch

from graphs.ir import INPUT, Graph, Node
from graphs.passes.dead import drop_dead
from graphs.passes.identity import drop_identities
from graphs.passes.rewrite import Sweep, rewrite

CHANNELS_FIRST = (0, 3, 1, 2)


def absorb_transposes(graph: Graph) -> Graph:
    """Rewrite convolutions of a transposed input, and linears of a flat transposed value."""
    return drop_dead(drop_identities(rewrite(graph, _rule)))


def _rule(sweep: Sweep, node: Node) -> str | None:
    if node.op == "conv":
        return _conv(sweep, node, sweep.node(node.inputs[0]))
    if node.op == "linear":
        return _linear(sweep, node, sweep.node(node.inputs[0]))
    return None


def _conv(sweep: Sweep, node: Node, maker: Node) -> str | None:
    """A convolution of the network's input, channels last."""
    if maker.op != "transpose" or tuple(maker.attrs["perm"]) != CHANNELS_FIRST:
        return None
    batch, height, width, channels = sweep.node(maker.inputs[0]).shape
    plain = node.attrs.get("groups", 1) == 1 and node.attrs["dilation"][1] == 1
    if batch != 1 or not plain or not _is_input(sweep, maker.inputs[0]):
        return None
    params, attrs = sweep.params(node), dict(node.attrs)
    weight = params["weight"].permute(0, 2, 3, 1)
    params["weight"] = weight.reshape(*weight.shape[:2], -1).unsqueeze(1)
    for name in ("stride", "padding"):
        attrs[name] = (attrs[name][0], attrs[name][1] * channels)
    shape = {"shape": (1, 1, height, width * channels)}
    flat = sweep.between("reshape", maker.inputs[0], node, attrs=shape)
    return sweep.builder.add("conv", [flat], params, attrs, name=node.name, origin=node.origin)


def _is_input(sweep: Sweep, name: str) -> bool:
    """Whether a value is an input but for its shape."""
    while sweep.node(name).op == "reshape":
        name = sweep.node(name).inputs[0]
    return sweep.node(name).op == INPUT


def _linear(sweep: Sweep, node: Node, maker: Node) -> str | None:
    """A linear of a whole value that was transposed and then made flat."""
    if maker.op != "reshape" or maker.size != maker.shape[-1]:
        return None
    first = sweep.node(maker.inputs[0])
    if first.op != "transpose":
        return None
    source = sweep.node(first.inputs[0])
    place = torch.arange(source.size).reshape(source.shape).permute(*first.attrs["perm"]).flatten()
    params = sweep.params(node)
    params["weight"] = params["weight"][:, place.argsort()]
    flat = sweep.between("reshape", source.name, node, attrs=maker.attrs)
    return sweep.builder.add("linear", [flat], params, name=node.name, origin=node.origin)
