"""What the rules of derivatives write on: a builder, and cotangents that are constants as long as they can be.

S: number of rows that are pulled back together; N: one value's shape. A cotangent of a value is (S, *N).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from graphs.ir import Graph, GraphBuilder, Node
from graphs.ops import OPS

Cotangent = Tensor | str  # a constant (S, *N), or the name of a node of that shape
_NONE: Mapping[str, Tensor] = {}


@dataclass
class Tape:
    """A graph that is being extended by the derivative of one of its values."""

    graph: Graph
    builder: GraphBuilder
    made: dict[Hashable, str] = field(default_factory=dict)

    def shape(self, c: Cotangent) -> tuple[int, ...]:
        """(S, *N)."""
        return tuple(c.shape) if isinstance(c, Tensor) else self.builder.nodes[c].shape

    def node(self, op: str, *inputs: str, params: Mapping[str, Tensor] = _NONE, **attrs: Any) -> str:
        """A value of the extended graph; one that is there already is used again."""
        if params:
            return self.builder.add(op, inputs, params, attrs, name=f"d.{op}")
        key = (op, inputs, repr(sorted(attrs.items())))
        if key not in self.made:
            self.made[key] = self.builder.add(op, inputs, attrs=attrs, name=f"d.{op}")
        return self.made[key]

    def scaled(self, name: str, factor: float) -> str:
        """A value times a number."""
        return self.node("scale", name, params={"factor": self.number(factor)})

    def shifted(self, name: str, offset: float) -> str:
        """A value plus a number."""
        return self.node("shift", name, params={"offset": self.number(offset)})

    def number(self, value: float) -> Tensor:
        """A constant in the precision of the graph's own."""
        return torch.tensor(value, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the graph's constants; double where it has none."""
        return next((c.dtype for c in self.builder.constants.values() if c.is_floating_point()), torch.float64)

    def row(self, name: str) -> str:
        """A value as one row, (1, *N)."""
        return self.node("reshape", name, shape=(1, *self.builder.nodes[name].shape))

    def apply(self, op: str, c: Cotangent, params: Mapping[str, Tensor] = _NONE, **attrs: Any) -> Cotangent:
        """An affine op on a cotangent."""
        if isinstance(c, Tensor):
            value: Tensor = OPS[op].forward(c[None], **params, **attrs)[0]
            return value
        return self.node(op, c, params=params, **attrs)

    def plus(self, c: Cotangent, d: Cotangent) -> Cotangent:
        """The sum."""
        if isinstance(c, Tensor):
            return c + d if isinstance(d, Tensor) else self.node("shift", d, params={"offset": c})
        return self.node("shift", c, params={"offset": d}) if isinstance(d, Tensor) else self.node("add", c, d)

    def minus(self, c: Cotangent, d: Cotangent) -> Cotangent:
        """The difference."""
        if isinstance(c, str) and isinstance(d, str):
            return self.node("sub", c, d)
        return self.plus(c, self.apply("neg", d))

    def times(self, c: Cotangent, name: str, op: str = "mul") -> Cotangent:
        """A cotangent times a value whose shape broadcasts to it."""
        value = self.row(name)
        if isinstance(c, Tensor):
            return self.node("scale", value, params={"factor": c})
        return self.node(op, c, value)

    def reshaped(self, c: Cotangent, shape: Sequence[int]) -> Cotangent:
        """Another shape."""
        return c if self.shape(c) == tuple(shape) else self.apply("reshape", c, shape=tuple(shape))

    def summed(self, c: Cotangent, axes: Sequence[int]) -> Cotangent:
        """The sum over axes of N, which stay with size 1."""
        return self.apply("sum", c, axes=tuple(a + 1 for a in axes), keepdims=True) if axes else c

    def fitted(self, c: Cotangent, shape: Sequence[int]) -> Cotangent:
        """Sums over the axes along which a value of this shape (equal rank) was repeated."""
        has = self.shape(c)[1:]
        return self.summed(c, [a for a, (n, m) in enumerate(zip(shape, has, strict=True)) if n == 1 and m != 1])

    def repeated(self, c: Cotangent, node: Node, axes: Sequence[int]) -> Cotangent:
        """The transpose of a sum over `axes` of the input of a node, whose axes may have gone."""
        shape = self.graph[node.inputs[0]].shape
        kept = tuple(1 if a in axes else n for a, n in enumerate(shape))
        lead = self.shape(c)[0]
        return self.apply("expand", self.reshaped(c, (lead, *kept)), shape=(lead, *shape))

    def constant(self, value: Tensor, source: str) -> str:
        """A constant as a node, made from any value of the graph."""
        flat = self.node("reshape", source, shape=(prod(self.builder.nodes[source].shape),))
        one = self.node("slice", flat, axis=0, start=0, stop=1)
        zero = self.node("scale", self.node("reshape", one, shape=(1,) * value.dim()), params={"factor": 0 * value})
        return self.node("shift", zero, params={"offset": value})
