"""The table of converters: for every ONNX operator the functions that turn a node into IR nodes, by opset."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeVar

from graphs.errors import UnsupportedError

Converter = Callable[..., Any]
F = TypeVar("F", bound=Converter)

CONVERTERS: dict[str, dict[int, Converter]] = {}


def converter(op_type: str, since: int = 1) -> Callable[[F], F]:
    """Register a converter `f(ctx, *inputs)` of an operator from opset `since` on (until a newer one takes over).

    Inputs are `Value`s, None where an optional one is absent; the result is a Value or a tuple of them.
    """

    def register(function: F) -> F:
        versions = CONVERTERS.setdefault(op_type, {})
        if since in versions:
            raise ValueError(f"operator '{op_type}' has two converters since opset {since}")
        versions[since] = function
        return function

    return register


def find(op_type: str, opset: int) -> Converter | None:
    """The converter with the newest `since` that is at most `opset`."""
    versions = CONVERTERS.get(op_type, {})
    newest = max((since for since in versions if since <= opset), default=None)
    return None if newest is None else versions[newest]


def unknown(op_type: str, domain: str, where: str) -> UnsupportedError:
    """The error for an operator without a converter: what it may have meant, and how to export the model without it."""
    own = domain in ("", "ai.onnx")
    since = sorted(CONVERTERS.get(op_type, ())) if own else []
    names = {name.lower(): name for name in CONVERTERS}
    near = [] if since or not own else [names[n] for n in get_close_matches(op_type.lower(), names, 3, 0.7)]
    notes = [f"it is known from opset {since[0]} on"] if since else []
    notes += [f"operators with similar names: {', '.join(near)}"] if near else []
    notes += [] if own else [f"'{domain}' is not a domain of ONNX: a runtime or a library added the operator"]
    help = "export it again with standard operators: torch.onnx.export(model, x, 'model.onnx', opset_version=17)"
    name = op_type if own else f"{domain}.{op_type}"
    return UnsupportedError(
        "G203",
        f"no converter for operator '{name}'",
        where=where,
        notes=notes,
        help=f"{help}; or add a converter (docs/add-an-op.md)",
    )
