"""Protocol-buffer messages as they lie in a file: field numbers and their values, nothing else."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from verif.checker.errors import Refused

Value = int | bytes
Message = Mapping[int, Sequence[Value]]
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5


def message(data: bytes) -> Message:
    """The fields of one message; integers of varints, bytes of everything else."""
    found: dict[int, list[Value]] = {}
    place = 0
    while place < len(data):
        key, place = varint(data, place)
        kind, value = key & 7, 0
        if kind == VARINT:
            value, place = varint(data, place)
            found.setdefault(key >> 3, []).append(value)
            continue
        if kind == BYTES:
            size, place = varint(data, place)
        elif kind in (EIGHT, FOUR):
            size = 8 if kind == EIGHT else 4
        else:
            raise Refused(f"wire type {kind} is not one of protocol buffers 3")
        if size > len(data) - place:
            raise Refused("a field ends beyond its message")
        found.setdefault(key >> 3, []).append(data[place : place + size])
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
    if isinstance(value, bytes):
        raise Refused("an integer was expected")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def integers(values: Sequence[Value]) -> list[int]:
    """Repeated int64, packed or not."""
    found = []
    for value in values:
        if isinstance(value, int):
            found.append(signed(value))
            continue
        place = 0
        while place < len(value):
            item, place = varint(value, place)
            found.append(signed(item))
    return found


def single(value: Value) -> float:
    """A 32-bit float."""
    if not isinstance(value, bytes) or len(value) != 4:
        raise Refused("a float of four bytes was expected")
    return float(struct.unpack("<f", value)[0])


def text(value: Value) -> str:
    """A string."""
    if not isinstance(value, bytes):
        raise Refused("a string was expected")
    return value.decode("utf-8", "strict")


def one(found: Message, field: int, default: Value) -> Value:
    """The last value of a field."""
    values = found.get(field)
    return values[-1] if values else default


def inner(value: Value) -> Message:
    """A message inside a message."""
    if not isinstance(value, bytes):
        raise Refused("a message was expected")
    return message(value)
