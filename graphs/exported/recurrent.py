"""RNN, GRU and LSTM, unrolled: one group of nodes per time step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F

from graphs.exported.context import Context, Live, Value, Var, converter
from graphs.exported.layers import linear
from graphs.exported.shapes import cat, select, slice_, stack


@dataclass(frozen=True)
class Weights:
    """Of one layer, for G gates of H numbers: of the input (G H, I), of the state (G H, H), and both biases."""

    entry: Live
    state: Live
    entry_bias: Live | None = None
    state_bias: Live | None = None


# a step's input and the states of the step before, to the new states (the first is the output)
Cell = Callable[[Context, Weights, Var, Sequence[Value]], tuple[Var, ...]]


def _of_state(ctx: Context, weights: Weights, h: Value) -> Value:
    """The state's part of the gates."""
    if isinstance(h, Var):
        return linear(ctx, h, weights.state, weights.state_bias)
    square, bias = weights.state, weights.state_bias
    return Live(lambda: F.linear(h.now(), square.now(), None if bias is None else bias.now()))


def _sum(ctx: Context, x: Var, y: Value) -> Var:
    return ctx.emit("add", x, y) if isinstance(y, Var) else ctx.plus(x, y)


def _product(ctx: Context, x: Var, y: Value) -> Var:
    return ctx.emit("mul", x, y) if isinstance(y, Var) else ctx.times(x, y)


def _part(ctx: Context, x: Value, first: int, last: int) -> Value:
    if isinstance(x, Var):
        return slice_(ctx, x, len(x.shape) - 1, first, last)
    return x.then(lambda t: t[..., first:last])


def _rnn(ctx: Context, weights: Weights, x: Var, states: Sequence[Value]) -> tuple[Var, ...]:
    op = "relu" if "rnn_relu" in ctx.where else "tanh"
    total = _sum(ctx, linear(ctx, x, weights.entry, weights.entry_bias), _of_state(ctx, weights, states[0]))
    return (ctx.emit(op, total),)


def _gru(ctx: Context, weights: Weights, x: Var, states: Sequence[Value]) -> tuple[Var, ...]:
    """Gates reset, update, new: h' = (1 - z) n + z h, where n sees h through the reset gate."""
    (h,), entry = states, linear(ctx, x, weights.entry, weights.entry_bias)
    state, size = _of_state(ctx, weights, h), entry.shape[-1] // 3
    summed = _sum(ctx, _part(ctx, entry, 0, 2 * size), _part(ctx, state, 0, 2 * size))
    gates = ctx.emit("sigmoid", summed)
    reset, update = (slice_(ctx, gates, len(gates.shape) - 1, at * size, (at + 1) * size) for at in range(2))
    seen = _product(ctx, reset, _part(ctx, state, 2 * size, 3 * size))
    new = ctx.emit("tanh", ctx.emit("add", _part(ctx, entry, 2 * size, 3 * size), seen))
    kept = ctx.plus(ctx.emit("neg", update), 1.0)
    return (ctx.emit("add", ctx.emit("mul", kept, new), _product(ctx, update, h)),)


def _lstm(ctx: Context, weights: Weights, x: Var, states: Sequence[Value]) -> tuple[Var, ...]:
    """Gates input, forget, cell, output: c' = f c + i n and h' = o tanh(c')."""
    h, c = states
    gates = _sum(ctx, linear(ctx, x, weights.entry, weights.entry_bias), _of_state(ctx, weights, h))
    size = gates.shape[-1] // 4
    i, f, g, o = (slice_(ctx, gates, len(gates.shape) - 1, at * size, (at + 1) * size) for at in range(4))
    i, f, o = (ctx.emit("sigmoid", gate) for gate in (i, f, o))
    c = ctx.emit("add", ctx.emit("mul", i, ctx.emit("tanh", g)), _product(ctx, f, c))
    return ctx.emit("mul", o, ctx.emit("tanh", c)), c


CELLS: dict[str, Cell] = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}


@converter("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input")
def recurrent(
    ctx: Context, x: Var, start: Live | Sequence[Live], weights: Sequence[Live], *rest: object
) -> tuple[Var, ...]:
    """All outputs, then the last states of every layer; `rest`: with bias, layers, dropout, training, both ways, batch
    first.
    """
    biased, layers, share, training, both, first = rest
    if share and training:
        raise ctx.unsupported("a recurrent layer with dropout in training is not supported")
    assert isinstance(layers, int)
    each, ways, axis = 4 if biased else 2, 2 if both else 1, 1 if first else 0
    starts = [start] if isinstance(start, Live) else list(start)
    steps, lasts = [select(ctx, x, axis, t) for t in range(x.shape[axis])], list[Sequence[Var]]()
    for layer in range(layers):
        found: list[list[Var]] = []
        for way in range(ways):
            at = layer * ways + way
            own = Weights(*weights[each * at : each * (at + 1)])
            states = [part.then(lambda t, at=at: t[at]) for part in starts]  # type: ignore[misc]
            outputs, last = _run(ctx, own, steps[:: 1 - 2 * way], states)
            found.append(outputs[:: 1 - 2 * way])
            lasts.append(last)
        steps = [pair[0] if ways == 1 else cat(ctx, pair, -1) for pair in zip(*found, strict=True)]
    return stack(ctx, steps, axis), *(stack(ctx, parts, 0) for parts in zip(*lasts, strict=True))


def _run(
    ctx: Context, weights: Weights, steps: Sequence[Var], states: Sequence[Value]
) -> tuple[list[Var], tuple[Var, ...]]:
    """One layer in one direction: its outputs, and its states at the end."""
    cell = next(cell for name, cell in CELLS.items() if f"aten.{name}" in ctx.where)
    found: list[tuple[Var, ...]] = []
    for step in steps:
        found.append(cell(ctx, weights, step, found[-1] if found else states))
    return [outputs[0] for outputs in found], found[-1]
