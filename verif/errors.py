"""Errors of properties."""

from __future__ import annotations

from graphs.errors import VerifError


class PropertyError(VerifError):
    """The property cannot be read, or does not fit the networks (codes P...)."""


def require_kind(value: object, kinds: tuple[type, ...], what: str) -> None:
    """TypeError where a value is of another kind; `what` says what belongs in its place."""
    if not isinstance(value, kinds):
        raise TypeError(f"{what}, not {type(value).__name__}")
