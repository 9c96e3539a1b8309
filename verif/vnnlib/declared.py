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
    isomorphic_to: str
    variables: tuple[Declaration, ...]

    def of(self, kind: str) -> list[Declaration]:
        """The variables of one kind."""
        return [v for v in self.variables if v.kind == kind]


def match_networks(declared: Sequence[Declared], given: Networks, file: str) -> list[Network]:
    """One loaded network for each declared one; hidden values are further outputs of its graph."""
    own = [d.name for d in declared if not d.equal_to]
    names = {d.name: d.name for d in declared}
    if len(given.sources) == 1 and len(own) == 1 and not set(given.sources) & set(names):
        names[own[0]] = next(iter(given.sources))  # one network: its name does not matter
    else:
        unknown = [name for name in given.sources if name not in names]
        if unknown:
            note = "declared: " + ", ".join(names)
            raise PropertyError("P109", f"the query declares no network '{unknown[0]}'", where=file, notes=(note,))
    return [_load(d, declared, names, given, file) for d in declared]


def _load(declared: Declared, others: Sequence[Declared], names: dict[str, str], given: Networks, file: str) -> Network:
    name = names[declared.name]
    if declared.equal_to:
        twin = names[declared.equal_to]
        if name in given.sources and twin in given.sources:
            _require_same_file(declared, given.sources[name], given.sources[twin], file)
        name = name if name in given.sources else twin
    if name not in given.sources:
        help = f"--network {declared.name}=FILE.onnx"
        raise PropertyError("P109", f"network '{declared.name}' is not given", where=file, help=help)
    if declared.isomorphic_to:
        twin_declared = next(d for d in others if d.name == declared.isomorphic_to)
        shapes = [[v.shape for v in d.variables if v.kind != "hidden"] for d in (declared, twin_declared)]
        if shapes[0] != shapes[1]:
            message = f"networks '{declared.name}' and '{twin_declared.name}' are isomorphic but differ in shapes"
            raise PropertyError("P104", message, where=file)
    hidden = [v.onnx or v.name for v in declared.of("hidden")]
    if not hidden:
        return given.load(name, declared.name)
    source = given.sources[name]
    if isinstance(source, str | Path):
        return given.load(name, declared.name, tuple(_value_names(Path(source), hidden, declared, file)))
    return _with_outputs(given.load(name, declared.name), hidden, file)


def _require_same_file(declared: Declared, left: Any, right: Any, file: str) -> None:
    same = left is right or left == right
    if not same and isinstance(left, str | Path) and isinstance(right, str | Path):
        same = Path(left).read_bytes() == Path(right).read_bytes()
    if not same:
        message = f"network '{declared.name}' is equal to '{declared.equal_to}', but another model is given for it"
        raise PropertyError("P109", message, where=file, help=f"leave --network {declared.name}=... away")


def _value_names(path: Path, hidden: Sequence[str], declared: Declared, file: str) -> list[str]:
    """ONNX values by their own name or by the name of the node that makes them."""
    from graphs.onnx import proto

    nodes = proto.read(path, str(path)).graph.node
    values = {output for node in nodes for output in node.output}
    made = {node.name: node.output[0] for node in nodes if node.name}
    for name in hidden:
        if name not in values and name not in made:
            raise _unknown(name, declared.name, file)
    return [name if name in values else made[name] for name in hidden]


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


def variables_of_query(declared: Sequence[Declared], networks: Sequence[Network], file: str) -> tuple[Variable, ...]:
    """All variables, every network's inputs first; checks counts, shapes and types against the networks."""
    inputs: list[Variable] = []
    others: list[Variable] = []
    for network, own in zip(networks, declared, strict=True):
        graph, hidden = network.graph, own.of("hidden")
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
                variable = _variable(declaration, network, name, file)
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
    origin = declaration.onnx or node.origin if declaration.kind == "hidden" else node.origin
    return Variable(
        declaration.name, network.name, name, declaration.kind, node.shape, dtype, origin, declaration.shape
    )
