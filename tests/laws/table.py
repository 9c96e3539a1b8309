"""The table of the laws: at least one row per op; `tests/laws/rows_*.py` each hold a list `ROWS`.

A row says how to build a node of the op and from which boxes its inputs may come. Every law runs over every row.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from graphs import GraphBuilder
from relaxations import Call, Interval


@dataclass(frozen=True)
class Input:
    """One input of a row: its shape for one sample and the values it may take.

    `lower` and `upper` are the op's domain (keep away from ends where the op is infinite); `integers` makes boxes end
    at integers and samples be integers (truth values: domain 0 to 1; indices); `kinks` are points that boxes should
    begin at, end at and contain; `scale` is how far from 0 the centres of boxes lie.
    """

    shape: tuple[int, ...]
    lower: float = -math.inf
    upper: float = math.inf
    integers: bool = False
    kinks: tuple[float, ...] = ()
    scale: float = 3.0

    def box(self, count: int, width: float, random: torch.Generator, dtype: torch.dtype) -> Interval:
        """`count` random boxes of about that width, about a third of them touching a kink."""
        size = (count, *self.shape)

        def draw() -> Tensor:
            return torch.rand(size, generator=random, dtype=torch.float64)

        centre = self.scale * torch.randn(size, generator=random, dtype=torch.float64)
        if self.kinks:
            near = torch.tensor(self.kinks, dtype=torch.float64)[torch.randint(len(self.kinks), size, generator=random)]
            end = torch.randint(-1, 2, size, generator=random)  # the box's upper end, middle or lower end is the kink
            centre = torch.where(draw() < 1 / 3, near + end * width / 2, centre)
        radius = torch.where(draw() < 0.5, 0.5, 0.5 * draw()) * width
        low, high = (centre - radius).to(dtype), (centre + radius).to(dtype)
        if self.integers:
            low, high = low.floor(), high.ceil()
        low, high = low.clamp(self.lower, self.upper), high.clamp(self.lower, self.upper)
        return Interval(low, high.maximum(low))

    def sample(self, box: Interval, random: torch.Generator) -> Tensor:
        """One random point per box: a corner, uniform, or a kink where the box contains one."""
        t = torch.rand(box.lower.shape, generator=random, dtype=torch.float64).to(box.lower)
        kind = torch.randint(3, box.lower.shape, generator=random)
        x = torch.where(kind == 0, t.round(), t) * box.width + box.lower
        if self.kinks:
            at = torch.randint(len(self.kinks), box.lower.shape, generator=random)
            x = torch.where(kind == 1, torch.tensor(self.kinks, dtype=torch.float64)[at].to(x), x)
        if self.integers:
            x = x.round()
        return x.clamp(box.lower, box.upper)


@dataclass(frozen=True)
class Row:
    """One node to test: the op, its inputs, constants (float64 tensors by role) and attributes.

    `note` sets it apart from other rows of the op; `max_width` is the widest box that makes sense.
    """

    op: str
    inputs: tuple[Input, ...]
    params: Mapping[str, Tensor] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    max_width: float = 1e3

    def __str__(self) -> str:
        return f"{self.op}-{self.note}" if self.note else self.op

    def call(self, dtype: torch.dtype = torch.float64) -> Call:
        """The node, with its constants in a precision."""
        builder = GraphBuilder()
        names = [builder.input(f"x{i}", x.shape) for i, x in enumerate(self.inputs)]
        out = builder.add(self.op, names, self.params, self.attrs)
        graph = builder.build([out]).to(dtype)
        return Call.of(graph, graph[out])

    def boxes(self, count: int, width: float, random: torch.Generator, dtype: torch.dtype) -> list[Interval]:
        """Random boxes of every input, with `count` as their batch axis."""
        return [x.box(count, min(width, self.max_width), random, dtype) for x in self.inputs]

    def samples(self, boxes: Sequence[Interval], random: torch.Generator) -> list[Tensor]:
        """One random point of each box, per input."""
        return [x.sample(box, random) for x, box in zip(self.inputs, boxes, strict=True)]


def table() -> list[Row]:
    """All rows of all `rows_*` modules beside this one."""
    package = importlib.import_module("tests.laws")
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith("rows_"))
    return [row for name in names for row in importlib.import_module(f"tests.laws.{name}").ROWS]
