"""Errors of properties."""

from __future__ import annotations

from graphs.errors import VerifError


class PropertyError(VerifError):
    """The property cannot be read, or does not fit the networks (codes P...)."""
