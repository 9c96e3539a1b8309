"""VNN-LIB 1.0 tokens, found with array operations: 100 MB take seconds, and no token becomes a Python object."""

from __future__ import annotations

import enum
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verif.errors import PropertyError
from verif.vnnlib.formula import Bools, Floats, Ints


class Kind(enum.IntEnum):
    """Kinds of tokens; those after WORD are made by the reader from several tokens."""

    OPEN, CLOSE, NUMBER, INPUT, OUTPUT, LE, GE, LT, GT, EQ, NE = range(11)
    PLUS, MINUS, TIMES, AND, OR, ASSERT, DECLARE, REAL, WORD, CLAUSE, DISJUNCTION = range(11, 22)


@dataclass(frozen=True)
class Tokens:
    """Struct of arrays: kind, byte offset, length; `value` is a number's value or a variable's index."""

    text: bytes
    file: str
    kind: NDArray[np.uint8]
    offset: Ints
    length: Ints
    value: Floats

    def __len__(self) -> int:
        return len(self.kind)

    def word(self, i: int) -> str:
        """The i-th token as written."""
        return self.text[self.offset[i] : self.offset[i] + self.length[i]].decode("utf-8", "replace")

    def error(self, code: str, message: str, i: int, **more: Any) -> PropertyError:
        """An error at the i-th token, or at the end of the file."""
        offset = int(self.offset[i]) if i < len(self) else len(self.text.rstrip())
        return error_at(code, message, self.text, self.file, offset, **more)


def error_at(code: str, message: str, text: bytes, file: str, offset: int, **more: Any) -> PropertyError:
    """An error with file:line:column of a byte offset."""
    line, start = text.count(b"\n", 0, offset) + 1, text.rfind(b"\n", 0, offset) + 1
    column = len(text[start:offset].decode("utf-8", "replace")) + 1
    return PropertyError(code, message, where=f"{file}:{line}:{column}", **more)


def _table(default: int, **classes: int) -> NDArray[np.uint8]:
    table = np.full(256, default, np.uint8)
    for characters, value in classes.items():
        table[list(characters.encode())] = value
    return table


_SPACE, _PAREN, _OTHER = 0, 1, 2
_CLASS = _table(_OTHER, **{" \t\r\n\f\v": _SPACE, "()": _PAREN}).tobytes()
# Per byte: 0 digit or separator, 2 another character of numbers, 4 the prefix of a variable, 1 anything else.
_FLAGS = _table(1, **{"0123456789 \t\r\n\f\v()": 0, ".eE+-": 2, "XY_": 4}).tobytes()
_NUMERIC = bytes(c if chr(c) in "0123456789.eE+-" else 32 for c in range(256))
_FIRST = _table(
    Kind.WORD, **{"(": Kind.OPEN, ")": Kind.CLOSE, "0123456789.+-": Kind.NUMBER, "X": Kind.INPUT, "Y": Kind.OUTPUT}
)
_WORDS = {
    "<=": Kind.LE, ">=": Kind.GE, "<": Kind.LT, ">": Kind.GT, "=": Kind.EQ, "==": Kind.EQ, "!=": Kind.NE,
    "*": Kind.TIMES, "and": Kind.AND, "or": Kind.OR, "assert": Kind.ASSERT, "Real": Kind.REAL, "real": Kind.REAL,
}  # fmt: skip
_PAD = b" " * 16


def tokenize(text: bytes, file: str) -> Tokens:
    """All tokens of a file; comments run from `;` to the end of the line."""
    if b";" in text:
        text = re.sub(rb";[^\n]*", lambda match: b" " * len(match[0]), text)
    class_ = np.frombuffer(text.translate(_CLASS), np.uint8)
    inside = class_ == _OTHER
    start = class_ != _SPACE
    start[1:] &= ~(inside[1:] & inside[:-1])
    offset = np.flatnonzero(start)
    if not len(offset):
        raise error_at("P101", "the property file is empty", text, file, 0)
    stop = inside.copy()
    stop[:-1] &= ~inside[1:]
    length = np.ones(len(offset), np.int64)
    words = inside[offset]
    length[words] = np.flatnonzero(stop) + 1 - offset[words]
    data = np.frombuffer(text + _PAD, np.uint8)
    kind = _FIRST[data[offset]]
    _classify(data, kind, offset, length)
    tokens = Tokens(text, file, kind, offset, length, np.zeros(len(offset)))
    _values(tokens, data)
    return tokens


def _classify(data: NDArray[np.uint8], kind: NDArray[np.uint8], offset: Ints, length: Ints) -> None:
    """Set the kinds of operators and words."""
    sign = (kind == Kind.NUMBER) & (length == 1)
    kind[sign & (data[offset] == ord("+"))] = Kind.PLUS
    kind[sign & (data[offset] == ord("-"))] = Kind.MINUS
    index = np.flatnonzero(kind == Kind.WORD)
    size = length[index]
    key = _eight(data, offset[index], size)
    for word, value in _WORDS.items():
        kind[index[(key == _key(word)) & (size == len(word))]] = value
    declare = index[(key == _key("declare-")) & (size == len("declare-const"))]
    kind[declare[_eight(data, offset[declare] + 5, length[declare] - 5) == _key("re-const")]] = Kind.DECLARE


def _eight(data: NDArray[np.uint8], offset: Ints, length: Ints) -> NDArray[np.uint64]:
    """The first eight bytes of each token as one number; shorter tokens are padded with zeros."""
    window = np.lib.stride_tricks.as_strided(data[:8].view("<u8"), (len(data) - 7,), (1,), writeable=False)
    masks = np.array([(1 << 8 * k) - 1 for k in range(9)], np.uint64)
    return np.asarray(window[offset] & masks[np.minimum(length, 8)])


def _key(word: str) -> int:
    return int.from_bytes(word.encode().ljust(8, b"\0"), "little")


def _values(tokens: Tokens, data: NDArray[np.uint8]) -> None:
    """Read all numbers and variable indices in one pass over a copy of the text that has nothing else."""
    kind, offset, length = tokens.kind, tokens.offset, tokens.length
    flags = np.bitwise_or.reduceat(np.frombuffer(tokens.text.translate(_FLAGS), np.uint8), offset)
    variable = (kind == Kind.INPUT) | (kind == Kind.OUTPUT)
    proper = (flags == 4) & (length > 2) & (length < 15) & (data[offset + 1] == ord("_"))
    kind[variable & ~proper] = Kind.WORD
    bad = np.flatnonzero((kind == Kind.NUMBER) & (flags & 5 > 0))
    if len(bad):
        raise tokens.error("P101", f"'{tokens.word(bad[0])}' is not a number", int(bad[0]))
    numeric = (kind == Kind.NUMBER) | (variable & proper)
    blank = ~numeric & (kind > Kind.CLOSE) & (kind != Kind.AND) & (kind != Kind.OR) & (flags & 2 > 0)
    blank |= ~numeric & (kind == Kind.WORD)  # an unknown word may hold digits
    only = np.frombuffer(tokens.text.translate(_NUMERIC), np.uint8).copy()
    only[ragged(offset[blank], length[blank])] = ord(" ")
    tokens.value[numeric] = _parse(tokens, only.tobytes(), np.flatnonzero(numeric))
    index = tokens.value[variable & proper]
    digits = np.floor(np.log10(np.maximum(index, 1))).astype(np.int64) + 1
    odd = np.flatnonzero(variable & proper)[digits != length[variable & proper] - 2]
    if len(odd):
        raise tokens.error("P101", f"'{tokens.word(odd[0])}' is not a variable name", int(odd[0]))


def _parse(tokens: Tokens, only: bytes, numeric: Ints) -> Floats:
    values: Floats | None = None
    if not len(numeric):
        return np.zeros(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            values = np.fromstring(only.decode("ascii", "replace"), np.float64, sep=" ")
        except (ValueError, DeprecationWarning):
            values = None  # some token is malformed: the loop below finds it
    if values is None or len(values) != len(numeric) or not np.isfinite(values).all():
        for i in numeric[tokens.kind[numeric] != Kind.NUMBER]:
            if not re.fullmatch(r"[XY]_\d+", tokens.word(i), re.ASCII):
                raise tokens.error("P101", f"'{tokens.word(i)}' is not a variable name", int(i))
        for i in numeric[tokens.kind[numeric] == Kind.NUMBER]:
            if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", tokens.word(i)):
                raise tokens.error("P101", f"'{tokens.word(i)}' is not a number", int(i))
            if not np.isfinite(float(tokens.word(i))):
                raise tokens.error("P101", f"'{tokens.word(i)}' is too large for float64", int(i))
    assert values is not None and len(values) == len(numeric)
    return values


def ragged(first: Ints, count: Ints) -> Ints:
    """The integers first[i], ..., first[i] + count[i] - 1 for every i, end to end."""
    total = np.cumsum(count)
    if not len(total) or not total[-1]:
        return np.zeros(0, np.int64)
    return np.asarray(np.arange(total[-1]) + np.repeat(first - np.concatenate([[0], total[:-1]]), count))


def between(size: int, first: Ints, last: Ints) -> Bools:
    """Which of 0..size-1 lie in some range first[i] <= k <= last[i]; the ranges do not overlap."""
    change = np.zeros(size + 1, np.int8)
    change[first] += 1
    change[last + 1] -= 1
    return np.asarray(np.cumsum(change[:-1], dtype=np.int8) > 0)
