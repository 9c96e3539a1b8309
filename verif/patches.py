"""Patches: ReLUs of a network's first layer that read the same few inputs.

Shape letters: n inputs, E undecided ReLUs of one node, K = MOST_INPUTS, N patches of k inputs with m ReLUs each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from graphs.ops import OPS, Kind
from relaxations.arrangements import Arrangement, Vertices, candidates
from relaxations.selections import Selection
from relaxations.sets import Box
from relaxations.windows import Window
from verif.bounds import Pass
from verif.bounds.sweep import Sweep

MOST_INPUTS = 6
MOST_SYSTEMS = 3000  # solved for the vertices of one patch: the most harmful ReLUs are taken
MOST_IN_ALL = 1 << 21  # solved for all patches
MOST_RELUS = 24
PROBES = 16
CHUNK = 1 << 22  # numbers of unit rows at a time


@dataclass(frozen=True)
class Narrow:
    """Undecided ReLUs entry (E,) of a node that read few inputs: z = sum of weight (E, K) x[inputs (E, K)] + bias (E,);
    the input n is none. An input that is fixed is part of the bias.
    """

    entry: Tensor
    inputs: Tensor
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Patch:
    """N patches alike: their inputs (N, k), ReLUs (N, m) as positions in `Narrow`, and the vertices."""

    inputs: Tensor
    neurons: Tensor
    arrangement: Arrangement
    vertices: Vertices


def first_relu(graph: Graph) -> str | None:
    """The first ReLU, where it is one of affine values of the input."""
    for node in graph:
        if node.op == "relu":
            return node.name
        if node.op != INPUT and OPS[node.op].kind is not Kind.AFFINE:
            return None
    return None


def narrow(graph: Graph, at: str, box: Box, found: Pass) -> Narrow | None:
    """The narrow ones among the ReLUs of node `at`, from a pass over one box; None where the first few are not."""
    source = graph[at].inputs[0]
    ends = found.intervals[source]
    entry = ((ends.lower < 0) & (ends.upper > 0)).flatten().nonzero()[:, 0]
    parts: list[Narrow] = []
    step = max(PROBES, CHUNK // box.lower.shape[1])
    for part in (entry[:PROBES], *entry[PROBES:].split(step)):
        if len(part):
            parts.append(_read(part, *_unit_rows(graph, source, part, box, found), box))
        if not parts or not len(parts[0].entry):
            return None
    return Narrow(*(torch.cat([getattr(p, name) for p in parts]) for name in Narrow.__annotations__))


def _unit_rows(graph: Graph, at: str, entry: Tensor, box: Box, found: Pass) -> tuple[Tensor, Tensor]:
    """Rows (E, n) on the input and bias (E,) of entries of a value that is affine in it."""
    rows, bias = Sweep(graph, found.relaxations, None, box.lower).run(at, Selection(entry, (len(entry), 1)))
    if rows is None:
        return box.lower.new_zeros(len(entry), box.lower.shape[1]), bias.expand(len(entry), 1)[:, 0]
    dense = rows.dense() if isinstance(rows, Window) else rows
    return dense.flatten(1), bias[:, 0]


def _read(entry: Tensor, rows: Tensor, bias: Tensor, box: Box) -> Narrow:
    moving = (box.lower < box.upper)[0]
    bias = bias + torch.where(moving, 0.0, rows) @ box.lower[0]
    reads = (rows != 0) & moving
    few = ((reads.sum(1) <= MOST_INPUTS) & reads.any(1)).nonzero()[:, 0]
    reads, rows = reads[few], rows[few]
    size = rows.shape[1]
    place = torch.where(reads, torch.arange(size), size)
    place = torch.nn.functional.pad(place, (0, MOST_INPUTS), value=size).sort(1).values[:, :MOST_INPUTS]
    weight = torch.nn.functional.pad(rows, (0, 1)).gather(1, place)
    return Narrow(entry[few], place, weight, bias[few])


def patches(found: Narrow, box: Box, harm: Tensor) -> Iterator[Patch]:
    """Patches of the narrow ReLUs of some harm (E,), with vertices that are all known; a ReLU is in one at most."""
    inputs, owner = found.inputs.unique(dim=0, return_inverse=True)
    todo = harm > 0
    while bool(todo.any()):
        order = torch.argsort(torch.where(todo, harm, 0.0), descending=True)[: int(todo.sum())]
        order = order[owner[order].argsort(stable=True)]
        todo = torch.zeros_like(todo)
        for own, neurons in _alike(order, owner[order], (inputs < box.lower.shape[1]).sum(1)):
            patch, bad = _patch(found, box, inputs[own], neurons)
            # The ReLU in most of what is not known keeps its lines, the others are tried again.
            worst = patch.vertices.ill[bad].argmax(1, keepdim=True)
            todo[neurons[bad]] = True
            todo[neurons[bad].gather(1, worst)] = False
            if not bool(bad.all()):
                yield _patch(found, box, inputs[own[~bad]], neurons[~bad])[0] if bool(bad.any()) else patch


def _alike(order: Tensor, owner: Tensor, reads: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """From ReLUs in the order (E',) of their patches owner (E',), those patches (N,) and their ReLUs (N, m) that have
    as many inputs, reads by patch, and as many ReLUs; not all of them where these are too many.
    """
    own, count = owner.unique_consecutive(return_counts=True)
    start, reads = count.cumsum(0) - count, reads[own]
    systems = min(MOST_SYSTEMS, MOST_IN_ALL // len(own))
    taken = count.minimum(torch.tensor([_most(k, systems) for k in range(MOST_INPUTS + 1)])[reads])
    for k, m in torch.stack([reads, taken], 1).unique(dim=0).tolist():
        alike = ((reads == k) & (taken == m)).nonzero()[:, 0]
        yield own[alike], order[start[alike, None] + torch.arange(m)]


def _most(inputs: int, systems: int) -> int:
    """How many ReLUs a patch may have."""
    count = 1
    while count < MOST_RELUS and candidates(inputs, count + 1) <= systems:
        count += 1
    return count


def _patch(found: Narrow, box: Box, inputs: Tensor, neurons: Tensor) -> tuple[Patch, Tensor]:
    """Patches and whether not all their vertices are known (N,)."""
    inputs = inputs[:, : int((inputs[0] < box.lower.shape[1]).sum())]
    weight = found.weight[neurons][..., : inputs.shape[1]]
    made = Arrangement(box.lower[0][inputs], box.upper[0][inputs], weight, found.bias[neurons])
    vertices = made.vertices()
    return Patch(inputs, neurons, made, vertices), (vertices.ill > 0).any(1)
