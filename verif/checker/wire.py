"""Protocol-buffer messages as they lie in a file: field numbers and their values, nothing else."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from verif.checker.errors import Refused

Value = int | bytes | float
Message = Mapping[int, Sequence[Value]]
VARINT, BYTES, FOUR = 0, 2, 5


def message(data: bytes) -> Message:
    """The fields of one message: integers, floats of four bytes, and bytes."""
    found: dict[int, list[Value]] = {}
    place = 0
    while place < len(data):
        key, place = varint(data, place)
        kind, value = key & 7, 0
        if kind == VARINT:
            value, place = varint(data, place)
            found.setdefault(key >> 3, []).append(value)
            continue
        if kind not in (BYTES, FOUR):
            raise Refused(f"wire type {kind} is not one that models have")
        size, place = varint(data, place) if kind == BYTES else (4, place)
        if size > len(data) - place:
            raise Refused("a field ends beyond its message")
        held = data[place : place + size]
        found.setdefault(key >> 3, []).append(held if kind == BYTES else struct.unpack("<f", held)[0])
        place += size
    return found


def varint(data: bytes, place: int) -> tuple[int, int]:
    """One variable-length integer, and where the next thing begins."""
    result = 0
    for count in range(10):
        if place + count >= len(data):
            raise Refused("an integer ends beyond its message")
        byte = data[place + count]
        result |= (byte & 127) << (7 * count)
        if byte < 128:
            return result, place + count + 1
    raise Refused("an integer of more than ten bytes")


def signed(value: Value) -> int:
    """A varint as int64."""
    if not isinstance(value, int):
        raise Refused("an integer was expected")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def integers(values: Sequence[Value]) -> list[int]:
    """Repeated int64, packed or not."""
    found = []
    for value in values:
        if not isinstance(value, bytes):
            found.append(signed(value))
            continue
        place = 0
        while place < len(value):
            item, place = varint(value, place)
            found.append(signed(item))
    return found


def single(value: Value) -> float:
    """A 32-bit float."""
    if not isinstance(value, float):
        raise Refused("a float was expected")
    return value


def text(value: Value) -> str:
    """A string."""
    if not isinstance(value, bytes):
        raise Refused("a string was expected")
    return value.decode("utf-8", "strict")


def one(found: Message, field: int, default: Value) -> Value:
    """The value of a field that is not repeated; readers differ about what several of it mean."""
    values = found.get(field, ())
    if len(values) > 1:
        raise Refused("a field that is there twice")
    return values[0] if values else default


def inner(value: Value) -> Message:
    """A message inside a message."""
    if not isinstance(value, bytes):
        raise Refused("a message was expected")
    return message(value)
