"""Queries: networks and a property, compiled to one graph of atoms, input regions, and clauses over the atoms.

Everything here describes the *unsafe* set: the property holds when no point of any region satisfies its clauses.
Shape letters: D regions, n input numbers, M atoms, C clauses, K atoms in a clause, F factors of a region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphs import Graph
from graphs.errors import GraphError
from verif import floats
from verif.errors import PropertyError, require_kind

if TYPE_CHECKING:
    from verif.runners import Runner


ARITHMETICS = ("real", "float16", "float32", "float64")


@dataclass(frozen=True)
class Network:
    """A network of a query: its graph, and where replays run it (an ONNX file, or a torch module)."""

    name: str
    graph: Graph
    source: Path | Any


@dataclass(frozen=True)
class Variable:
    """A name that a property gives to a value of a network.

    `value` is the value's name in the network's graph, `origin` its name in the user's model; `kind` is "input",
    "hidden" or "output"; `shape` and `dtype` are the network's; `declared` is the shape by which the property indexes
    it (it may differ in axes of size 1). In VNN-LIB 1.0 several variables are called X (or Y) and their numbering runs
    on from one to the next.
    """

    name: str
    network: str
    value: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    origin: str = ""
    declared: tuple[int, ...] | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """The shape by which the property indexes the value."""
        return self.shape if self.declared is None else self.declared

    @property
    def size(self) -> int:
        """Number of scalars."""
        return int(torch.Size(self.shape).numel())

    @property
    def key(self) -> str:
        """The name in `Property.gather` and among the inputs of `Property.atoms`."""
        return key(self.network, self.value)


def key(network: str, value: str) -> str:
    """The name of a network's value within a property: "<network>.<value>" ("<value>" if the network has no name)."""
    return f"{network}.{value}" if network else value


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
    "<network>.<input>" and "<network>.<output>" (those it needs, see `key`) and whose single output is (M,).
    A region is a box of z, lower <= z <= upper, each (D, n) float64, as the decimals of the property say; where
    `open_lower` or `open_upper` (D, n bool; None: nowhere) is true the end itself does not belong to it. Region d is
    unsafe where for every factor f at least one clause in clauses[spans[d, f, 0] : spans[d, f, 1]] is satisfied;
    spans (D, F, 2) int64, F >= 1.
    `norm` and `radius` (D,), `center` (D, n): when given the region is also inside that ball.
    `variables` are the property's own names, inputs first, in the order of declaration.
    `arithmetic` is "real" where the property is about real numbers, or the type of the programs that it is about.
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
    variables: tuple[Variable, ...] = ()
    open_lower: Tensor | None = None
    open_upper: Tensor | None = None
    arithmetic: str = "real"


@dataclass(frozen=True)
class Query:
    """Networks and property as one graph: input z (n,), output the atoms (M,)."""

    graph: Graph
    networks: tuple[Network, ...]
    property: Property

    def outer(self) -> tuple[Tensor, Tensor]:
        """Boxes that a proof must cover, lower and upper (D, n) float64.

        A model takes only numbers of its own type. Where an interval of decimals has none of them inside (an input
        fixed to 0.1), the nearest one stands for it, and the box is the hull of the decimals and of that number.
        """
        return self._boxes[:2]

    def inner(self) -> tuple[Tensor, Tensor]:
        """Boxes for the search: the outer ones rounded inwards, so that both ends are numbers of the model's type.

        Every number of that type between the ends lies in the outer box; lower <= upper always. (D, n) float64.
        """
        return self._boxes[2:]

    @cached_property
    def _boxes(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return floats.boxes(self.property.lower, self.property.upper, self.dtypes())

    @cached_property
    def runners(self) -> tuple[Runner, ...]:
        """For every network a function that runs it where it lives; made on first use (see `verif.runners`)."""
        from verif.runners import runner

        names: dict[str, list[str]] = {network.name: [] for network in self.networks}
        for variable in self.property.variables:
            if variable.kind == "hidden":
                names[variable.network].append(variable.origin)
        return tuple(runner(network, names[network.name]) for network in self.networks)

    def dtypes(self) -> dict[str, Tensor]:
        """Positions of z by the element type of the model inputs that read them."""
        found: dict[str, list[Tensor]] = {}
        for network in self.networks:
            for name in network.graph.inputs:
                dtype = str(network.graph[name].attrs.get("dtype", "float32"))
                found.setdefault(dtype, []).append(self.property.gather[key(network.name, name)].reshape(-1))
        return {dtype: torch.unique(torch.cat(positions)) for dtype, positions in found.items()}


Source = str | Path | Graph | Network


def compile_query(
    property: str | Path | Property,
    networks: Source | Mapping[str, Source] | Sequence[tuple[str, Source]],
    *,
    arithmetic: str | None = None,
) -> Query:
    """Read a property (a VNN-LIB file) and the networks (ONNX files or graphs), by name, and join them.

    With one network its name does not matter. `arithmetic` is one of ARITHMETICS; left out it is what a VNN-LIB 2.0
    property declares its inputs to be, else "real". Raises PropertyError where they do not fit each other.
    """
    from verif.compose import compose
    from verif.networks import Networks

    if arithmetic not in (None, *ARITHMETICS):
        raise ValueError(f"arithmetic is one of {', '.join(ARITHMETICS)}, not '{arithmetic}'")
    given = Networks.of(networks)
    if isinstance(property, Property):
        return compose(_meant(property, arithmetic), given.all())
    require_kind(
        property, (str, Path), "a property is a VNN-LIB file, one of verif.robustness and its like, or a Query"
    )
    if Path(property).suffix == ".onnx":
        help = "the model comes first, then the property"
        raise PropertyError("P101", "this is a model, not a property", where=str(property), help=help)
    from verif.vnnlib import read

    try:
        found, loaded = read(Path(property), given)
        return compose(_meant(found, arithmetic), loaded)
    except PropertyError as wrong:
        try:
            given.all()
        except GraphError as error:  # a model that cannot be read comes first, or it would hide behind the property
            what = f", {wrong.message}" if wrong.message.isprintable() else ""
            error.notes = (*error.notes, f"the property has an error too: {wrong.code}{what}")
            raise error from None
        raise


def _meant(property: Property, arithmetic: str | None) -> Property:
    return property if arithmetic is None else replace(property, arithmetic=arithmetic)
