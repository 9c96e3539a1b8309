"""What a converter is given: one ONNX node, its attributes, and the means to emit IR nodes (or fold them at once)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphs.errors import GraphError, UnsupportedError
from graphs.ir import GraphBuilder
from graphs.onnx import proto
from graphs.onnx.values import Constant, Value, Variable
from graphs.ops import OPS

MOST_NUMBERS = 1 << 28


@dataclass
class Context:
    """One node under conversion. `emit` computes at once where every input is known: that is all constant folding.

    `nodes` and `outputs` are those of the whole model; `places`, shared by all nodes, holds the values that are an
    index into an axis, and that axis's size.
    """

    builder: GraphBuilder
    node: Any
    opset: int
    label: str
    nodes: Sequence[Any] = ()
    outputs: Sequence[str] = ()
    folder: Path | None = None
    places: dict[str, int] = field(default_factory=dict)
    inputs: tuple[Value | None, ...] = ()
    _attrs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._attrs = {a.name: a for a in self.node.attribute}

    @property
    def origin(self) -> str:
        """The user's name of the node: its own, else that of its first output."""
        return str(self.node.name or next(iter(self.node.output), self.node.op_type))

    @property
    def where(self) -> str:
        """The node, for messages."""
        return f"{self.label}, node '{self.origin}' ({self.node.op_type}, opset {self.opset})"

    # ---- attributes ----

    def has(self, name: str) -> bool:
        """Whether an attribute is set."""
        return name in self._attrs

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as int, float, str, list of these, or Constant (of a tensor)."""
        if name not in self._attrs:
            return default
        a = self._attrs[name]
        kinds = type(a)
        if a.type == kinds.TENSOR:
            return Constant(*proto.tensor(a.t, self.folder, self.where), name=self.origin)
        plain = {kinds.INT: a.i, kinds.FLOAT: a.f, kinds.STRING: a.s.decode(errors="replace")}
        lists = {kinds.INTS: a.ints, kinds.FLOATS: a.floats, kinds.STRINGS: [s.decode() for s in a.strings]}
        if a.type in plain:
            return plain[a.type]
        if a.type in lists:
            return list(lists[a.type])
        raise self.unsupported(f"attribute '{name}' has a type that is not supported")

    def axis(self, name: str, default: int, rank: int) -> int:
        """An axis attribute, counted from 0."""
        return self.wrap(int(self.attr(name, default)), rank)

    def wrap(self, axis: int, rank: int) -> int:
        """An axis of a value of some rank, counted from 0."""
        if not -rank <= axis < max(rank, 1):
            raise self.malformed(f"axis {axis} does not exist in a value of rank {rank}")
        return axis % max(rank, 1)

    # ---- constants ----

    def ints(self, value: Value, what: str) -> list[int]:
        """The integers of a constant input. A variable there means that a shape depends on data: G204."""
        return [int(v) for v in self.known(value, what).reshape(-1).tolist()]

    def scalar(self, value: Value, what: str) -> float:
        """The number in a constant input with one element."""
        tensor = self.known(value, what)
        if tensor.numel() != 1:
            raise self.malformed(f"{what} must be one number, not a tensor of shape {list(tensor.shape)}")
        return float(tensor.reshape(-1)[0])

    def known(self, value: Value, what: str) -> Tensor:
        """The tensor of an input that must be constant."""
        if isinstance(value, Constant):
            return value.tensor
        raise UnsupportedError(
            "G204",
            f"{what} depends on the network's input",
            where=self.where,
            notes=[f"value '{value.name}' is computed from an input; shapes and structure must be constants"],
            help="export the model with fixed shapes (only the first axis, the batch, may be symbolic)",
        )

    def constant(self, data: Any, dtype: str) -> Constant:
        """A constant of an ONNX element type."""
        tensor = data if isinstance(data, Tensor) else torch.tensor(data)
        return Constant.of(tensor, dtype, self.origin)

    # ---- emission ----

    def emit(self, op: str, *inputs: Value, **settings: Any) -> Value:
        """Add an IR node (tensors in `settings` are its params, the rest its attrs), or fold it where all is known.

        A mix of variables and constants makes variables of the constants. The element type is the first input's.
        """
        if op not in OPS:
            raise self.unsupported(f"operator {self.node.op_type} needs the op '{op}', which is not available")
        if all(isinstance(value, Constant) for value in inputs):
            return self._fold(op, [value for value in inputs if isinstance(value, Constant)], settings)
        variables = [self.variable(value) for value in inputs]
        params = {role: self.finite(value) for role, value in settings.items() if isinstance(value, Tensor)}
        attrs = {k: v for k, v in settings.items() if k not in params and v is not None}
        stem = f"{next(iter(self.node.output), self.origin)}:{op}"
        name = self.builder.add(op, [v.name for v in variables], params, attrs, name=stem, origin=self.origin)
        return Variable(name, self.builder.nodes[name].shape, inputs[0].dtype)

    def _fold(self, op: str, inputs: Sequence[Constant], settings: dict[str, Any]) -> Constant:
        tensors = [c.tensor.double() if c.dtype == "bool" else c.tensor for c in inputs]
        result = OPS[op].forward(*(t[None] for t in tensors), **{k: v for k, v in settings.items() if v is not None})
        return Constant.of(result[0], inputs[0].dtype, self.origin)

    def variable(self, value: Value) -> Variable:
        """A value as a variable. A constant becomes 0 times one input number, plus the constant."""
        if isinstance(value, Variable):
            return value
        first = self.builder.nodes[self.builder.inputs[0]]
        flat = self.emit("reshape", Variable(first.name, first.shape, value.dtype), shape=(first.size,))
        zero = self.emit("scale", self.emit("slice", flat, axis=0, start=0, stop=1), factor=torch.zeros(1).double())
        spread = self.emit("expand", zero, shape=(value.tensor.numel(),))
        full = self.emit("shift", spread, offset=value.tensor.double().reshape(-1))
        shaped = self.emit("reshape", full, shape=value.shape)
        assert isinstance(shaped, Variable)
        return shaped

    def finite(self, tensor: Tensor) -> Tensor:
        """A param, checked: NaN and infinity would make bounds meaningless (G104)."""
        if bool(torch.isfinite(tensor).all()):
            return tensor
        known = [v for v in self.inputs if isinstance(v, Constant) and not bool(torch.isfinite(v.tensor).all())]
        raise nonfinite(*((known[0].name, known[0].tensor) if known else (self.origin, tensor)), self.where)

    # ---- errors ----

    def require_room(self, count: float) -> None:
        """Refuse values of more than MOST_NUMBERS numbers before they fill the memory: a few bytes can ask for them."""
        if not count <= MOST_NUMBERS:
            raise self.unsupported(f"a value of {count:.0f} numbers is beyond what is read ({MOST_NUMBERS})")

    def unsupported(self, message: str, *notes: str, help: str = "") -> UnsupportedError:
        """The error for a node that is right but has no meaning here yet."""
        return UnsupportedError("G205", message, where=self.where, notes=notes or self.shapes(), help=help)

    def malformed(self, message: str) -> GraphError:
        """The error for a node that breaks the rules of ONNX."""
        return GraphError("G106", message, where=self.where, notes=self.shapes(), help="export the model again")

    def shapes(self) -> list[str]:
        """One note per input with its shape."""
        known = zip(self.node.input, self.inputs, strict=False)
        return [f"input '{name}' has shape {list(value.shape)}" for name, value in known if value is not None]


def nonfinite(name: str, tensor: Tensor, where: str) -> GraphError:
    """The error for a weight that is NaN or infinite."""
    bad = int((~torch.isfinite(tensor)).sum())
    return GraphError(
        "G104",
        f"tensor '{name}' holds NaN or infinite numbers",
        where=where,
        notes=[f"{bad} of its {tensor.numel()} numbers, shape {list(tensor.shape)}"],
        help="train or export the model again; no bound exists for such weights",
    )
