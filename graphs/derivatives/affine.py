"""Transposes of the affine ops as graphs. Ops of a constant with signs have their own; all others are monotone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from torch import Tensor

from graphs.derivatives.tape import Cotangent, Tape
from graphs.ir import Node

Parts = Sequence[Cotangent | None]


def transpose(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """Cotangents of the inputs of an affine node."""
    own = TRANSPOSES.get(node.op)
    if own is not None:
        return own(tape, node, c)
    shapes = tuple(tape.graph[name].shape for name in node.inputs)
    held = {"base": node.op, "shapes": shapes, "attrs": dict(node.attrs)}
    params = tape.graph.params(node)
    return [tape.apply("transposed", c, params, place=place, **held) for place in range(len(shapes))]


def _weight(tape: Tape, node: Node) -> Tensor:
    return tape.graph.constants[node.params["weight"]]


def _linear(tape: Tape, node: Node, c: Cotangent) -> Parts:
    return [tape.apply("linear", c, {"weight": _weight(tape, node).t()})]


def _matmul(tape: Tape, node: Node, c: Cotangent) -> Parts:
    back = tape.apply(node.op, c, {"weight": _weight(tape, node).mT})
    return [tape.fitted(back, tape.graph[node.inputs[0]].shape)]


def _conv(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """Rows and samples are one axis to a convolution."""
    weight, shape, a = _weight(tape, node), tape.graph[node.inputs[0]].shape, dict(node.attrs)
    extents = [d * (k - 1) + 1 for d, k in zip(a["dilation"], weight.shape[2:], strict=True)]
    sizes = zip(shape[2:], a["padding"], extents, a["stride"], strict=True)
    a["output_padding"] = tuple((n + 2 * p - e) % s for n, p, e, s in sizes)
    return [_joined(tape, "conv_transpose", weight, a, c, shape)]


def _conv_transpose(tape: Tape, node: Node, c: Cotangent) -> Parts:
    a = {name: value for name, value in node.attrs.items() if name != "output_padding"}
    return [_joined(tape, "conv", _weight(tape, node), a, c, tape.graph[node.inputs[0]].shape)]


def _joined(
    tape: Tape, op: str, weight: Tensor, attrs: dict[str, object], c: Cotangent, shape: Sequence[int]
) -> Cotangent:
    lead, samples, *rest = tape.shape(c)
    back = tape.apply(op, tape.reshaped(c, (lead * samples, *rest)), {"weight": weight}, **attrs)
    for axis in range(2, len(shape)):  # output padding that is not read
        if tape.shape(back)[axis] > shape[axis]:
            back = tape.apply("slice", back, axis=axis, start=0, stop=shape[axis])
    return tape.reshaped(back, (lead, *shape))


def _scale(tape: Tape, node: Node, c: Cotangent) -> Parts:
    factor, shape = tape.graph.params(node)["factor"], tape.graph[node.inputs[0]].shape
    return [tape.fitted(tape.apply("scale", c, {"factor": factor}), shape)]


def _sums(tape: Tape, node: Node, c: Cotangent) -> Parts:
    return [tape.fitted(c, tape.graph[name].shape) for name in node.inputs]


def _sub(tape: Tape, node: Node, c: Cotangent) -> Parts:
    first, second = _sums(tape, node, c)
    assert second is not None
    return [first, tape.apply("neg", second)]


def _mean(tape: Tape, node: Node, c: Cotangent) -> Parts:
    shape = tape.graph[node.inputs[0]].shape
    axes = [a % len(shape) for a in node.attrs["axes"]]
    if node.op == "mean":
        c = tape.apply("scale", c, {"factor": tape.number(1 / prod(shape[a] for a in axes))})
    return [tape.repeated(c, node, axes)]


def _transpose(tape: Tape, node: Node, c: Cotangent) -> Parts:
    perm = node.attrs["perm"]
    back = sorted(range(len(perm)), key=lambda a: perm[a])
    return [tape.apply("transpose", c, perm=(0, *(a + 1 for a in back)))]


def _reshape(tape: Tape, node: Node, c: Cotangent) -> Parts:
    return [tape.reshaped(c, (tape.shape(c)[0], *tape.graph[node.inputs[0]].shape))]


TRANSPOSES: dict[str, Callable[[Tape, Node, Cotangent], Parts]] = {
    "linear": _linear,
    "matmul_right": _matmul,
    "matmul_left": _matmul,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "scale": _scale,
    "neg": lambda tape, node, c: [tape.apply("neg", c)],
    "add": _sums,
    "shift": _sums,
    "sub": _sub,
    "sum": _mean,
    "mean": _mean,
    "reshape": _reshape,
    "transpose": _transpose,
}
