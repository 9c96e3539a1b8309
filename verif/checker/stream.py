"""Proof files: a line with the format's name, then records that are valid as soon as they are on file.

A record is the length of its contents (4 bytes), the contents, compressed, and 8 bytes of SHA-256 over all contents so
far. Contents are a letter and arrays, each a length (4 bytes) and raw little-endian numbers. What a file that ends
early has lost is its last record; any other damage is refused.

    J  the manifest: what is claimed, and the hashes of both inputs
    B  nodes of split trees over boxes: sizes of batches, axes (-1 is a leaf), cuts
    S  the begin of a clause that is shown over signs of ReLU inputs: its row, the neurons
    C  nodes of such a tree: sizes of batches, neurons (-1 is a leaf), slopes and multipliers of the leaves
    P  a counterexample

In a batch are the last open boxes or cases, in their order; their places take the halves of those that are not leaves.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from verif.checker.errors import Refused
from verif.checker.network import Array

MAGIC = b"verif proof 2\n"
CUT = "cut off"  # in place of a record that the file has only the begin of
LIMIT = 1 << 28  # bytes of a record
KINDS = {
    "J": ("<u1",),
    "B": ("<u4", "<i4", "<f8"),
    "S": ("<i4", "<i4"),
    "C": ("<u4", "<i4", "<u1", "<f4"),
    "P": ("<f8",),
}
Record = tuple[str, tuple[Array, ...]]


def read(path: Path) -> tuple[dict[str, Any], Iterator[Record]]:
    """The manifest, and the records behind it as they are asked for."""
    found = _records(path)
    try:
        kind, arrays = next(found)
        manifest = json.loads(arrays[0].tobytes())
    except (StopIteration, IndexError, ValueError, RecursionError):
        raise Refused("this is no proof") from None
    if kind != "J" or not isinstance(manifest, dict):
        raise Refused("this is no proof")
    return manifest, found


def _records(path: Path) -> Iterator[Record]:
    chain = hashlib.sha256()
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise Refused("this is no proof")
        while head := file.read(4):
            size = int.from_bytes(head, "little")
            if size > LIMIT:
                raise Refused("a record larger than the checker reads")
            held, seal = file.read(size), file.read(8)
            if len(head) < 4 or len(held) < size or len(seal) < 8:
                yield CUT, ()
                return
            chain.update(held)
            if chain.digest()[:8] != seal:
                raise Refused("a record was changed")
            yield _unpacked(held)


def _unpacked(held: bytes) -> Record:
    packed = zlib.decompressobj()
    try:
        data = packed.decompress(held, LIMIT)
    except zlib.error as error:
        raise Refused(f"a record that cannot be unpacked: {error}") from None
    if not packed.eof or packed.unused_data:
        raise Refused("a record larger than the checker reads, or with something behind it")
    kind, place, arrays = data[:1].decode("latin-1"), 1, []
    for dtype in KINDS.get(kind, ()):
        size = int.from_bytes(data[place : place + 4], "little")
        part = data[place + 4 : place + 4 + size]
        if len(data) < place + 4 + size or size % np.dtype(dtype).itemsize:
            raise Refused("an array ends inside a number")
        arrays.append(np.frombuffer(part, dtype))
        place += 4 + size
    if kind not in KINDS or place != len(data):
        raise Refused("a record that the checker does not know")
    return kind, tuple(arrays)


@dataclass
class Writer:
    """Appends records to a file."""

    file: IO[bytes]
    chain: Any = field(default_factory=hashlib.sha256)

    def begin(self, manifest: dict[str, Any]) -> None:
        """The first line and the manifest."""
        self.file.write(MAGIC)
        self.add("J", np.frombuffer(json.dumps(manifest).encode(), "u1"))

    def add(self, kind: str, *arrays: Array) -> None:
        """One record; it is on file when this returns."""
        data = kind.encode()
        for array, dtype in zip(arrays, KINDS[kind], strict=True):
            part = np.ascontiguousarray(array, dtype).tobytes()
            data += len(part).to_bytes(4, "little") + part
        held = zlib.compress(data, 6)
        self.chain.update(held)
        self.file.write(len(held).to_bytes(4, "little") + held + self.chain.digest()[:8])
        self.file.flush()
