"""What a converter is given: the graph under construction, and where in the module it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from graphs.errors import UnsupportedError
from graphs.exported.today import BatchNorm, Dropout
from graphs.ir import GraphBuilder


@dataclass(frozen=True)
class Var:
    """A value that depends on the input: its node, its shape (with the example's batch of 1), and whether it is one of
    truth (0 or 1).
    """

    name: str
    shape: tuple[int, ...]
    truth: bool = False


@dataclass(frozen=True)
class Live:
    """A tensor that does not depend on the input; `now()` is what it is today, after whatever an optimiser did.
    Nothing changes one that is `fixed`.
    """

    now: Callable[[], Tensor]
    fixed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.now().shape)

    def then(self, function: Callable[[Tensor], Tensor]) -> Live:
        """A function of it."""
        return Live(lambda: function(self.now()), self.fixed)


@dataclass(frozen=True)
class Ranked:
    """Positions of the k largest entries of a value along an axis, which is kept."""

    source: Var
    k: int
    axis: int
    keepdim: bool = True


@dataclass(frozen=True)
class Masked:
    """A value that is minus infinity except where a constant is true: what softmax leaves out."""

    source: Var
    kept: Live


Value = Any  # Var, Live or a plain Python value


@dataclass
class Context:
    """State of one import; `where` is the module path and the operator that is being converted, `live` says how each
    constant of the graph is made.
    """

    builder: GraphBuilder = field(default_factory=GraphBuilder)
    live: dict[str, Live] = field(default_factory=dict)
    today: list[BatchNorm | Dropout] = field(default_factory=list)
    where: str = ""
    path: str = ""
    dtype: torch.dtype = torch.float32
    training: bool = False

    def emit(self, op: str, *inputs: Var, params: Mapping[str, Live | str | None] | None = None, **attrs: Any) -> Var:
        """Add a node; parameters that are None are left away."""
        held = {role: self.store(p, f"{self.path or op}.{role}") for role, p in (params or {}).items() if p is not None}
        name = self.builder.add(op, [x.name for x in inputs], held, attrs, origin=self.path or op)
        return Var(name, self.builder.nodes[name].shape)

    def store(self, value: Live | str, stem: str) -> str:
        """The name of a constant."""
        if isinstance(value, str):
            return value
        name = self.builder.constant(value.now().detach(), stem)
        self.live[name] = value
        return name

    def unsupported(self, message: str, help: str = "") -> UnsupportedError:
        """An error that names the module."""
        return UnsupportedError("G210", message, where=self.where, help=help)

    def variable(self, value: Value) -> Var:
        """A value that must depend on the input."""
        if not isinstance(value, Var):
            raise self.unsupported("an operand that does not depend on the input is not supported here")
        return value

    def rank(self, x: Var, rank: int) -> Var:
        """x with leading axes of size 1 up to a rank."""
        return x if len(x.shape) == rank else self.emit("reshape", x, shape=(1,) * (rank - len(x.shape)) + x.shape)

    def alike(self, x: Var, y: Var) -> tuple[Var, Var]:
        """Both with the same rank."""
        rank = max(len(x.shape), len(y.shape))
        return self.rank(x, rank), self.rank(y, rank)

    def times(self, x: Var, constant: Live | float) -> Var:
        """x times a constant, broadcast."""
        factor = self.tensor(constant)
        return self.emit("scale", self.rank(x, max(len(x.shape), len(factor.shape))), params={"factor": factor})

    def plus(self, x: Var, constant: Live | float) -> Var:
        """x plus a constant, broadcast."""
        offset = self.tensor(constant)
        return self.emit("shift", self.rank(x, max(len(x.shape), len(offset.shape))), params={"offset": offset})

    def tensor(self, value: Live | float) -> Live:
        """A constant of the module's precision."""
        return value if isinstance(value, Live) else Live(lambda: torch.tensor(float(value), dtype=self.dtype), True)

    def fixed(self, tensor: Tensor) -> Live:
        """A constant that nothing changes."""
        return Live(lambda: tensor, True)

    def number(self, places: Ranked) -> Var:
        """The place of the largest entry as a number."""
        if places.k != 1:
            raise self.unsupported("places of several largest entries are read only by a scatter of their softmax")
        return self.emit("arg_max", places.source, axis=places.axis, keepdims=places.keepdim)

    def spelled(self, value: Value, like: Var) -> Var:
        """A value as a variable of a shape to which it broadcasts; a constant is one that does not vary."""
        if isinstance(value, Var):
            return value
        return self.plus(self.times(like, 0.0), value)

    @property
    def moving(self) -> frozenset[str]:
        """The constants of the graph that training changes."""
        today = (name for part in self.today for name in (part.factor, getattr(part, "offset", part.factor)))
        return frozenset({*(name for name, live in self.live.items() if not live.fixed), *today})


CONVERTERS: dict[str, Callable[..., Any]] = {}
C = TypeVar("C", bound=Callable[..., Any])


def converter(*names: str) -> Callable[[C], C]:
    """Register the converter of operators such as "aten.linear.default": (context, *arguments, **named) to a value."""

    def register(function: C) -> C:
        for name in names:
            CONVERTERS[f"aten.{name}"] = function
        return function

    return register


def convert_with(function: Callable[..., Any], names: Sequence[str]) -> None:
    """Register one converter for several operators: (context, torch's own operator, *arguments, **named) to a value."""
    for name in names:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload)
        CONVERTERS[f"aten.{name}"] = partial(_apply, function, operator)


def _apply(function: Callable[..., Any], operator: Any, ctx: Context, *arguments: Any, **named: Any) -> Any:
    return function(ctx, operator, *arguments, **named)


def axis_of(axis: int, shape: Sequence[int]) -> int:
    """An axis counted from the front."""
    return axis % len(shape)
