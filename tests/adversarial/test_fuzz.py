"""Garbage in every reader: an answer or the reader's own error, never another exception.

The default run is short; VERIF_FUZZ=100000 runs as many examples of each test.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from graphs.errors import VerifError
from graphs.onnx import load
from tests.adversarial import fuzz
from tests.verif.proving import property_file, random_mlp
from verif import evidence
from verif.checker import Refused, check, claims, model
from verif.checker.windows import unfolded
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
    evidence.write(folder / "out.proof", evidence.Claim(network, claim))
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
    matrix = unfolded(model.read(held()[0]).steps[1].matrix, 2)
    data = held()[0].read_bytes().replace(matrix.astype("<f4")[0, 0].tobytes(), b"\x01\x00\xa0\x7f")
    assert not answers(model.read, "fuzzed.onnx", data)
    assert answers(load, "fuzzed.onnx", data) in (True, False)


@pytest.mark.parametrize("word", ["Z_0", "foo1", "Y\0\0\0001", "X_1x", "X_" + "9" * 400, "X_0_0", "Y__1"])
def test_words_with_digits(word: str) -> None:
    """Found here: a word that is neither number nor variable, with digits in it."""
    data = held()[1].read_bytes() + f"(assert (<= {word} 1.0))\n".encode()
    assert not answers(lambda path: compile_query(path, held()[0]), "fuzzed.vnnlib", data)


@pytest.mark.parametrize(
    "old, new",
    [
        (b"X[0,0] 1.0", b"X[0,\xe2\x82] 1.0"),
        (b"2.0 Y", b"2.0e X"),
        (b"[0,1]", b"[0,9999999999999]"),
        (b"[0,1]", b"[0,-1]"),
        (b" 2.0 ", b" 2e99999999999999999999 "),
    ],
)
def test_second_version_beyond_its_package(old: bytes, new: bytes) -> None:
    """Found here: characters cut in two and numbers beyond C++'s, for which the package has no error of its own."""
    data = fuzz.SECOND.replace(old, new)
    assert data != fuzz.SECOND
    assert answers(lambda path: compile_query(path, held()[0]), "first.vnnlib", fuzz.SECOND)
    assert not answers(lambda path: compile_query(path, held()[0]), "fuzzed.vnnlib", data)


def test_many_changed_files() -> None:
    done, wrong = fuzz.fuzz(1000 if EXAMPLES < 1000 else 1_000_000, 3600.0, EXAMPLES)
    assert not wrong
    assert min(done[name] for name in ("onnx", "vnnlib 1", "vnnlib 2")) >= 200


def hostile(edit: Callable[[Any], None]) -> bytes:
    """A small model after an edit."""
    import onnx

    made = onnx.load(held()[0])
    edit(made)
    return bytes(made.SerializeToString())


def external(location: str, **place: str) -> Callable[[Any], None]:
    """Put the first weight into another file."""

    def edit(made: Any) -> None:
        weight = made.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = 1
        for key, value in {"location": location, **place}.items():
            entry = weight.external_data.add()
            entry.key, entry.value = key, value

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        external("../secret"),
        external("/etc/passwd"),
        external("a\0b"),
        external("link"),
        external("net.onnx", offset="-5"),
        external("net.onnx", offset="x"),
        external("net.onnx", offset="1", length="3"),
        external("net.onnx", offset="9" * 30),
        lambda made: made.graph.initializer[0].dims.__setitem__(slice(None), [1 << 40, 1 << 24]),
        lambda made: made.graph.initializer[0].dims.__setitem__(slice(None), [-2, -6]),
        lambda made: setattr(made.graph.initializer[0], "data_type", 127),
        lambda made: setattr(made.graph.initializer[0], "raw_data", b"123"),
    ],
)
def test_hostile_tensors(edit: Callable[[Any], None]) -> None:
    """Data outside of the model's folder, places that are none, shapes that wrap around."""
    link, secret = held()[0].with_name("link"), held()[0].parent.parent / "secret"
    if not link.is_symlink():
        link.symlink_to(secret)
    assert not answers(load, "hostile.onnx", hostile(edit))
    assert not answers(model.read, "hostile.onnx", hostile(edit))


def test_an_input_that_is_left_out() -> None:
    for place in (0, 1):
        for number in range(2):

            def edit(made: Any) -> None:
                inputs = made.graph.node[place].input  # noqa: B023
                inputs[min(number, len(inputs) - 1)] = ""  # noqa: B023

            assert not answers(load, "hostile.onnx", hostile(edit))


def test_values_that_would_fill_the_memory() -> None:
    from onnx import helper, numpy_helper

    for op, sizes in (("ConstantOfShape", [1 << 20, 1 << 20]), ("Range", [0, 1 << 40, 1])):
        inputs = [f"n{place}" for place in range(1 if op == "ConstantOfShape" else 3)]
        values = [np.array(sizes)] if op == "ConstantOfShape" else [np.array(size) for size in sizes]

        def edit(made: Any) -> None:
            made.graph.node.insert(0, helper.make_node(op, inputs, ["big"]))  # noqa: B023
            made.graph.initializer.extend(map(numpy_helper.from_array, values, inputs))  # noqa: B023

        assert not answers(load, "hostile.onnx", hostile(edit))


def test_a_property_that_unpacks_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["verif.vnnlib.read"], "LARGEST", 1 << 16)
    bomb = gzip.compress(held()[1].read_bytes() + b" " * (1 << 17))
    assert not answers(lambda path: compile_query(path, held()[0]), "bomb.vnnlib.gz", bomb)
    assert not answers(lambda path: compile_query(path, held()[0]), "bomb.vnnlib.gz", bomb[:100])
