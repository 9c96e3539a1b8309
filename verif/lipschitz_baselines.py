"""Older bounds of Lipschitz constants, to compare with: product of norms, Fast-Lip, RecurJac.

For networks of linear layers and ReLUs one after the other. Shape letters: S rows (outputs), h one layer's neurons;
a_k are the derivatives by the outputs of layer k's ReLUs, y_k = a_k times their slopes in [low, high].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from graphs import Graph
from relaxations.sets import Box
from verif.bounds import Engine
from verif.errors import PropertyError
from verif.jacobians import flat_rows
from verif.networks import Networks
from verif.operator_norms import OperatorNorm
from verif.properties import Model


class _Lines(NamedTuple):
    """low_slope a + low_bias <= y <= high_slope a + high_bias, each (S, h)."""

    low_slope: Tensor
    low_bias: Tensor
    high_slope: Tensor
    high_bias: Tensor


def product_of_norms(model: Model, norm: OperatorNorm) -> float:
    """|W_1|_pp ... |W_(k-1)|_pp |W_k|_pq: global (Szegedy et al. 2014)."""
    *inner, last = weights_of(flat_model(model))
    total = float(norm.of_entries(last[None], last[None]))
    for weight in inner:
        total *= float(OperatorNorm(norm.p, norm.p).of_entries(weight[None], weight[None]))
    return total


def fast_lip(model: Model, box: Box, norm: OperatorNorm) -> float:
    """Interval arithmetic on the backward graph (Weng et al. 2018, section 3.4), with CROWN's signs of neurons."""
    f = flat_model(model)
    weights, slopes = weights_of(f), slopes_of(f, box)
    low = high = weights[-1]
    for weight, (off, on) in zip(reversed(weights[:-1]), reversed(slopes), strict=True):
        corners = torch.stack([low * off, low * on, high * off, high * on])
        middle, radius = _middle(corners.amin(0), corners.amax(0))
        low, high = middle @ weight - radius @ weight.abs(), middle @ weight + radius @ weight.abs()
    return float(norm.of_entries(low[None], high[None]))


def recur_jac(model: Model, box: Box, norm: OperatorNorm) -> float:
    """Lines y <= a, y >= 0 and their like where a has one sign, constants elsewhere (Zhang et al. 2019)."""
    f = flat_model(model)
    weights, slopes = weights_of(f), slopes_of(f, box)
    last = weights[-1]
    a: tuple[Tensor, Tensor] = (last, last)
    found: list[_Lines] = []  # from the last layer's backwards
    for k in reversed(range(len(slopes))):
        found.append(_lines(a, slopes[k]))
        units = torch.eye(weights[k].shape[1], dtype=last.dtype)
        rows = (units @ weights[k].T).expand(len(last), -1, -1)  # one for each entry of a_(k-1), on y_k
        a = (-_upper(-rows, weights, found, k), _upper(rows, weights, found, k))
    return float(norm.of_entries(a[0][None], a[1][None]))


def _upper(rows: Tensor, weights: Sequence[Tensor], found: Sequence[_Lines], k: int) -> Tensor:
    """Upper bounds (S, R) of rows . y_k, rows (S, R, h)."""
    total = rows.new_zeros(rows.shape[:2])
    for layer, lines in zip(range(k, len(weights) - 1), reversed(found), strict=True):
        positive, negative = rows.clamp(min=0), rows.clamp(max=0)
        total = total + (positive @ lines.high_bias[..., None] + negative @ lines.low_bias[..., None])[..., 0]
        rows = (positive * lines.high_slope[:, None] + negative * lines.low_slope[:, None]) @ weights[layer + 1].T
    return total + rows.diagonal(dim1=0, dim2=2).T  # the last a is the output's own row


def _lines(a: tuple[Tensor, Tensor], slopes: tuple[Tensor, Tensor]) -> _Lines:
    (low, high), (off, on) = a, slopes
    varies, zero = off < on, torch.zeros_like(low)
    falling, rising = varies & (high <= 0), varies & (low >= 0)
    astride = varies & ~falling & ~rising
    fixed = off.expand_as(low)
    low_slope = torch.where(falling, on, torch.where(rising | astride, zero, fixed))
    high_slope = torch.where(rising, on, torch.where(falling | astride, zero, fixed))
    return _Lines(
        low_slope,
        torch.where(astride, low.clamp(max=0), zero),
        high_slope,
        torch.where(astride, high.clamp(min=0), zero),
    )


def _middle(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    return (low + high) / 2, (high - low) / 2


def flat_model(model: Model) -> Graph:
    """The graph from the flat input to the flat output, in float64."""
    return flat_rows(Networks.of(model).load(""))


def weights_of(f: Graph) -> list[Tensor]:
    """The weight of every layer; linear layers one after the other, with reshapes between, are one."""
    layers, last = list[Tensor](), ""
    before = f.inputs[0]
    for node in list(f)[1:]:
        if node.inputs != (before,) or node.op not in ("linear", "relu", "reshape") or (last, node.op) == ("", "relu"):
            break
        before = node.name
        if node.op == "linear":
            weight = f.constants[node.params["weight"]]
            if weight.shape[0] != node.size:  # several samples at once
                break
            if last == "linear":
                layers[-1] = weight @ layers[-1]
            else:
                layers.append(weight)
        last = last if node.op == "reshape" else node.op
    if before != f.outputs[0] or last != "linear":
        raise PropertyError("P114", "this baseline needs linear layers with ReLUs between, one after the other")
    return layers


def slopes_of(f: Graph, box: Box) -> list[tuple[Tensor, Tensor]]:
    """The least and the largest slope of every ReLU over one box."""
    found = Engine(f).bound(box.to(torch.float64)).intervals
    inputs = [found[node.inputs[0]] for node in f if node.op == "relu"]
    return [((i.lower.flatten() >= 0).double(), (i.upper.flatten() > 0).double()) for i in inputs]
