"""Ops that move numbers, done once on the numbers' places, and ops on constants, where they are exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from verif.checker.errors import Refused
from verif.checker.network import Array, Builder
from verif.checker.values import Node, Value, count


def _flatten(found: Node, x: Array, _: list[Value]) -> Array:
    axis = found.int("axis", 1)
    return x.reshape(count(x.shape[:axis]), -1)


def _reshape(found: Node, x: Array, given: list[Value]) -> Array:
    if given[0].constant is None or found.int("allowzero", 0):
        raise Refused("Reshape to a computed shape is beyond the checker")
    sizes = [int(size) for size in given[0].constant]
    return x.reshape([x.shape[place] if size == 0 else size for place, size in enumerate(sizes)])


def _transpose(found: Node, x: Array, _: list[Value]) -> Array:
    return np.transpose(x, found.ints("perm", list(range(x.ndim))[::-1]))


def _axes(found: Node, given: list[Value], rank: int) -> list[int]:
    """Of Squeeze and Unsqueeze: an attribute, later an input."""
    axes = found.ints("axes", []) if not given else _known(given[0])
    if not axes:
        raise Refused(f"{found.op} is checked with its axes given")
    return [axis % rank for axis in axes]


def _known(value: Value) -> list[int]:
    if value.constant is None:
        raise Refused("places that are computed are beyond the checker")
    return [int(size) for size in value.constant.ravel()]


def _squeeze(found: Node, x: Array, given: list[Value]) -> Array:
    return np.squeeze(x, tuple(_axes(found, given, x.ndim)))


def _unsqueeze(found: Node, x: Array, given: list[Value]) -> Array:
    rank = x.ndim + len(found.ints("axes", []) if not given else _known(given[0]))
    return np.expand_dims(x, tuple(_axes(found, given, rank)))


def _slice(found: Node, x: Array, given: list[Value]) -> Array:
    ends = [found.ints(name, []) for name in ("starts", "ends", "axes") if name in found.attributes]
    if not given and len(ends) < 2:
        raise Refused("Slice without ends")
    starts, stops, *more = [_known(value) for value in given] or ends
    axes, steps = more[0] if more else list(range(len(starts))), more[1] if len(more) > 1 else [1] * len(starts)
    index = [slice(None)] * x.ndim
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        if step < 1:
            raise Refused("Slice backwards is beyond the checker")
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _gather(found: Node, x: Array, given: list[Value]) -> Array:
    index = given[0].constant
    if index is None or index.dtype.kind != "i":
        raise Refused("places that are computed are beyond the checker")
    moved: Array = np.take(x, index, axis=found.int("axis", 0))
    return moved


MOVES = {"Flatten": _flatten, "Reshape": _reshape, "Transpose": _transpose}
MOVES |= {"Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Slice": _slice, "Gather": _gather}


def _expand(found: Node, x: Array, given: list[Value]) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(_known(given[0]))))


def _upsample(found: Node, x: Array, given: list[Value]) -> Array:
    scales = given[0].constant
    if scales is None or found.attributes.get("mode", b"nearest") != b"nearest":
        raise Refused("Upsample is checked with nearest entries and constant scales")
    if scales.shape != (x.ndim,) or not (np.rint(scales) == scales).all() or not (scales >= 1).all():
        raise Refused("Upsample is checked with whole scales, of all axes")
    count(tuple(int(size * scale) for size, scale in zip(x.shape, scales.tolist(), strict=True)))
    for axis, scale in enumerate(scales.astype(int).tolist()):
        x = np.repeat(x, scale, axis)
    return x


MOVES |= {"Expand": _expand, "Upsample": _upsample}


def split(builder: Builder, found: Node, given: list[Value]) -> list[Value]:
    """A value in parts along an axis."""
    source, outputs = given[0], len(found.outputs)
    if source.constant is not None:
        raise Refused("Split of a constant is beyond the checker")
    axis = found.int("axis", 0) % len(source.shape)
    whole = source.shape[axis]
    sizes = _known(given[1]) if len(given) > 1 else found.ints("split", [whole // outputs] * outputs)
    if sum(sizes) != whole or min(sizes) < 1 or len(sizes) != outputs:
        raise Refused("Split whose parts do not fit")
    places = np.arange(count(source.shape)).reshape(source.shape)
    parts = np.split(places, np.cumsum(sizes)[:-1], axis)
    return [Value(part.shape, step=builder.pick(source.step, part.ravel())) for part in parts]


def known(found: Node, given: list[Value]) -> Array | None:
    """The array that an op on constants gives, where it is one that the checker evaluates; a shape is a constant."""
    if found.op == "Shape" and not found.attributes:
        return np.array(given[0].shape, np.int64)
    constants = [value.constant for value in given]
    if found.op not in FOLDED or any(array is None for array in constants):
        return None
    return FOLDED[found.op](found, [array for array in constants if array is not None])


def _filled(found: Node, given: list[Array]) -> Array:
    value = found.attributes.get("value", np.zeros(1, np.float32))
    shape = tuple(int(size) for size in given[0].ravel())
    if shape:
        count(shape)
    return np.full(shape, value.ravel()[0], value.dtype)


def _cast(found: Node, given: list[Array]) -> Array:
    to = {6: np.int32, 7: np.int64}.get(found.int("to", 0))
    if given[0].dtype.kind != "i" or to is None:
        raise Refused("Cast is checked from integers to integers")
    return given[0].astype(to)


def _exactly(found: Node, given: list[Array]) -> Array:
    """Sums and products of integers, or of floats with 0 and 1."""
    first, second = given
    neutral = 0 if found.op in ("Add", "Sub") else 1
    if not first.dtype.kind == second.dtype.kind == "i" and not (second == neutral).all():
        first, second = second, first
        if found.op == "Sub" or not (second == neutral).all():
            raise Refused(f"{found.op} of two constants is beyond the checker")
    plain: dict[str, Callable[[Array, Array], Array]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}
    return plain[found.op](first, second)


def _joined(found: Node, given: list[Array]) -> Array:
    return np.concatenate(given, axis=found.int("axis", 0))


FOLDED: dict[str, Callable[[Node, list[Array]], Array]] = {
    "ConstantOfShape": _filled,
    "Cast": _cast,
    "Concat": _joined,
    "Add": _exactly,
    "Sub": _exactly,
    "Mul": _exactly,
    "Equal": lambda _, given: np.equal(*given),
    "Where": lambda _, given: np.where(*given),
}
