"""Constants that a step makes anew: those of batch normalisation and dropout. Both become a scale (and a shift)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphs.ir import Graph, Node


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of value `source` (1, C, *space): the constants `factor` and `offset`, both of shape `tall`
    (C, 1, ...), from its parameters (C,) or None, running statistics (C,) or None, eps and momentum.
    """

    source: str
    factor: str
    offset: str
    tall: tuple[int, ...]
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    variance: Tensor | None
    eps: float
    momentum: float

    def constants(self, moments: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
        """From the mean and variance of a batch, or with None from the running ones."""
        if moments is None:
            assert self.mean is not None and self.variance is not None
            moments = self.mean, self.variance
        mean, variance = moments
        factor = (variance + self.eps).rsqrt()
        if self.weight is not None:
            factor = factor * self.weight
        offset = -mean * factor if self.bias is None else self.bias - mean * factor
        return {self.factor: factor.reshape(self.tall), self.offset: offset.reshape(self.tall)}

    def moments(self, x: Tensor, *, move: bool) -> tuple[Tensor, Tensor]:
        """Mean and variance (C,) of a batch x (B, *N); `move`: they move the running ones, as torch does it (with the
        unbiased variance).
        """
        variance, mean = torch.var_mean(x, _others(x), correction=0)
        if move and self.mean is not None and self.variance is not None:
            count = x.numel() // len(mean)
            with torch.no_grad():
                self.mean.lerp_(mean.to(self.mean), self.momentum)
                self.variance.lerp_((variance * (count / max(count - 1, 1))).to(self.variance), self.momentum)
        return mean, variance


def _others(x: Tensor) -> list[int]:
    """All axes of (B, 1, C, *space) but the channels'."""
    return [axis for axis in range(x.dim()) if axis != 2]


@dataclass(frozen=True)
class Dropout:
    """Dropout of value `source` in training: the constant `factor`, one mask for the whole batch."""

    source: str
    factor: str
    share: float

    def constants(self, x: Tensor | None) -> dict[str, Tensor]:
        """A new mask for samples like x (B, *N), scaled so that the mean stays; nothing is left out for None."""
        if x is None:
            return {}
        kept = torch.rand_like(x[0]) >= self.share
        return {self.factor: kept.to(x) / (1 - self.share)}


def folded(graph: Graph, parts: Sequence[BatchNorm | Dropout]) -> Graph:
    """The graph with batch normalisation as part of the layer before it, where nothing else reads that layer: then no
    bound has to walk through it.
    """
    nodes, constants, readers = dict(graph.nodes), dict(graph.constants), graph.consumers()
    for part in parts:
        layer = nodes[part.source]
        if not isinstance(part, BatchNorm) or layer.op not in ("conv", "linear") or len(readers[layer.name]) > 1:
            continue
        if layer.shape[1] != part.tall[0] or layer.name in graph.outputs:
            continue
        scale = readers[layer.name][0]
        shift = readers[scale.name][0]
        factor, offset = constants[part.factor].flatten(), constants[part.offset].flatten()
        weight, bias = constants[layer.params["weight"]], layer.params.get("bias")
        names = {"weight": f"{shift.name}.weight", "bias": f"{shift.name}.bias"}
        constants[names["weight"]] = weight * factor.reshape(-1, *(1 for _ in weight.shape[1:]))
        constants[names["bias"]] = offset if bias is None else torch.addcmul(offset, constants[bias], factor)
        nodes[shift.name] = Node(shift.name, layer.op, layer.inputs, names, layer.attrs, shift.shape, layer.origin)
        del nodes[layer.name], nodes[scale.name]
    return replace(graph, nodes=nodes, constants=constants)
