"""RNN, GRU and LSTM, unrolled: one group of nodes per time step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.converters.indexing import joined, part
from graphs.onnx.converters.logic import complement
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value, Variable

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


@dataclass(frozen=True)
class Weights:
    """Of one direction, for G gates of H numbers: recurrent (G H, H), bias of the input's and of the state's part."""

    size: int
    recurrent: Tensor
    input_bias: Tensor
    state_bias: Tensor


# the input's part of the gates (batch, G H) and the states of the step before, to the new states (the first is Y)
Step = Callable[[Context, Weights, Value, tuple[Value, ...]], tuple[Value, ...]]


def _sum(ctx: Context, x: Value, h: Value, weights: Weights, gates: slice) -> Value:
    """The input's part plus h R' + both biases, of some of the gates."""
    bias = Constant(weights.input_bias[gates] + weights.state_bias[gates], x.dtype)
    state = algebra.matmul(ctx, h, Constant(weights.recurrent[gates].mT.contiguous(), x.dtype))
    return algebra.add(ctx, algebra.add(ctx, part(ctx, x, 1, gates.start, gates.stop), state), bias)


def _rnn(ctx: Context, weights: Weights, x: Value, states: tuple[Value, ...]) -> tuple[Value, ...]:
    op = str(ctx.attr("activations", ["Tanh"])[0]).lower()
    return (ctx.emit(op, _sum(ctx, x, states[0], weights, slice(0, weights.size))),)


def _gru(ctx: Context, weights: Weights, x: Value, states: tuple[Value, ...]) -> tuple[Value, ...]:
    """h' = (1 - z) n + z h, where n sees h through the reset gate."""
    size, (h,) = weights.size, states
    last = slice(2 * size, 3 * size)
    gates = ctx.emit("sigmoid", _sum(ctx, x, h, weights, slice(0, 2 * size)))
    update, reset = part(ctx, gates, 1, 0, size), part(ctx, gates, 1, size, 2 * size)
    if ctx.attr("linear_before_reset", 0):
        state = algebra.matmul(ctx, h, Constant(weights.recurrent[last].mT.contiguous(), x.dtype))
        state = algebra.mul(ctx, reset, algebra.add(ctx, state, Constant(weights.state_bias[last], x.dtype)))
        entry = algebra.add(ctx, part(ctx, x, 1, last.start, last.stop), Constant(weights.input_bias[last], x.dtype))
        new = ctx.emit("tanh", algebra.add(ctx, entry, state))
    else:
        new = ctx.emit("tanh", _sum(ctx, x, algebra.mul(ctx, reset, h), weights, last))
    kept = algebra.mul(ctx, update, h)
    return (algebra.add(ctx, algebra.mul(ctx, complement(ctx, update), new), kept),)


def _lstm(ctx: Context, weights: Weights, x: Value, states: tuple[Value, ...]) -> tuple[Value, ...]:
    """c' = f c + i n and h' = o tanh(c'); gates in the order i, o, f, n."""
    size, (h, c) = weights.size, states
    total = _sum(ctx, x, h, weights, slice(0, 4 * size))
    gates = ctx.emit("sigmoid", part(ctx, total, 1, 0, 3 * size))
    entry, out, forget = (part(ctx, gates, 1, k * size, (k + 1) * size) for k in range(3))
    new = ctx.emit("tanh", part(ctx, total, 1, 3 * size, 4 * size))
    cell = algebra.add(ctx, algebra.mul(ctx, forget, c), algebra.mul(ctx, entry, new))
    return algebra.mul(ctx, out, ctx.emit("tanh", cell)), cell


STEPS: dict[str, Step] = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}


@converter("RNN", since=7)
@converter("GRU", since=7)
@converter("LSTM", since=7)
def recurrent(ctx: Context, x: Value, w: Value, r: Value, *rest: Value | None) -> tuple[Value, ...]:
    """All time steps of all directions; Y, and the last states."""
    optional: list[Value | None] = [*rest, *[None] * (5 - len(rest))]
    bias, lengths, *initial = optional
    _refuse_extras(ctx, x, lengths, initial[2])
    kind, layout = ctx.node.op_type, int(ctx.attr("layout", 0))
    x = algebra.transpose(ctx, x, (1, 0, 2)) if layout else x
    weight, loop = ctx.known(w, f"the weight of {kind}"), ctx.known(r, f"the weight of {kind}")
    size, directions = loop.shape[2], loop.shape[0]
    offset = torch.zeros(directions, 2 * GATES[kind] * size).double() if bias is None else ctx.known(bias, "the bias")
    reverse = [False, True] if directions == 2 else [ctx.attr("direction", "forward") == "reverse"]
    runs = []
    for d, backwards in enumerate(reverse):
        parts = Weights(size, loop[d], *offset[d].chunk(2))
        entry = algebra.matmul(ctx, x, Constant(weight[d].mT.contiguous(), x.dtype))
        first = tuple(_start(ctx, value, d, (x.shape[1], size), layout) for value in initial[: 1 + (kind == "LSTM")])
        runs.append(_run(ctx, parts, entry, first, backwards))
    # each step's (batch, H) becomes Y (time, direction, batch, H); the last states (direction, batch, H)
    steps = [joined(ctx, [_lifted(ctx, run[t][0], 2) for run in runs], 1) for t in range(x.shape[0])]
    ends = [run[0 if backwards else -1] for run, backwards in zip(runs, reverse, strict=True)]
    last = [joined(ctx, [_lifted(ctx, end[k], 1) for end in ends], 0) for k in range(len(ends[0]))]
    y = joined(ctx, steps, 0)
    if layout:
        return algebra.transpose(ctx, y, (2, 0, 1, 3)), *(algebra.transpose(ctx, s, (1, 0, 2)) for s in last)
    return y, *last


def _run(
    ctx: Context, weights: Weights, entry: Value, states: tuple[Value, ...], backwards: bool
) -> list[tuple[Value, ...]]:
    """States after each time step, in the order of time."""
    count, batch, width = entry.shape
    found: list[tuple[Value, ...]] = []
    for t in reversed(range(count)) if backwards else range(count):
        now = algebra.reshape(ctx, part(ctx, entry, 0, t, t + 1), (batch, width))
        states = STEPS[ctx.node.op_type](ctx, weights, now, states)
        found.append(states)
    return found[::-1] if backwards else found


def _start(ctx: Context, value: Value | None, direction: int, shape: tuple[int, int], layout: int) -> Value:
    if value is None:
        return ctx.constant(torch.zeros(shape), "float32")
    value = algebra.transpose(ctx, value, (1, 0, 2)) if layout else value
    return algebra.reshape(ctx, part(ctx, value, 0, direction, direction + 1), shape)


def _lifted(ctx: Context, value: Value, axes: int) -> Value:
    """With axes of size 1 in front."""
    return algebra.reshape(ctx, value, (*(1,) * axes, *value.shape))


def _refuse_extras(ctx: Context, x: Value, lengths: Value | None, peepholes: Value | None) -> None:
    kind = ctx.node.op_type
    count = x.shape[1 if ctx.attr("layout", 0) else 0]
    if lengths is not None and (isinstance(lengths, Variable) or bool((lengths.tensor != count).any())):
        raise ctx.unsupported(f"{kind} with sequences shorter than the input is not supported")
    given = [str(a) for a in ctx.attr("activations", ACTIVATIONS[kind])]
    plain = given[: len(ACTIVATIONS[kind])] == ACTIVATIONS[kind] or (kind == "RNN" and set(given) == {"Relu"})
    if peepholes is not None or ctx.has("clip") or ctx.attr("input_forget", 0) or not plain:
        raise ctx.unsupported(f"{kind} with peepholes, clipping or other activations is not supported")
