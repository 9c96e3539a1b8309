"""The table of converters: for every ONNX operator the functions that turn a node into IR nodes, by opset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

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
