"""Average pooling, normalisation with known moments, softmax and products of two values, as steps. Factors that are
rounded are called loose.
"""

from __future__ import annotations

import numpy as np

from verif.checker.errors import Refused
from verif.checker.network import Array, Builder
from verif.checker.values import Node, Value, count
from verif.checker.windows import Window


def pooled(builder: Builder, found: Node, value: Value) -> Value:
    """The mean of windows of an image, without padding."""
    if value.constant is not None or len(value.shape) != 4 or value.shape[0] != 1:
        raise Refused(f"{found.op} is checked on images")
    channels, *space = value.shape[1:]
    kernel = space if found.op == "GlobalAveragePool" else found.ints("kernel_shape", [])
    strides = found.ints("strides", [1, 1])
    plain = found.attributes.get("auto_pad", b"NOTSET") == b"NOTSET" and not found.int("ceil_mode", 0)
    if not plain or any(found.ints("pads", [0])) or set(found.ints("dilations", [1])) != {1} or len(kernel) != 2:
        raise Refused("this form of AveragePool is beyond the checker")
    mean = np.full((channels, 1, *kernel), 1.0 / (kernel[0] * kernel[1]))
    window = Window(mean, value.shape[1:], tuple(strides), (0, 0, 0, 0), channels)
    shape = (1, channels, *window.places)
    return Value(shape, step=builder.dense(value.step, window, np.zeros(count(shape)), loose=1))


def padded(builder: Builder, found: Node, value: Value, given: list[Value]) -> Value:
    """Zeros around a value."""
    known = [one.constant for one in given]
    if any(array is None for array in known) or value.constant is not None or len(known) > 2:
        raise Refused("Pad is checked with constants, over all axes")
    pads = [int(size) for size in known[0].ravel()] if known and known[0] is not None else found.ints("pads", [])
    filler = (
        float(found.attributes.get("value", 0.0)) if len(known) < 2 or known[1] is None else float(known[1].ravel()[0])
    )
    rank = len(value.shape)
    if len(pads) != 2 * rank or min(pads) < 0 or filler or found.attributes.get("mode", b"constant") != b"constant":
        raise Refused("Pad is checked with zeros that are added")
    if not any(pads):
        return value
    if rank == 4 and not any(pads[k] for k in (0, 1, 4, 5)):
        ones, around = np.ones((value.shape[1], 1, 1, 1)), (pads[2], pads[3], pads[6], pads[7])
        window = Window(ones, value.shape[1:], (1, 1), around, value.shape[1])
        step = builder.dense(value.step, window, np.zeros(count(window.padded)))
        return Value((1, *window.padded), step=step)
    places = np.arange(count(value.shape)).reshape(value.shape)
    moved = np.pad(places, list(zip(pads[:rank], pads[rank:], strict=True)), constant_values=-1)
    count((moved.size, places.size))
    matrix = np.zeros((moved.size, places.size))
    kept = np.flatnonzero(moved.ravel() >= 0)
    matrix[kept, moved.ravel()[kept]] = 1.0
    return Value(moved.shape, step=builder.dense(value.step, matrix, np.zeros(moved.size)))


def normalised(builder: Builder, found: Node, given: list[Value]) -> Value:
    """scale * (x - mean) / sqrt(variance + epsilon) + bias, by channel."""
    value, shape = given[0], given[0].shape
    known = [one.constant for one in given[1:]]
    if value.constant is not None or len(shape) < 2 or len(known) != 4 or found.int("training_mode", 0):
        raise Refused("this form of BatchNormalization is beyond the checker")
    if "epsilon" not in found.attributes:
        raise Refused("BatchNormalization is checked with an epsilon that the model gives")
    each = []
    for array in known:
        if array is None or array.shape != (shape[1],):
            raise Refused("BatchNormalization is checked with constants, one for each channel")
        spread = array.astype(np.float64).reshape(1, -1, *(1,) * (len(shape) - 2))
        each.append(np.broadcast_to(spread, shape).ravel())
    scale, bias, mean, variance = each
    total = variance + float(found.attributes["epsilon"])
    if not (total > 0).all():
        raise Refused("a variance that is not positive")
    centred = builder.scale(value.step, np.ones(count(shape)), -mean)
    return Value(shape, step=builder.scale(centred, scale / np.sqrt(total), bias, loose=4))


def softmax(builder: Builder, found: Node, value: Value) -> Value:
    """1 / sum over j of exp(x_j - x_i), along the last axis: all of it convex in the inputs."""
    shape = value.shape
    last = found.attributes.get("axis", 1 if len(shape) == 2 else None)  # what older and newer opsets agree about
    if value.constant is not None or last not in (-1, len(shape) - 1):
        raise Refused("Softmax is checked along the last axis")
    total, size = count(shape), shape[-1]
    count((total, size, total))
    entry = np.repeat(np.arange(total), size)
    other = np.repeat(np.arange(total).reshape(-1, size), size, axis=0).ravel()
    each = np.arange(total * size)
    matrix = np.zeros((total * size, total))
    np.add.at(matrix, (each, other), 1.0)
    np.add.at(matrix, (each, entry), -1.0)
    powers = builder.bent("exp", builder.dense(value.step, matrix, np.zeros(total * size)))
    sums = builder.dense(powers, np.kron(np.eye(total), np.ones((1, size))), np.zeros(total))
    return Value(shape, step=builder.bent("reciprocal", sums))


def multiplied(builder: Builder, first: Value, second: Value) -> Value:
    """A stack of matrix products of two values, the stacks of one shape."""
    *stack, rows, inner = first.shape if len(first.shape) > 1 else (0, 0)
    columns = second.shape[-1]
    if not rows or len(second.shape) != len(first.shape) or second.shape[:-1] != (*stack, inner):
        raise Refused("MatMul of two values whose stacks differ is beyond the checker")
    shape = (*stack, rows, columns)
    total = count((*shape, inner))
    count((total, count(shape)))
    left = np.arange(count(first.shape)).reshape(*stack, rows, 1, inner)
    right = np.swapaxes(np.arange(count(second.shape)).reshape(second.shape), -1, -2).reshape(*stack, 1, columns, inner)
    full = (*stack, rows, columns, inner)
    sides = ((first, left), (second, right))
    product = builder.mul(*(builder.pick(one.step, np.broadcast_to(places, full).ravel()) for one, places in sides))
    summed = np.kron(np.eye(count(shape)), np.ones((1, inner)))
    return Value(shape, step=builder.dense(product, summed, np.zeros(count(shape))))


def repeated(builder: Builder, value: Value, shape: tuple[int, ...]) -> Value:
    """A value in a larger shape, its numbers repeated."""
    if value.shape == shape:
        return value
    count(shape)
    places = np.arange(count(value.shape)).reshape(value.shape)
    return Value(shape, step=builder.pick(value.step, np.broadcast_to(places, shape).ravel()))


def joined(builder: Builder, found: Node, given: list[Value]) -> Value:
    """Values and constants side by side."""
    if "axis" not in found.attributes:
        raise Refused("Concat without an axis")
    anchor = next(value.step for value in given if value.constant is None)
    steps, places, first = [], [], 0
    for value in given:
        size = count(value.shape)
        places.append(first + np.arange(size).reshape(value.shape))
        first += size
        if value.constant is None:
            steps.append(value.step)
        else:  # 0 times some number of the network, plus the constant
            some = builder.pick(anchor, np.zeros(size, np.int64))
            steps.append(builder.scale(some, np.zeros(size), value.constant.ravel().astype(np.float64)))
    order = np.concatenate(places, axis=found.int("axis", 0))
    return Value(order.shape, step=builder.pick(builder.join(steps), order.ravel()))


def reduced(builder: Builder, found: Node, given: list[Value]) -> Value:
    """Sums and means along axes."""
    value = given[0]
    axes = found.ints("axes", []) if len(given) == 1 else _axes_of(given[1].constant)
    if value.constant is not None or not axes:
        raise Refused(f"{found.op} is checked on values, with its axes given")
    rank = len(value.shape)
    summed = sorted(axis % rank for axis in axes)
    kept = [axis for axis in range(rank) if axis not in summed]
    places = np.arange(count(value.shape)).reshape(value.shape)
    groups = np.transpose(places, kept + summed).reshape(count(tuple(value.shape[k] for k in kept)), -1)
    count((len(groups), places.size))
    matrix = np.zeros((len(groups), places.size))
    matrix[np.arange(len(groups))[:, None], groups] = 1.0 if found.op == "ReduceSum" else 1.0 / groups.shape[1]
    shape = tuple(
        1 if k in summed else size for k, size in enumerate(value.shape) if k in kept or found.int("keepdims", 1)
    )
    loose = int(found.op == "ReduceMean")
    return Value(shape, step=builder.dense(value.step, matrix, np.zeros(len(groups)), loose))


def _axes_of(array: Array | None) -> list[int]:
    if array is None:
        raise Refused("axes that are computed are beyond the checker")
    return [int(axis) for axis in array.ravel()]
