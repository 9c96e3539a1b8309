"""Property files: VNN-LIB 1.0 (own reader) and 2.0 (the `vnnlib` package), compiled to `verif.query.Property`."""

from __future__ import annotations

from verif.vnnlib.read import read

__all__ = ["read"]
