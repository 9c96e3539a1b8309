"""What an op provides to be bounded: an interval, a relaxation, and which of its inputs need tighter bounds.

Shape letters: B boxes, S rows, N one node's shape, K input dimensions of forward mode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from graphs.ir import Graph, Node
from graphs.ops import OPS


class Interval(NamedTuple):
    """Elementwise bounds, lower <= value <= upper, each (B, *N)."""

    lower: Tensor
    upper: Tensor

    @property
    def width(self) -> Tensor:
        """upper - lower."""
        return self.upper - self.lower

    def meet(self, other: Interval) -> Interval:
        """Both hold: the intersection."""
        return Interval(self.lower.maximum(other.lower), self.upper.minimum(other.upper))


class Affine(NamedTuple):
    """Linear bounds of a value in the network's input x (flat, K numbers), for forward mode.

    lower_slope . x + lower_bias <= value <= upper_slope . x + upper_bias; slopes (B, K, *N), biases (B, *N).
    """

    lower_slope: Tensor
    lower_bias: Tensor
    upper_slope: Tensor
    upper_bias: Tensor


@dataclass(frozen=True)
class Call:
    """One node with its constants resolved: what a rule is given."""

    node: Node
    params: Mapping[str, Tensor]

    @classmethod
    def of(cls, graph: Graph, node: Node) -> Call:
        """A node of a graph."""
        return cls(node, graph.params(node))

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The node's attributes."""
        return self.node.attrs

    @cached_property
    def _magnitudes(self) -> dict[str, tuple[tuple[int, int], Tensor]]:
        return {}

    def magnitude(self, name: str) -> Tensor:
        """The absolute values of a constant, kept until it is changed in place.

        Parameters in training are not kept: they need gradients, and `.data` changes them without a trace.
        """
        constant = self.params[name]
        if constant.requires_grad or constant.is_inference() or torch.is_inference_mode_enabled():
            return constant.abs()
        version, held = (constant._version, constant.data_ptr()), self._magnitudes.get(name)
        if held is None or held[0] != version:
            held = self._magnitudes[name] = version, constant.abs()
        return held[1]

    def forward(self, *inputs: Tensor, **override: Any) -> Tensor:
        """The op itself on batched inputs; `override` replaces params or attrs by name."""
        return OPS[self.node.op].forward(*inputs, **{**self.params, **self.node.attrs, **override})


@dataclass(frozen=True)
class Relaxation(ABC):
    """Sound linear bounds of one node over given input intervals; every tensor field has B in front.

    No bound depends on inputs at the positions `idle`: their rows are zeros.
    """

    idle: ClassVar[tuple[int, ...]] = ()

    @abstractmethod
    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Rows on the output, (B, S, *N_out), to rows on each input, (B, S, *N_in), and a bias (B, S) such that
        rows . output >= sum of (pulled rows . input) + bias, for every point of the input intervals.
        """

    def push(self, inputs: Sequence[Affine]) -> Affine:
        """Linear bounds of the inputs to linear bounds of the output (forward mode)."""
        raise NotImplementedError

    def take(self, owner: Tensor) -> Self:
        """The relaxation with its batch axis re-indexed by `owner` (R,): one box per row, for ragged sets of rows."""
        return replace(self, **{f.name: _take(getattr(self, f.name), owner) for f in fields(self)})


def _take(value: Any, owner: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(0, owner) if value.shape[0] != 1 else value
    if isinstance(value, tuple):
        taken = (_take(v, owner) for v in value)
        return type(value)(*taken) if hasattr(value, "_fields") else tuple(taken)
    return value


class Rule(ABC):
    """How one op is bounded. Stateless; everything it needs comes in `call`.

    `compared`: positions of inputs at whose 0 the op jumps; a limit next to 0 is to say as much as the sign.
    """

    compared: tuple[int, ...] = ()

    @abstractmethod
    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """Bounds of the output over a product of input intervals; exact for scalar ops and products of two."""

    @abstractmethod
    def relax(self, call: Call, inputs: Sequence[Interval]) -> Relaxation:
        """Linear bounds over the input intervals. Never inf or NaN for finite intervals."""

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Per input: which entries (bool, (B, *N)) would relax better if their interval were tighter; None: none."""
        return tuple(None for _ in inputs)


RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Any:
    """Class decorator: an instance of the class becomes the rule of each named op."""

    def register(cls: type[Rule]) -> type[Rule]:
        for name in ops:
            if name in RULES:
                raise ValueError(f"op '{name}' has two rules")
            RULES[name] = cls()
        return cls

    return register
