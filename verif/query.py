"""Queries: networks and a property, compiled to one graph of atoms, input regions, and clauses over the atoms.

Everything here describes the *unsafe* set: the property holds when no point of any region satisfies its clauses.
Shape letters: D regions, n input numbers, M atoms, C clauses, K atoms in a clause, F factors of a region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from graphs import Graph


@dataclass(frozen=True)
class Network:
    """A network of a query: its graph, and where replays run it (an ONNX file, or a torch module)."""

    name: str
    graph: Graph
    source: Path | Any


@dataclass(frozen=True)
class Clauses:
    """Conjunctions of atoms: clause c asks `value[atoms[c, k]] <= thresholds[c, k]` (`<` where strict) for every k.

    atoms (C, K) int64, -1 where padded; thresholds (C, K) float64; strict (C, K) bool.
    """

    atoms: Tensor
    thresholds: Tensor
    strict: Tensor


@dataclass(frozen=True)
class Property:
    """The unsafe set, before it is joined to networks.

    All networks' inputs are gathered from one flat point z of n numbers: `gather[name]` has the input's shape and
    holds positions in z (equal inputs of two networks share positions). `atoms` is a graph whose inputs are named
    "<network>.<input>" and "<network>.<output>" (those it needs) and whose single output is (M,).
    A region is a box of z, lower <= z <= upper, each (D, n) float64. Region d is unsafe where for every factor f
    at least one clause in clauses[spans[d, f, 0] : spans[d, f, 1]] is satisfied; spans (D, F, 2) int64.
    `norm` and `radius` (D,), `center` (D, n): when given the region is also inside that ball.
    """

    gather: Mapping[str, Tensor]
    atoms: Graph
    lower: Tensor
    upper: Tensor
    clauses: Clauses
    spans: Tensor
    warnings: tuple[str, ...] = ()
    center: Tensor | None = None
    radius: Tensor | None = None
    norm: float = float("inf")


@dataclass(frozen=True)
class Query:
    """Networks and property as one graph: input z (n,), output the atoms (M,)."""

    graph: Graph
    networks: tuple[Network, ...]
    property: Property
