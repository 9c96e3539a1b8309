"""Functions that a model defines itself, written out where they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphs.onnx import proto

DEEPEST = 32  # calls within calls; functions may not be recursive


def written_out(model: Any) -> list[Any]:
    """The nodes of the model's graph with every call of one of its own functions replaced by the function's nodes."""
    functions = {(f.domain, f.name): f for f in model.functions}
    return list(model.graph.node) if not functions else list(_expand(model.graph.node, functions, 0))


def _expand(nodes: Any, functions: Mapping[tuple[str, str], Any], depth: int) -> Iterator[Any]:
    for node in nodes:
        function = functions.get((node.domain, node.op_type))
        if function is None or depth == DEEPEST:
            yield node
        else:
            yield from _expand(_body(node, function), functions, depth + 1)


def _body(call: Any, function: Any) -> Iterator[Any]:
    """The function's nodes with the caller's values and attributes; values inside get the call's name in front."""
    prefix = call.name or next(iter(call.output), function.name)
    names = dict(zip(function.input, call.input, strict=False)) | dict(zip(function.output, call.output, strict=False))
    names |= {name: "" for name in function.input[len(call.input) :]}
    attributes = {a.name: a for a in (*function.attribute_proto, *call.attribute)}
    for node in function.node:
        copy = proto.messages().NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{prefix}/{node.name or node.op_type}"
        copy.input[:] = [_renamed(name, names, prefix) for name in node.input]
        copy.output[:] = [_renamed(name, names, prefix) for name in node.output]
        del copy.attribute[:]
        for attribute in node.attribute:
            given = attributes.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
            if given is not None:
                copy.attribute.add().CopyFrom(given)
                copy.attribute[-1].name = attribute.name
        yield copy


def _renamed(name: str, names: Mapping[str, str], prefix: str) -> str:
    return names.get(name, f"{prefix}/{name}") if name else ""
