"""The checker's own ONNX reader: constants exactly as stored, and only ops whose real-number meaning is exact."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verif.checker.errors import Refused
from verif.checker.layers import joined, multiplied, normalised, padded, pooled, reduced, repeated, softmax
from verif.checker.moves import MOVES, known, split
from verif.checker.network import Array, Builder, Network, Step
from verif.checker.pieces import BENDS, bent, combined, maxpool
from verif.checker.values import DENSE_LIMIT, Node, Value, count
from verif.checker.windows import Window
from verif.checker.wire import Message, inner, integers, message, one, signed, single, text

FILE_LIMIT = 1 << 30
BENT = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Reciprocal": "reciprocal"}
BENT |= {"Floor": "floor", "Sin": "sin", "Cos": "cos"}
FUNCTIONS, SPARSE = 25, 15
TYPES = {1: "<f4", 6: "<i4", 7: "<i8", 11: "<f8"}


def contents(path: Path) -> bytes:
    """A file's bytes, unpacked if its name ends in .gz, up to a limit."""
    if path.stat().st_size > FILE_LIMIT:
        raise Refused(f"{path.name} is larger than the checker reads")
    if path.suffix != ".gz":
        return path.read_bytes()
    with gzip.open(path) as stream:
        data = stream.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise Refused(f"{path.name} is larger than the checker reads")
    return data


def read(path: Path) -> Network:
    """The network in an ONNX file."""
    try:
        whole = message(contents(path))
        if FUNCTIONS in whole:
            raise Refused("functions of a model's own are beyond the checker")
        return Reader().read(inner(one(whole, 7, b"")))
    except (ValueError, IndexError, KeyError, OverflowError, OSError, EOFError) as error:
        raise Refused(f"{path.name} could not be read: {error}") from None


@dataclass
class Reader:
    """Follows the nodes of one graph."""

    builder: Builder = field(default_factory=Builder)
    values: dict[str, Value] = field(default_factory=dict)

    def read(self, graph: Message) -> Network:
        """The network of a graph with one input and one output."""
        for item in graph.get(5, ()):
            name, array = tensor(inner(item))
            self._name([name], [Value(array.shape, array)])
        inputs = [inner(item) for item in graph.get(11, ())]
        free = [item for item in inputs if text(one(item, 1, b"")) not in self.values]
        outputs = graph.get(12, ())
        if len(free) != 1 or len(outputs) != 1 or SPARSE in graph:
            raise Refused("the checker reads models of one input and one output")
        shape = dimensions(free[0])
        size = count(shape)
        self._name([text(one(free[0], 1, b""))], [Value(shape, step=self.builder.put(Step("input", size)))])
        for item in graph.get(1, ()):
            found = node(inner(item))
            if found.op == "Split":
                self._name(found.outputs, split(self.builder, found, [self.values[name] for name in found.inputs]))
            else:
                self._name(found.outputs[:1], [self.visit(found)])
        last = self.values[text(one(inner(outputs[0]), 1, b""))]
        if last.step < 0:
            raise Refused("the output is constant")
        return Network.of(self.builder.steps, last.step)

    def _name(self, names: list[str], values: list[Value]) -> None:
        for name, value in zip(names, values, strict=True):
            if name in self.values:
                raise Refused(f"two values are called '{name:.40}'")
            self.values[name] = value

    def visit(self, found: Node) -> Value:
        """What one node gives."""
        if len(found.outputs) != 1 and any(found.outputs[1:]):
            raise Refused(f"{found.op} with several outputs is beyond the checker")
        names = found.inputs[: max((k + 1 for k, name in enumerate(found.inputs) if name), default=0)]
        if not all(names):
            raise Refused(f"{found.op} that leaves an input out is beyond the checker")
        given = [self.values[name] for name in names]
        if found.op == "Constant":
            array = found.attributes["value"]
            return Value(array.shape, array)
        if found.op in ("Identity", "Dropout"):
            return given[0]
        array = known(found, given)
        if array is not None:
            return Value(array.shape, array)
        if found.op in MOVES:
            return self.move(found, given)
        if found.op == "Concat":
            return joined(self.builder, found, given)
        if found.op in BENT and given[0].step >= 0:
            return Value(given[0].shape, step=self.builder.bent(BENT[found.op], given[0].step))
        if found.op in BENDS and given[0].step >= 0:
            return bent(self.builder, found, given)
        if found.op in ("Max", "Min") and len(given) == 2:
            return combined(self.builder, found.op, given)
        if found.op == "MaxPool":
            return maxpool(self.builder, found, given[0])
        if found.op in ("ReduceSum", "ReduceMean"):
            return reduced(self.builder, found, given)
        if found.op in ("Add", "Sub", "Mul", "Div"):
            return self.arithmetic(found.op, given[0], given[1])
        if found.op in ("AveragePool", "GlobalAveragePool"):
            return pooled(self.builder, found, given[0])
        if found.op == "Pad":
            return padded(self.builder, found, given[0], given[1:])
        if found.op == "Softmax":
            return softmax(self.builder, found, given[0])
        if found.op == "BatchNormalization":
            return normalised(self.builder, found, given)
        if found.op in ("Gemm", "MatMul"):
            return self.product(found, given)
        if found.op in ("Conv", "ConvTranspose"):
            return self.convolve(found, given)
        raise Refused(f"the op {found.op} is beyond the checker")

    def move(self, found: Node, given: list[Value]) -> Value:
        """Ops that move numbers: done once on the numbers' places."""
        source = given[0]
        places = np.arange(count(source.shape)).reshape(source.shape) if source.constant is None else source.constant
        moved = MOVES[found.op](found, places, given[1:])
        if source.constant is not None:
            return Value(moved.shape, moved)
        return Value(moved.shape, step=self.builder.pick(source.step, moved.ravel()))

    def arithmetic(self, op: str, first: Value, second: Value) -> Value:
        """Sums, differences and products with constants; sums of two values."""
        shape = np.broadcast_shapes(first.shape, second.shape)
        if first.constant is None and second.constant is None:
            left, right = (repeated(self.builder, value, shape).step for value in (first, second))
            if op in ("Mul", "Div"):
                right = self.builder.bent("reciprocal", right) if op == "Div" else right
                return Value(shape, step=self.builder.mul(left, right))
            return Value(shape, step=self.builder.add(left, right if op == "Add" else self.builder.negated(right)))
        value, other = (first, second) if first.constant is None else (second, first)
        if value.constant is not None or other.constant is None:
            raise Refused(f"{op} of two constants is beyond the checker")
        value = repeated(self.builder, value, shape)
        held = np.broadcast_to(other.constant, shape).ravel().astype(np.float64)
        factor, shift = np.ones_like(held), np.zeros_like(held)
        if op == "Mul":
            factor = held
        elif op == "Div":
            if second.constant is None or not held.all():
                raise Refused("Div is checked by constants that are not 0")
            factor = 1.0 / held
        elif op == "Add":
            shift = held
        elif second.constant is not None:
            shift = -held
        else:
            factor, shift = -factor, held
        return Value(shape, step=self.builder.scale(value.step, factor, shift, loose=int(op == "Div")))

    def product(self, found: Node, given: list[Value]) -> Value:
        """Gemm and MatMul with a constant matrix on the right; MatMul with one on the left of a matrix."""
        if found.op == "MatMul" and given[1].constant is None:
            left = given[0].constant
            return multiplied(self.builder, given[0], given[1]) if left is None else self.from_left(left, given[1])
        value, weights = given[0], given[1]
        if value.constant is not None or weights.constant is None or len(weights.shape) not in (1, 2):
            raise Refused(f"{found.op} is checked with a constant matrix on the right only")
        if len(weights.shape) == 1:  # a vector, whose axis vanishes
            column = Value((*weights.shape, 1), weights.constant[:, None])
            summed = self.product(Node("MatMul", [], [], {}), [value, column])
            return Value(value.shape[:-1], step=summed.step)
        if found.int("transA", 0) or any(found.attributes.get(name, 1.0) != 1.0 for name in ("alpha", "beta")):
            raise Refused("Gemm with factors is beyond the checker")
        matrix: Array = weights.constant.astype(np.float64)
        if not found.int("transB", 0):
            matrix = matrix.T
        rows = count(value.shape[:-1])
        if value.shape[-1] != matrix.shape[1] or rows * rows * matrix.size > DENSE_LIMIT:
            raise Refused(f"{found.op} whose shapes do not fit, or larger than the checker unfolds")
        shape = (*value.shape[:-1], len(matrix))
        shift: Array = np.zeros(shape)
        if len(given) > 2:
            if given[2].constant is None:
                raise Refused("Gemm with a computed bias is beyond the checker")
            shift = np.broadcast_to(given[2].constant.astype(np.float64), shape)
        if rows > 1:
            matrix = np.kron(np.eye(rows), matrix)
        return Value(shape, step=self.builder.dense(value.step, matrix, shift.ravel()))

    def from_left(self, matrix: Array, value: Value) -> Value:
        """A constant matrix times the columns of a value."""
        if matrix.ndim != 2 or len(value.shape) > 2 or matrix.shape[1] != value.shape[0]:
            raise Refused("MatMul whose shapes do not fit, or of stacks")
        columns = count(value.shape[1:])
        if matrix.size * columns**2 > DENSE_LIMIT:
            raise Refused("MatMul larger than the checker unfolds")
        whole = np.kron(matrix.astype(np.float64), np.eye(columns))
        shape = (len(matrix), *value.shape[1:])
        return Value(shape, step=self.builder.dense(value.step, whole, np.zeros(len(whole))))

    def convolve(self, found: Node, given: list[Value]) -> Value:
        """2-D convolutions."""
        value, kernel = given[0], given[1].constant
        if value.constant is not None or kernel is None or kernel.ndim != 4 or len(value.shape) != 4:
            raise Refused("convolutions are checked on images, with constant kernels")
        plain = found.attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        if value.shape[0] != 1 or not plain or set(found.ints("dilations", [1])) != {1}:
            raise Refused("this form of convolution is beyond the checker")
        strides, pads = found.ints("strides", [1, 1]), found.ints("pads", [0, 0, 0, 0])
        kernel, groups = kernel.astype(np.float64), found.int("group", 1)
        if found.op == "Conv":
            window = Window(kernel, value.shape[1:], tuple(strides), tuple(pads), groups)
            shape = (1, len(kernel), *window.places)
        else:
            window = _transposed(found, value, kernel, groups)
            shape = (1, window.shape[0], window.shape[1], window.shape[2])
        shift = np.zeros(shape[1])
        if len(given) > 2:
            if given[2].constant is None:
                raise Refused("a convolution with a computed bias is beyond the checker")
            shift = given[2].constant.astype(np.float64).ravel()
        shift = shift.repeat(count(shape[2:]))
        return Value(shape, step=self.builder.dense(value.step, window, shift))


def _transposed(found: Node, value: Value, kernel: Array, groups: int) -> Window:
    """The convolution whose transpose a ConvTranspose is."""
    strides, pads, more = (
        found.ints("strides", [1, 1]),
        found.ints("pads", [0] * 4),
        found.ints("output_padding", [0] * 2),
    )
    if "output_shape" in found.attributes or any(
        not 0 <= extra < step for extra, step in zip(more, strides, strict=True)
    ):
        raise Refused("this form of ConvTranspose is beyond the checker")
    size = [
        strides[k] * (value.shape[2 + k] - 1) + kernel.shape[2 + k] + more[k] - pads[k] - pads[k + 2] for k in (0, 1)
    ]
    window = Window(kernel, (kernel.shape[1] * groups, *size), tuple(strides), tuple(pads), groups)
    if (len(kernel), *window.places) != value.shape[1:]:
        raise Refused("a convolution whose shapes do not fit")
    return window.T


def dimensions(value: Message) -> tuple[int, ...]:
    """The shape that a value is declared with; sizes that are left open are 1."""
    kind = inner(one(inner(one(value, 2, b"")), 1, b""))
    if one(kind, 1, 0) not in (1, 11):
        raise Refused("the checker reads models of float32 and float64")
    sizes = []
    for item in inner(one(kind, 2, b"")).get(1, ()):
        sizes.append(signed(one(inner(item), 1, 1)))
    if any(size < 1 for size in sizes):
        raise Refused("an input without numbers")
    return tuple(sizes)


def tensor(found: Message) -> tuple[str, Array]:
    """A constant and its name; data outside the file is refused."""
    kind, shape = one(found, 2, 0), tuple(integers(found.get(1, ())))
    if one(found, 14, 0) or found.get(13) or kind not in TYPES or any(size < 0 for size in shape):
        raise Refused("a constant of a type that the checker does not read, or outside the file")
    dtype = np.dtype(TYPES[int(kind)])
    raw = one(found, 9, b"")
    if isinstance(raw, bytes) and raw:
        array = np.frombuffer(raw, dtype)
    elif kind == 1:
        packed = b"".join(item for item in found.get(4, ()) if isinstance(item, bytes))
        array = np.frombuffer(packed, dtype)
    elif kind == 11:
        packed = b"".join(item for item in found.get(10, ()) if isinstance(item, bytes))
        array = np.frombuffer(packed, dtype)
    else:
        array = np.array(integers(found.get(5 if kind == 6 else 7, ())), dtype)
    if not np.isfinite(array).all():
        raise Refused("a constant of the model is not finite")
    return text(one(found, 8, b"")), array.reshape(shape)


def node(found: Message) -> Node:
    """One node of the graph."""
    attributes: dict[str, Any] = {}
    for item in found.get(5, ()):
        held = inner(item)
        name = text(one(held, 1, b""))
        if name in attributes:
            raise Refused(f"two attributes are called '{name:.40}'")
        attributes[name] = _attribute(held)
    names = [text(item) for item in found.get(1, ())], [text(item) for item in found.get(2, ())]
    if one(found, 7, b"") not in (b"", b"ai.onnx"):
        raise Refused("ops outside of ONNX are beyond the checker")
    return Node(text(one(found, 4, b"")), *names, attributes)


def _attribute(held: Message) -> Any:
    kind = one(held, 20, 0)
    if kind == 1:
        return single(one(held, 2, 0.0))
    if kind == 2:
        return signed(one(held, 3, 0))
    if kind == 3:
        return one(held, 4, b"")
    if kind == 4:
        return tensor(inner(one(held, 5, b"")))[1]
    if kind == 6:
        return [single(value) for value in held.get(7, ())]
    if kind == 7:
        return integers(held.get(8, ()))
    raise Refused("an attribute of a type that the checker does not read")
