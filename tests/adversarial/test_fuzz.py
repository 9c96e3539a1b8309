"""Garbage in every reader: an answer or the reader's own error, never another exception.

The default run is short; VERIF_FUZZ=100000 runs as many examples of each test.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from graphs.errors import VerifError
from graphs.onnx import load
from tests.verif.proving import property_file, random_mlp
from verif import evidence
from verif.checker import Refused, check, claims, model
from verif.query import compile_query

EXAMPLES = int(os.environ.get("VERIF_FUZZ", "60"))
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
)
WORDS = ["(", ")", "assert", "and", "or", "<=", ">=", "X_0", "Y_0", "X_99", "-1.5", "1e400", "nan", "declare-const"]
WORDS += ["Real", ";", "\n", "(assert (<= X_0 1))", "(assert (>= X_0 0))", "vnnlib-version", "*", "<2.0>", "0x1", "/"]
SECOND = [
    "declare-network",
    "declare-input",
    "declare-output",
    "N",
    "float32",
    "[1,2]",
    "[0]",
    "[99999999999]",
    "==",
    "<",
]
SECOND += ["(vnnlib-version <2.0>)", "(declare-network N (declare-input X real [1,2]) (declare-output Y real [1,2]))"]
SECOND += ["X[0,0]", "Y[0,1]", "isomorphic-to", "+", *WORDS]


@cache
def held() -> tuple[Path, Path, Path]:
    """A model, a property and its proof."""
    folder = Path(tempfile.mkdtemp(prefix="verif-fuzz-"))
    network = random_mlp(folder / "net.onnx", 4)
    claim = property_file(folder / "p.vnnlib", [("-1", "1"), ("-1", "1")], 2, "(or (<= Y_0 -1000) (>= Y_1 1000))")
    evidence.write(folder / "out.proof", network, claim)
    return network, claim, folder / "out.proof"


def changed(data: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    """Bytes overwritten at places."""
    for place, new in edits:
        place %= max(1, len(data))
        data = data[:place] + new + data[place + len(new) :]
    return data


def answers(read: Callable[[Path], object], name: str, data: bytes) -> bool:
    """Whether a reader took a file; its own errors are the only ones that may leave it."""
    path = held()[0].with_name(name)
    path.write_bytes(data)
    try:
        return read(path) is not None
    except (Refused, VerifError):
        return False


edits = st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4)


@fuzzed
@given(edits)
def test_changed_models(where: list[tuple[int, bytes]]) -> None:
    data = changed(held()[0].read_bytes(), where)
    assert answers(model.read, "fuzzed.onnx", data) in (True, False)
    assert answers(load, "fuzzed.onnx", data) in (True, False)


@fuzzed
@given(st.lists(st.sampled_from(WORDS), max_size=40))
def test_properties_of_the_first_version(words: list[str]) -> None:
    data = " ".join(words).encode()
    assert answers(lambda path: claims.read(path, 2, 2), "fuzzed.vnnlib", data) in (True, False)
    assert answers(lambda path: compile_query(path, held()[0]), "fuzzed.vnnlib", data) in (True, False)


@fuzzed
@given(st.lists(st.sampled_from(SECOND), max_size=30))
def test_properties_of_the_second_version(words: list[str]) -> None:
    data = ("(vnnlib-version <2.0>) " + " ".join(words)).encode()
    assert not answers(lambda path: claims.read(path, 2, 2), "fuzzed.vnnlib", data)
    assert answers(lambda path: compile_query(path, held()[0]), "fuzzed.vnnlib", data) in (True, False)


@fuzzed
@given(edits)
def test_changed_properties(where: list[tuple[int, bytes]]) -> None:
    data = changed(held()[1].read_bytes(), where)
    assert answers(lambda path: claims.read(path, 2, 2), "fuzzed.vnnlib", data) in (True, False)
    assert answers(lambda path: compile_query(path, held()[0]), "fuzzed.vnnlib", data) in (True, False)


@fuzzed
@given(edits)
def test_changed_proofs(where: list[tuple[int, bytes]]) -> None:
    data = changed(held()[2].read_bytes(), where)
    assert answers(lambda path: check(path, *held()[:2]), "fuzzed.proof", data) in (True, False)


def test_signalling_nans() -> None:
    """Found here: constants that numpy warns of when it converts them."""
    data, kept = held()[0].read_bytes(), model.read(held()[0]).steps[1].matrix.astype("<f4")[0, 0].tobytes()
    data = data.replace(kept, b"\x01\x00\xa0\x7f")
    assert not answers(model.read, "fuzzed.onnx", data)
    assert answers(load, "fuzzed.onnx", data) in (True, False)


@pytest.mark.parametrize("word", ["Z_0", "foo1", "Y\0\0\0001", "X_1x", "X_" + "9" * 400])
def test_words_with_digits(word: str) -> None:
    """Found here: a word that is neither number nor variable, with digits in it."""
    data = held()[1].read_bytes() + f"(assert (<= {word} 1.0))\n".encode()
    assert not answers(lambda path: compile_query(path, held()[0]), "fuzzed.vnnlib", data)
