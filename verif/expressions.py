"""Expressions of variables: every op of the op table, written as mathematics; `functions.py` has networks, derivatives.

Every expression is a node of one growing graph, so that bounds and proofs see all of it. Numbers are real (float64).
Shape letters: N an expression's shape, a number has (1,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from graphs.ops import OPS
from relaxations.sets import Box
from verif.conditions import Condition, Literal
from verif.errors import PropertyError

Value = Any  # an expression, or whatever torch.as_tensor takes
_OPERATORS = {"add", "sub", "mul", "matmul", "div", "true_divide", "truediv", "pow", "radd", "rsub", "rmul", "rmatmul"}


@dataclass(eq=False)
class Space:
    """Variables, the box that they range over, and the graph of all expressions of them."""

    builder: GraphBuilder = field(default_factory=GraphBuilder)
    ends: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def box(self) -> Box:
        """All variables, flat and in order, (1, n) float64."""
        lower, upper = (torch.cat([pair[side].reshape(-1) for pair in self.ends.values()]) for side in (0, 1))
        return Box(lower[None], upper[None])

    def graph(self, *expressions: str) -> Graph:
        """The graph from the variables to these nodes."""
        return self.builder.build(expressions)


def op(name: str, *inputs: Expression, **attrs: Any) -> Expression:
    """An op of the op table (docs/ops.md), with its attributes: op("tanh", x), op("softmax", x, axis=0)."""
    if name not in OPS:
        raise PropertyError("P118", f"there is no op '{name}'", help="docs/ops.md lists the ops")
    space = common_space(inputs)
    params = {role: value for role, value in attrs.items() if isinstance(value, Tensor)}
    plain = {role: value for role, value in attrs.items() if role not in params}
    try:
        return Expression(space, space.builder.add(name, [one.name for one in inputs], params, plain))
    except (TypeError, RuntimeError, IndexError, AttributeError) as error:
        raise PropertyError("P118", f"op '{name}' cannot be made: {str(error).splitlines()[0]}") from None


@dataclass(frozen=True, eq=False)
class Expression:
    """A value that depends on the variables. Methods are the ops of the op table: x.tanh(), x.sum(axes=(0,))."""

    space: Space
    name: str

    __array_ufunc__ = None  # numpy leaves its operators to ours

    @property
    def shape(self) -> tuple[int, ...]:
        """N."""
        return self.space.builder.nodes[self.name].shape

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Expression:
        index = torch.arange(self.size).reshape(self.shape)[key]
        return op("pick", self, index=torch.atleast_1d(index))

    def __iter__(self) -> Iterator[Expression]:
        return (self[k] for k in range(len(self)))

    def __getattr__(self, name: str) -> Callable[..., Expression]:
        if name not in OPS:
            raise AttributeError(f"an expression has no '{name}': methods are the ops of docs/ops.md")
        return lambda *others, **attrs: op(name, self, *others, **attrs)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """torch.sin(x), torch.tanh(x) and a tensor on the left of an operator."""
        name = func.__name__.strip("_")
        if name in _OPERATORS and len(args) == 2:
            a, b = args[::-1] if name.startswith("r") else args
            return _OPERATION[name.removeprefix("r")](a, b)
        if name in OPS and all(isinstance(a, cls) for a in args):
            return op(name, *args, **(kwargs or {}))
        return NotImplemented

    def reshape(self, shape: Sequence[int]) -> Expression:
        """The same numbers in another shape."""
        return self if tuple(shape) == self.shape else op("reshape", self, shape=tuple(shape))

    def __neg__(self) -> Expression:
        return op("neg", self)

    def __abs__(self) -> Expression:
        return op("abs", self)

    def __add__(self, other: Value) -> Expression:
        return _add(self, other)

    def __radd__(self, other: Value) -> Expression:
        return _add(self, other)

    def __sub__(self, other: Value) -> Expression:
        return _sub(self, other)

    def __rsub__(self, other: Value) -> Expression:
        return _sub(other, self)

    def __mul__(self, other: Value) -> Expression:
        return _mul(self, other)

    def __rmul__(self, other: Value) -> Expression:
        return _mul(self, other)

    def __truediv__(self, other: Value) -> Expression:
        return _div(self, other)

    def __rtruediv__(self, other: Value) -> Expression:
        return _div(other, self)

    def __pow__(self, exponent: float) -> Expression:
        return _pow(self, exponent)

    def __matmul__(self, other: Value) -> Expression:
        return _matmul(self, other)

    def __rmatmul__(self, other: Value) -> Expression:
        return _matmul(other, self)

    def __le__(self, other: Value) -> Condition:
        return _below(self, other, strict=False)

    def __lt__(self, other: Value) -> Condition:
        return _below(self, other, strict=True)

    def __ge__(self, other: Value) -> Condition:
        return _below(-self, -other, strict=False)

    def __gt__(self, other: Value) -> Condition:
        return _below(-self, -other, strict=True)


def _below(x: Expression, other: Value, *, strict: bool) -> Condition:
    """x <= other, entry by entry; |x| <= c is -c <= x <= c, which has no kink."""
    node = x.space.builder.nodes[x.name]
    if node.op == "abs" and not isinstance(other, Expression):
        (inner,) = (Expression(x.space, name) for name in node.inputs)
        return _below(inner, other, strict=strict) & _below(-inner, other, strict=strict)
    gap = x - other
    return Condition(x.space, tuple((Literal(gap.name, k, 1, strict),) for k in range(gap.size)))


def _add(a: Expression, b: Value) -> Expression:
    if isinstance(b, Expression):
        return op("add", *_even(a, b))
    return _with(a, "shift", offset=_constant(b))


def _sub(a: Value, b: Value) -> Expression:
    if isinstance(a, Expression) and isinstance(b, Expression):
        return op("sub", *_even(a, b))
    return _add(a, -_constant(b)) if isinstance(a, Expression) else _add(-b, a)


def _mul(a: Value, b: Value) -> Expression:
    if not isinstance(a, Expression):
        a, b = b, a
    if not isinstance(b, Expression):
        return _with(a, "scale", factor=_constant(b))
    return op("square", a) if a.name == b.name else op("mul", *_even(a, b))


def _div(a: Value, b: Value) -> Expression:
    if isinstance(a, Expression) and isinstance(b, Expression):
        return op("div", *_even(a, b))
    return _mul(a, 1 / _constant(b)) if isinstance(a, Expression) else _mul(op("reciprocal", b), a)


def _pow(a: Value, exponent: Value) -> Expression:
    if isinstance(exponent, Expression) or not isinstance(a, Expression):
        raise PropertyError("P118", "an exponent must be a number", help="write (b * a.log()).exp() for a^b")
    power = float(exponent)
    if power == 1:
        return a
    known = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}
    return op(known[power], a) if power in known else op("power", a, exponent=power)


def _matmul(a: Value, b: Value) -> Expression:
    """Of vectors (n,) and matrices (n, m), of which one may be constant."""
    if not isinstance(a, Expression):
        weight = torch.atleast_2d(_constant(a))
        return op("linear", b, weight=weight) if len(b.shape) == 1 else op("matmul_left", b, weight=weight)
    if not isinstance(b, Expression):
        constant = _constant(b)
        if len(a.shape) > 1 and constant.dim() > 1:
            return op("matmul_right", a, weight=constant)
        return op("linear", a, weight=constant.mT if constant.dim() > 1 else constant[None])
    if len(a.shape) == len(b.shape) == 1:
        return op("sum", _mul(a, b), axes=(0,), keepdims=True)
    left = a if len(a.shape) > 1 else a.reshape((1, a.size))
    right = b if len(b.shape) > 1 else b.reshape((b.size, 1))
    found = op("matmul", left, right)
    return found.reshape((found.size,)) if 1 in (len(a.shape), len(b.shape)) else found


_OPERATION = {
    "add": lambda a, b: _add(a, b) if isinstance(a, Expression) else _add(b, a),
    "sub": _sub,
    "mul": _mul,
    "matmul": _matmul,
    "div": _div,
    "true_divide": _div,
    "truediv": _div,
    "pow": _pow,
}


def _with(x: Expression, name: str, **constant: Tensor) -> Expression:
    """scale or shift, whose constant has at most the rank of x."""
    ((role, value),) = constant.items()
    rank = max(len(x.shape), value.dim())
    return op(name, x.reshape((*(1,) * (rank - len(x.shape)), *x.shape)), **{role: value})


def _even(*parts: Expression) -> list[Expression]:
    """Expressions of one rank."""
    rank = max(len(part.shape) for part in parts)
    return [part.reshape((*(1,) * (rank - len(part.shape)), *part.shape)) for part in parts]


def _constant(value: Value) -> Tensor:
    found = torch.as_tensor(value, dtype=torch.float64)
    if not bool(found.isfinite().all()):
        raise PropertyError("P112", "a constant of an expression is NaN or infinite")
    return found


def common_space(parts: Sequence[Expression]) -> Space:
    """The space of expressions, or PropertyError (P117) where they have several."""
    if not parts or any(part.space is not parts[0].space for part in parts):
        raise PropertyError(
            "P117",
            "these expressions are about different variables",
            help="make all variables by one call, verif.variables(t=(0, 1), x=(0, 1))",
        )
    return parts[0].space
