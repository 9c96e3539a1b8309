"""The op table: every operation that a graph may hold, what kind it is, and the torch function that computes it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Forward = Callable[..., Tensor]


class Kind(enum.Enum):
    """How an op is bounded (see docs/architecture.md)."""

    AFFINE = "affine"  # exact: interval, pull and push come from the forward function
    SCALAR = "scalar"  # elementwise, one input: lines of any slope
    BILINEAR = "bilinear"  # products of two variables: McCormick
    CUSTOM = "custom"  # its own interval and relaxation


@dataclass(frozen=True)
class Op:
    """One row of the op table.

    `forward(*inputs, **params, **attrs)`: inputs are batched, (B, *N); params are the node's constants, without a
    batch axis; attrs are plain Python values. The result is (B, *N_out). Every op is batch-wise independent.
    `monotone`: no output ever falls when an input rises (then the interval is the forward of the ends).
    """

    name: str
    kind: Kind
    forward: Forward
    monotone: bool = False

    @property
    def summary(self) -> str:
        """First line of the forward function's docstring: the row of the documentation table."""
        return (self.forward.__doc__ or "").strip().split("\n")[0]


OPS: dict[str, Op] = {}


def op(kind: Kind, *, monotone: bool = False) -> Callable[[Forward], Forward]:
    """Register a forward function under its own name (a trailing underscore is dropped)."""

    def register(forward: Forward) -> Forward:
        name = forward.__name__.rstrip("_")
        if name in OPS:
            raise ValueError(f"op '{name}' is registered twice")
        OPS[name] = Op(name, kind, forward, monotone)
        return forward

    return register
