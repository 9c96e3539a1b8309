"""Piecewise linear ops as sums of ReLUs: max(x, y) = x + relu(y - x), and what follows from it."""

from __future__ import annotations

import numpy as np

from verif.checker.errors import Refused
from verif.checker.layers import repeated
from verif.checker.network import Array, Builder
from verif.checker.values import Node, Value, count

MOST = 8  # exponents
BENDS = ("Neg", "Abs", "LeakyRelu", "Clip", "Pow")


def larger(builder: Builder, first: int, second: int) -> int:
    """max(x, y), entry by entry."""
    return builder.add(first, builder.bent("relu", builder.add(second, builder.negated(first))))


def combined(builder: Builder, op: str, given: list[Value]) -> Value:
    """Max and Min of two values, or of a value and a constant."""
    shape = np.broadcast_shapes(*(value.shape for value in given))
    if given[0].constant is not None:
        given = given[::-1]
    if given[0].constant is not None:
        raise Refused(f"{op} of two constants is beyond the checker")
    first, sign = repeated(builder, given[0], shape).step, np.full(count(shape), 1.0 if op == "Max" else -1.0)
    first = first if op == "Max" else builder.negated(first)
    if given[1].constant is None:
        second = repeated(builder, given[1], shape).step
        found = larger(builder, first, second if op == "Max" else builder.negated(second))
    else:
        held = sign * np.broadcast_to(given[1].constant, shape).ravel().astype(np.float64)
        found = _above(builder, first, held)
    return Value(shape, step=found if op == "Max" else builder.negated(found))


def _above(builder: Builder, value: int, least: Array) -> int:
    """max(x, c) = c + relu(x - c)."""
    ones = np.ones(len(least))
    return builder.scale(builder.bent("relu", builder.scale(value, ones, -least)), ones, least)


def bent(builder: Builder, found: Node, given: list[Value]) -> Value:
    """Neg, Abs, LeakyRelu, Clip and whole powers of one value."""
    value = given[0]
    step, size = value.step, count(value.shape)
    if found.op == "Neg":
        return Value(value.shape, step=builder.negated(step))
    if found.op == "Pow":
        return _power(builder, value, given[1].constant)
    if found.op == "Clip":
        return _clipped(builder, found, given)
    mirrored = builder.bent("relu", builder.negated(step))
    slope = -1.0 if found.op == "Abs" else float(found.attributes.get("alpha", float(np.float32(0.01))))
    below = builder.scale(mirrored, np.full(size, -slope), np.zeros(size))
    return Value(value.shape, step=builder.add(builder.bent("relu", step), below))


def _power(builder: Builder, value: Value, power: Array | None) -> Value:
    if power is None or not power.size or np.broadcast_shapes(value.shape, power.shape) != value.shape:
        raise Refused("Pow is checked with constant exponents, no more than numbers")
    first = power.flat[0]
    if first not in range(1, MOST + 1) or not (power == first).all():
        raise Refused(f"Pow is checked for one of the exponents 1 to {MOST}")
    found = value.step
    for _ in range(int(first) - 1):
        found = builder.mul(found, value.step)
    return Value(value.shape, step=found)


def _clipped(builder: Builder, found: Node, given: list[Value]) -> Value:
    ends = [value.constant for value in given[1:]] or [found.attributes.get(name) for name in ("min", "max")]
    if len(ends) != 2 or any(end is None for end in ends):
        raise Refused("Clip is checked with two constant ends")
    shape = given[0].shape
    low, high = (np.broadcast_to(np.asarray(end, np.float64), shape).ravel() for end in ends)
    if not (low <= high).all():
        raise Refused("Clip whose ends cross")
    raised = _above(builder, given[0].step, low)
    return Value(shape, step=builder.negated(_above(builder, builder.negated(raised), -high)))


def maxpool(builder: Builder, found: Node, value: Value) -> Value:
    """The largest of each window, by rounds of pairs; a window that the border cuts names some entry twice."""
    plain = found.attributes.get("auto_pad", b"NOTSET") == b"NOTSET" and not found.int("ceil_mode", 0)
    kernel, strides = found.ints("kernel_shape", []), found.ints("strides", [1, 1])
    pads = found.ints("pads", [0, 0, 0, 0])
    if value.constant is not None or len(value.shape) != 4 or value.shape[0] != 1 or not plain or len(kernel) != 2:
        raise Refused("MaxPool is checked on images")
    if set(found.ints("dilations", [1])) != {1} or any(p >= kernel[k % 2] for k, p in enumerate(pads)) or min(pads) < 0:
        raise Refused("this form of MaxPool is beyond the checker")
    channels, *space = value.shape[1:]
    places = np.arange(count(value.shape)).reshape(channels, *space)
    axes = []
    for axis in (0, 1):
        outputs = (space[axis] + pads[axis] + pads[axis + 2] - kernel[axis]) // strides[axis] + 1
        if outputs < 1:
            raise Refused("a window larger than its image")
        starts = np.arange(outputs)[:, None] * strides[axis] - pads[axis]
        axes.append(np.clip(starts + np.arange(kernel[axis]), 0, space[axis] - 1))
    rows, columns = axes
    windows = places[:, rows[:, None, :, None], columns[None, :, None, :]]
    shape = (1, *windows.shape[:3])
    entries = windows.reshape(-1, kernel[0] * kernel[1])
    steps = [builder.pick(value.step, entries[:, k]) for k in range(entries.shape[1])]
    while len(steps) > 1:
        pairs = [builder.larger(*steps[k : k + 2]) for k in range(0, len(steps) - 1, 2)]
        steps = pairs + steps[len(pairs) * 2 :]
    return Value(shape, step=steps[0])
