"""Losses with an attack inside the network: intervals up to some value, projected gradient descent behind it.

Shape letters: B samples, K classes, L numbers of the value.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphs import Graph, Node
from graphs.ir import INPUT
from graphs.ops import OPS, Kind
from relaxations.sets import Box, InputSet
from verif.training.attacks import Attack
from verif.training.compiled import Step
from verif.training.heads import CrossEntropy, Head, Logits
from verif.training.losses import SABR, finite
from verif.training.regions import check_labels, margins


def cut(graph: Graph, bends: int) -> str:
    """The first value through which everything goes and behind which are at most `bends` nodes that are not affine."""
    nodes = list(graph)
    place = {node.name: k for k, node in enumerate(nodes)}
    reach = [0] * len(nodes)  # of each node: the last that reads it
    for k, node in enumerate(nodes):
        for name in node.inputs:
            reach[place[name]] = k
    left = sum(node.op != INPUT and OPS[node.op].kind is not Kind.AFFINE for node in nodes)
    open_until = -1
    for k, node in enumerate(nodes):
        left -= node.op != INPUT and OPS[node.op].kind is not Kind.AFFINE
        if left <= bends and open_until <= k:
            return node.name
        open_until = max(open_until, reach[k])
    return graph.outputs[0]


def tail(step: Step, region: InputSet, bends: int) -> tuple[Step, Box]:
    """The network behind `cut`, and the boxes (B, L) of intervals in which the value there lies for a region."""
    name = cut(step.graph, bends)
    found = step.intervals(region)[name]
    nodes = list(step.graph)
    behind = nodes[[node.name for node in nodes].index(name) + 1 :]
    shape = step.graph[name].shape
    source = Node(f"{name}.flat", INPUT, shape=(step.graph[name].size,))
    whole = Node(name, "reshape", (source.name,), attrs={"shape": shape}, shape=shape)
    graph = Graph(
        {node.name: node for node in (source, whole, *behind)},
        (source.name,),
        step.graph.outputs,
        step.graph.constants,
    )
    box = Box(found.lower.flatten(1), found.upper.flatten(1))
    return Step(graph, box.center.detach()), box


def connected(points: Tensor, box: Box, share: float) -> Tensor:
    """Points of boxes, both (B, L), with gradients to the boxes' ends (the connector of Mao et al. 2023).

    A point at an end moves with it; the pull falls in a line to none at `share` of the width.
    """
    with torch.no_grad():
        width = box.width
        place = torch.where(width > 0, (points - box.lower) / torch.where(width > 0, width, 1.0), 0.5)
        low, high = (1 - place / share).clamp(min=0), (1 - (1 - place) / share).clamp(min=0)
    return points + low * (box.lower - box.lower.detach()) + high * (box.upper - box.upper.detach())


@dataclass(frozen=True)
class TAPS:
    """Intervals through the first part of the network, an attack on each margin through the rest (Mao et al. 2023).

    The rest has `bends` nodes that are not affine. Its loss times the interval loss is minimised, with `weight` of the
    gradient (of 1) for the former. With `small` the region is SABR's box: STAPS.
    """

    bends: int = 1
    weight: float = 0.5
    share: float = 0.5
    small: SABR | None = None
    attack: Attack = field(default_factory=Attack)
    head: Head = field(default_factory=CrossEntropy)

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        check_labels(labels, step.count, len(region))
        if self.small is not None:
            region = self.small.small(step, region, labels)
        behind, box = tail(step, region, self.bends)
        attacked, bounded = self.head(self._found(behind, box, labels)), self.head(Logits.bounded(behind, box, labels))
        return finite((_pulled(attacked, 2 * self.weight) * _pulled(bounded, 2 - 2 * self.weight)).mean(), step, region)

    def _found(self, behind: Step, box: Box, labels: Tensor) -> Logits:
        """The least margins found, each by an attack of its own, and the box of the logits at all these points."""
        rows = margins(labels, behind.count).to(box.lower)
        count = rows.shape[1]
        each = Box(box.lower.repeat_interleave(count, 0), box.upper.repeat_interleave(count, 0))
        directions = rows.flatten(0, 1)
        fixed = Box(each.lower.detach(), each.upper.detach())
        points = self.attack.climb(fixed, lambda points: -(directions * behind.at(points)).sum())
        logits = behind.at(connected(points, each, self.share)).reshape(len(labels), count, -1)
        return Logits(labels, logits.amin(1), logits.amax(1), (rows * logits).sum(2))


def _pulled(value: Tensor, factor: float) -> Tensor:
    """The value itself, with its gradient times a factor."""
    return factor * value + (1 - factor) * value.detach()


@dataclass(frozen=True)
class LatentAttack:
    """The loss at a point that an attack finds in boxes of intervals inside the network, `bends` nodes that are
    not affine before its end; what lies before it is not trained. Lower `bends` stage by stage for the layer-wise
    training of Balunovic & Vechev 2020 (theirs takes zonotopes in place of boxes).
    """

    bends: int = 1
    attack: Attack = field(default_factory=Attack)
    head: Head = field(default_factory=CrossEntropy)

    def __call__(self, step: Step, region: InputSet, labels: Tensor) -> Tensor:
        """A number."""
        with torch.no_grad():
            behind, box = tail(step, region, self.bends)
        found = behind.at(self.attack(behind, box, labels))
        return finite(self.head(Logits.at(found, labels)).mean(), step, region)
