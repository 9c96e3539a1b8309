"""Matching the networks that a VNN-LIB 2.0 query declares to the ones that are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphs import Graph
from verif.errors import PropertyError
from verif.networks import Networks
from verif.query import Network, Variable


@dataclass(frozen=True)
class Declaration:
    """One declared variable; `kind` is "input", "hidden" or "output", `onnx` the name of a hidden value."""

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    onnx: str = ""


@dataclass(frozen=True)
class Declared:
    """One declared network and its variables."""

    name: str
    equal_to: str
    variables: tuple[Declaration, ...]

    def of(self, kind: str) -> list[Declaration]:
        """The variables of one kind."""
        return [v for v in self.variables if v.kind == kind]


@dataclass(frozen=True)
class Matched:
    """A loaded network; `hidden` are the ONNX names of the values that are further outputs of its graph."""

    network: Network
    hidden: tuple[str, ...]


def match_networks(declared: Sequence[Declared], given: Networks, file: str) -> list[Matched]:
    """One loaded network for each declared one."""
    own = [d.name for d in declared if not d.equal_to]
    names = {d.name: d.name for d in declared}
    if len(given.sources) == 1 and len(own) == 1 and not set(given.sources) & set(names):
        names[own[0]] = next(iter(given.sources))  # one network: its name does not matter
    else:
        unknown = [name for name in given.sources if name not in names]
        if unknown:
            note = "declared: " + ", ".join(names)
            raise PropertyError("P109", f"the query declares no network '{unknown[0]}'", where=file, notes=(note,))
    return [_load(d, names, given, file) for d in declared]


def _load(declared: Declared, names: dict[str, str], given: Networks, file: str) -> Matched:
    name = names[declared.name]
    if declared.equal_to:
        twin = names[declared.equal_to]
        if name in given.sources and twin in given.sources:
            _require_same_file(declared, given.sources[name], given.sources[twin], file)
        name = name if name in given.sources else twin
    if name not in given.sources:
        help = f"--network {declared.name}=FILE.onnx"
        raise PropertyError("P109", f"network '{declared.name}' is not given", where=file, help=help)
    hidden = [v.onnx or v.name for v in declared.of("hidden")]
    source = given.sources[name]
    if hidden and isinstance(source, str | Path):
        kept = _value_names(Path(source), hidden, declared, file)
        return Matched(given.load(name, declared.name, kept), kept)
    network = given.load(name, declared.name)
    return Matched(_with_outputs(network, hidden, file) if hidden else network, tuple(hidden))


def _require_same_file(declared: Declared, left: Any, right: Any, file: str) -> None:
    same = left is right
    if isinstance(left, str | Path) and isinstance(right, str | Path):
        same = Path(left) == Path(right) or Path(left).read_bytes() == Path(right).read_bytes()
    if not same:
        message = f"network '{declared.name}' is equal to '{declared.equal_to}', but another model is given for it"
        raise PropertyError("P109", message, where=file, help=f"leave --network {declared.name}=... away")


def _value_names(path: Path, hidden: Sequence[str], declared: Declared, file: str) -> tuple[str, ...]:
    """ONNX values by their own name or by the name of the node that makes them."""
    from graphs.onnx import proto

    nodes = proto.read(path, str(path)).graph.node
    values = {output for node in nodes for output in node.output}
    made = {node.name: node.output[0] for node in nodes if node.name}
    for name in hidden:
        if name not in values and name not in made:
            raise _unknown(name, declared.name, file)
    return tuple(name if name in values else made[name] for name in hidden)


def _with_outputs(network: Network, hidden: Sequence[str], file: str) -> Network:
    """A graph with the nodes of these names, or else of these origins, as further outputs."""
    graph = network.graph
    origins = {node.origin: node.name for node in graph}
    for name in hidden:
        if name not in graph.nodes and name not in origins:
            raise _unknown(name, network.name, file)
    extra = tuple(name if name in graph.nodes else origins[name] for name in hidden)
    return replace(network, graph=replace(graph, outputs=graph.outputs + extra))


def _unknown(name: str, network: str, file: str) -> PropertyError:
    return PropertyError("P110", f"network '{network}' has no value '{name}' to be declared as hidden", where=file)


def variables_of_query(declared: Sequence[Declared], matched: Sequence[Matched], file: str) -> tuple[Variable, ...]:
    """All variables, every network's inputs first; checks counts, shapes and types against the networks."""
    inputs: list[Variable] = []
    others: list[Variable] = []
    for match, own in zip(matched, declared, strict=True):
        graph, hidden = match.network.graph, dict(zip(own.of("hidden"), match.hidden, strict=True))
        outputs = graph.outputs[: len(graph.outputs) - len(hidden)]
        values = {"input": graph.inputs, "output": outputs, "hidden": graph.outputs[len(outputs) :]}
        for kind, names in values.items():
            wanted = own.of(kind)
            if len(wanted) != len(names):
                raise PropertyError(
                    "P104",
                    f"network '{own.name}' has {len(names)} {kind}s, the query declares {len(wanted)}",
                    where=file,
                    notes=tuple(f"{kind} '{graph[n].origin}' {list(graph[n].shape)}" for n in names),
                )
            for declaration, name in zip(wanted, names, strict=True):
                origin = hidden.get(declaration, graph[name].origin)
                variable = replace(_variable(declaration, match.network, name, file), origin=origin)
                (inputs if kind == "input" else others).append(variable)
    return tuple(inputs + others)


def _variable(declaration: Declaration, network: Network, name: str, file: str) -> Variable:
    graph: Graph = network.graph
    node, first = graph[name], graph[graph.inputs[0]]
    if [n for n in node.shape if n != 1] != [n for n in declaration.shape if n != 1]:
        raise PropertyError(
            "P104",
            f"'{declaration.name}' is declared as {list(declaration.shape)}, the network's {declaration.kind} "
            f"'{node.origin}' is {list(node.shape)}",
            where=file,
        )
    dtype = str(node.attrs.get("dtype") or first.attrs.get("dtype") or "float32")
    if declaration.kind == "input" and declaration.dtype not in ("real", dtype):
        raise PropertyError(
            "P105",
            f"'{declaration.name}' is declared as {declaration.dtype}, the network's input '{node.origin}' is {dtype}",
            where=file,
        )
    return Variable(
        declaration.name, network.name, name, declaration.kind, node.shape, dtype, declared=declaration.shape
    )
