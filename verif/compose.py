"""Joining networks and a property into one graph with one input and one output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from graphs.ir import INPUT
from graphs.passes import simplify
from graphs.passes.gaps import compare_gates
from graphs.passes.layout import absorb_transposes
from graphs.passes.order import order_units
from verif.errors import PropertyError
from verif.query import Network, Property, Query, key

INPUT_NAME = "z"
ATOMS = "atoms"


def compose(property: Property, networks: Sequence[Network]) -> Query:
    """One graph: z (n,) -> every network's inputs -> their outputs -> the atoms (M,).

    A network's values are called "<network>.<value>", the property's "atoms.<value>". Raises PropertyError where the
    property speaks of values or shapes that the networks do not have.
    """
    query = Query(property.atoms, tuple(networks), property)
    _require_type(query)
    graph = joined(property, networks)
    if len(networks) > 1:  # what they have in common, up to the order of hidden units, is computed and bounded once
        graph = order_units(graph)
    return replace(query, graph=compare_gates(absorb_transposes(simplify(graph))))


def joined(property: Property, networks: Sequence[Network]) -> Graph:
    """The graph of `compose` with all nodes as they are."""
    joiner = _Joiner(property.lower.shape[1], _widest(Query(property.atoms, tuple(networks), property)))
    values: dict[str, str] = {}
    for network in networks:
        inputs = {name: _positions(property, network, name) for name in network.graph.inputs}
        heads = {name: joiner.head(positions, key(network.name, name)) for name, positions in inputs.items()}
        names = joiner.insert(network.graph, heads, network.name)
        values |= {key(network.name, name): place for name, place in names.items()}
    missing = [name for name in property.atoms.inputs if name not in values]
    if missing:
        raise PropertyError("P105", f"the property speaks of '{missing[0]}', which no network has")
    for name in property.atoms.inputs:
        has, wants = joiner.builder.nodes[values[name]].shape, property.atoms[name].shape
        if has != wants:
            raise PropertyError("P105", f"the property gives '{name}' the shape {list(wants)}, it is {list(has)}")
    atoms = joiner.insert(property.atoms, {name: values[name] for name in property.atoms.inputs}, ATOMS)
    return joiner.builder.build([atoms[property.atoms.outputs[0]]])


def _require_type(query: Query) -> None:
    """A program's arithmetic is that of its model."""
    arithmetic = query.property.arithmetic
    others = [dtype for dtype in query.dtypes() if "float" in dtype and dtype != arithmetic]
    if arithmetic != "real" and others:
        raise PropertyError(
            "P119",
            f"the arithmetic {arithmetic} is asked for, the model computes in {others[0]}",
            help=f"--arithmetic {others[0]}, or real",
        )


def _positions(property: Property, network: Network, name: str) -> Tensor:
    shape, positions = network.graph[name].shape, property.gather.get(key(network.name, name))
    if positions is None or tuple(positions.shape) != shape:
        has = "nothing" if positions is None else f"the shape {list(positions.shape)}"
        raise PropertyError("P105", f"the property has {has} for the input '{name}' of shape {list(shape)}")
    return positions


def _widest(query: Query) -> str:
    return next((dtype for dtype in ("float64", "float32") if dtype in query.dtypes()), "float32")


class _Joiner:
    """Puts graphs one after the other into a builder."""

    def __init__(self, size: int, dtype: str) -> None:
        self.builder = GraphBuilder()
        self.size = size
        self.point = self.builder.input(INPUT_NAME, (size,), dtype)
        self.constants: dict[int, str] = {}  # by identity: networks that are equal share their constants

    def head(self, positions: Tensor, name: str) -> str:
        """The node that makes one network input from z."""
        if torch.equal(positions.reshape(-1), torch.arange(self.size)):
            if positions.ndim == 1:
                return self.point
            return self.builder.add("reshape", [self.point], attrs={"shape": tuple(positions.shape)}, name=name)
        return self.builder.add("pick", [self.point], {"index": positions}, name=name)

    def insert(self, graph: Graph, inputs: dict[str, str], prefix: str) -> dict[str, str]:
        """Add a graph's nodes, its inputs replaced by nodes that are there; returns the new names."""
        names = dict(inputs)
        for node in graph:
            if node.op == INPUT:
                continue
            name = names[node.name] = self.builder.fresh(key(prefix, node.name))
            params = {role: self._constant(graph.constants[old], key(prefix, old)) for role, old in node.params.items()}
            self.builder.nodes[name] = replace(
                node, name=name, inputs=tuple(names[i] for i in node.inputs), params=params
            )
        return names

    def _constant(self, value: Tensor, name: str) -> str:
        if id(value) not in self.constants:
            self.constants[id(value)] = self.builder.constant(value, name)
        return self.constants[id(value)]
