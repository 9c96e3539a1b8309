"""How cotangents go back through each op: one table, a row for each kind or op.

A rule gets the cotangent (S, *N) of a node and returns one for each input; None where the node does not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphs.derivatives.affine import Parts, transpose
from graphs.derivatives.scalar import KINKED, SLOPES
from graphs.derivatives.tape import Cotangent, Tape
from graphs.errors import UnsupportedError
from graphs.ir import Node
from graphs.ops import OPS, Kind

Rule = Callable[[Tape, Node, Cotangent], Parts]


def pulled(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """Cotangents of a node's inputs. Raises UnsupportedError (G301) where the op has no derivative."""
    own = RULES.get(node.op)
    if own is not None:
        return own(tape, node, c)
    if OPS[node.op].kind is Kind.AFFINE:
        return transpose(tape, node, c)
    if node.op in SLOPES:
        (x,) = node.inputs
        return [tape.times(c, SLOPES[node.op](tape, node, x), "chain" if node.op in KINKED else "smooth_chain")]
    raise UnsupportedError(
        "G301",
        f"'{node.op}' has no derivative: its values jump, or its slope does",
        where=f"node '{node.origin}'",
        help="leave it out of the output that is differentiated, or cut the model before it",
    )


def _mul(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """The product rule; for x x twice the same."""
    x, y = node.inputs
    shapes = [tape.graph[name].shape for name in (x, y)]
    back = [tape.times(c, other) for other in (y, x)]
    return [tape.fitted(part, shape) for part, shape in zip(back, shapes, strict=True)]


def _chain(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """Like any product; the slope's own derivative is asked for only where the slope has one."""
    x, d = node.inputs
    shapes = [tape.graph[name].shape for name in (x, d)]
    back = tape.times(c, d, node.op), tape.times(c, x)
    return [tape.fitted(part, shape) for part, shape in zip(back, shapes, strict=True)]


def _matmul(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """c y^T and x^T c."""
    x, y = (tape.row(_turned(tape, name)) for name in node.inputs)
    if isinstance(c, Tensor):
        back = [tape.node("matmul_left", y, params={"weight": c}), tape.node("matmul_right", x, params={"weight": c})]
    else:
        back = [tape.node("matmul", c, y), tape.node("matmul", x, c)]
    return [tape.fitted(part, tape.graph[name].shape) for part, name in zip(back, node.inputs, strict=True)]


def _turned(tape: Tape, name: str) -> str:
    axes = list(range(len(tape.graph[name].shape)))
    return tape.node("transpose", name, perm=(*axes[:-2], axes[-1], axes[-2]))


def _div(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """c / y and -c (x / y) / y."""
    x, y = node.inputs
    if isinstance(c, Tensor):
        over: Cotangent = tape.times(c, tape.node("reciprocal", y))
    else:
        over = tape.node("div", c, tape.row(y))
    back = over, tape.apply("neg", tape.times(over, node.name))
    return [tape.fitted(part, tape.graph[name].shape) for part, name in zip(back, (x, y), strict=True)]


def _extremum(tape: Tape, c: Cotangent, x: str, y: str, largest: bool) -> tuple[Cotangent, Cotangent]:
    """Cotangents, of the common shape, of max(x, y) = y + relu(x - y), or of the minimum."""
    slopes = (0.0, 1.0) if largest else (1.0, 0.0)
    first = tape.times(c, tape.node("clarke", tape.node("sub", x, y), at=(0.0,), slopes=slopes), "chain")
    return first, tape.minus(c, first)


def _maximum(tape: Tape, node: Node, c: Cotangent) -> Parts:
    x, y = node.inputs
    back = _extremum(tape, c, x, y, node.op == "maximum")
    return [tape.fitted(part, tape.graph[name].shape) for part, name in zip(back, node.inputs, strict=True)]


def _reduce_max(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """A tournament over the entries of the axes, moved to the front and joined."""
    (x,) = node.inputs
    shape = tape.graph[x].shape
    axes = sorted(a % len(shape) for a in node.attrs["axes"])
    index = torch.arange(math.prod(shape)).reshape(shape)
    rest = [a for a in range(len(shape)) if a not in axes]
    index = index.permute(*axes, *rest).reshape(math.prod(shape[a] for a in axes), -1)
    return [_tournament(tape, x, index, c, node.op == "reduce_max")]


def _max_pool(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """A tournament over the entries of each window; padding stands for the window's first entry."""
    (x,) = node.inputs
    shape = tape.graph[x].shape
    a = node.attrs
    space = len(shape) - 2
    padding = tuple(a["padding"]) if len(a["padding"]) == 2 * space else (*a["padding"], *a["padding"])
    index = torch.arange(math.prod(shape)).reshape(shape)
    pairs = [n for i in reversed(range(space)) for n in (padding[i], padding[i + space])]
    index = torch.nn.functional.pad(index, pairs, value=-1)
    for axis in range(2, 2 + space):
        size, step, dilation = a["kernel"][axis - 2], a["stride"][axis - 2], a["dilation"][axis - 2]
        index = index.unfold(axis, dilation * (size - 1) + 1, step)[..., ::dilation]
    index = index.reshape(node.size, -1).t()
    first = index.amax(0, keepdim=True)
    return [_tournament(tape, x, torch.where(index < 0, first, index), c, True)]


def _tournament(tape: Tape, x: str, index: Tensor, c: Cotangent, largest: bool) -> Cotangent:
    """The cotangent of x where y_k is the largest of the entries index[:, k] of x, flat, and c that of y."""
    shape, lead = tape.builder.nodes[x].shape, tape.shape(c)[0]
    levels = [tape.node("pick", x, params={"index": index})]
    while (count := tape.builder.nodes[levels[-1]].shape[0]) > 1:
        left, right, over = _halves(tape, levels[-1], count)
        winners = tape.node("maximum" if largest else "minimum", left, right)
        levels.append(tape.node("concat", winners, over, axis=0) if over else winners)
    back = tape.reshaped(c, (lead, 1, index.shape[1]))
    for level in reversed(levels[:-1]):
        count = tape.builder.nodes[level].shape[0]
        left, right, over = _halves(tape, level, count)
        half = count // 2
        won = tape.apply("slice", back, axis=1, start=0, stop=half)
        parts = list(_extremum(tape, won, left, right, largest))
        if over:
            parts.append(tape.apply("slice", back, axis=1, start=half, stop=half + 1))
        back = _concat(tape, parts)
    found = {"base": "pick", "shapes": (shape,), "place": 0, "attrs": {}}
    return tape.apply("transposed", back, {"index": index}, **found)


def _halves(tape: Tape, name: str, count: int) -> tuple[str, str, str | None]:
    """The first and the second half along the first axis, and the entry that is left over."""
    half = count // 2
    left = tape.node("slice", name, axis=0, start=0, stop=half)
    right = tape.node("slice", name, axis=0, start=half, stop=2 * half)
    return left, right, tape.node("slice", name, axis=0, start=2 * half, stop=count) if count % 2 else None


def _concat(tape: Tape, parts: Sequence[Cotangent]) -> Cotangent:
    """Joined along axis 1; all constants, or with constants in between."""
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat([part for part in parts if isinstance(part, Tensor)], 1)
    names, layout, params = list[str](), list[int | str](), dict[str, Tensor]()
    for place, part in enumerate(parts):
        if isinstance(part, Tensor):
            params[f"part{place}"] = part
            layout.append(f"part{place}")
        else:
            layout.append(len(names))
            names.append(part)
    return tape.node("concat", *names, params=params, axis=1, layout=tuple(layout))


def _softmax(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """p (c - sum c p)."""
    axis = node.attrs["axis"] % len(node.shape)
    mean = tape.summed(tape.times(c, node.name), [axis])
    return [tape.times(tape.minus(c, mean), node.name)]


def _log_softmax(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """c - p sum c."""
    return _log_shares(tape, node, c, "softmax")


def _log_shares(tape: Tape, node: Node, c: Cotangent, op: str) -> Parts:
    axis = node.attrs["axis"] % len(node.shape)
    p = tape.node(op, node.inputs[0], axis=axis)
    return [tape.minus(c, tape.times(tape.summed(c, [axis]), p))]


def _stablemax(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """That of the (logarithm of the) softmax of h(x), times h' = 1 / (1 + |x|)."""
    (x,) = node.inputs
    (back,) = _softmax(tape, node, c) if node.op == "stablemax" else _log_shares(tape, node, c, "stablemax")
    assert back is not None
    return [tape.times(back, tape.node("reciprocal", tape.shifted(tape.node("abs", x), 1.0)))]


def _logsumexp(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """c p with the softmax p = e^(x - y)."""
    (x,) = node.inputs
    shape = tape.graph[x].shape
    axes = [a % len(shape) for a in node.attrs["axes"]]
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))
    if len(axes) == 1:
        p = tape.node("softmax", x, axis=axes[0])
    else:
        p = tape.node("exp", tape.node("sub", x, tape.node("reshape", node.name, shape=kept)))
    return [tape.times(tape.reshaped(c, (tape.shape(c)[0], *kept)), p)]


def _norm(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """r (c - y mean(c y)) with r = 1 / sqrt(mean(x^2) + eps); a layer norm also loses its mean."""
    (x,) = node.inputs
    axes = tuple(a % len(node.shape) for a in node.attrs["axes"])
    if node.op == "layer_norm":
        x = tape.node("sub", x, tape.node("mean", x, axes=axes, keepdims=True))
    level = tape.node("mean", tape.node("square", x), axes=axes, keepdims=True)
    rate = tape.node("power", tape.shifted(level, float(node.attrs["eps"])), exponent=-0.5)
    along = _mean(tape, tape.times(c, node.name), axes)
    back = tape.times(tape.minus(c, tape.times(along, node.name)), rate)
    return [tape.minus(back, _mean(tape, back, axes)) if node.op == "layer_norm" else back]


def _mean(tape: Tape, c: Cotangent, axes: Sequence[int]) -> Cotangent:
    return tape.apply("mean", c, axes=tuple(a + 1 for a in axes), keepdims=True)


def _where(tape: Tape, node: Node, c: Cotangent) -> Parts:
    """c on the side that is chosen; the choice itself must not depend on what is differentiated by."""
    choice, x, y = node.inputs
    first = tape.times(c, choice)
    back = first, tape.minus(c, first)
    parts = [tape.fitted(part, tape.graph[name].shape) for part, name in zip(back, (x, y), strict=True)]
    return [None, *parts]


RULES: dict[str, Rule] = {
    "mul": _mul,
    "chain": _chain,
    "smooth_chain": _chain,
    "matmul": _matmul,
    "div": _div,
    "maximum": _maximum,
    "minimum": _maximum,
    "reduce_max": _reduce_max,
    "reduce_min": _reduce_max,
    "max_pool": _max_pool,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "stablemax": _stablemax,
    "log_stablemax": _stablemax,
    "logsumexp": _logsumexp,
    "layer_norm": _norm,
    "rms_norm": _norm,
    "where": _where,
}
JUMPING = {"where": (0,)}  # inputs in which an op jumps
