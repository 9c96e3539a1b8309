"""Counterexample files round-trip exactly, and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.properties.tools import box, declarations, message, network
from verif import counterexample
from verif.errors import PropertyError
from verif.query import Query, compile_query

VALUES = np.array([[np.float32(0.1), np.float32(1) / 3]], np.float32)
OUTPUTS = {"Y": np.array([1e-30, -2.5], np.float32)}


@pytest.fixture
def query(tmp_path: Path) -> Query:
    (tmp_path / "p.vnnlib").write_text(declarations() + box() + "(assert (<= Y_0 0))")
    return compile_query(tmp_path / "p.vnnlib", network((1, 2)))


@pytest.mark.parametrize("suffix", [".txt", ".npz", ".npy"])
def test_round_trip(suffix: str, query: Query, tmp_path: Path) -> None:
    path = tmp_path / f"cex{suffix}"
    counterexample.write(path, {"X": VALUES}, OUTPUTS)
    assert torch.equal(counterexample.read(path, query), torch.from_numpy(VALUES.reshape(-1)).double())


def test_texts(query: Query, tmp_path: Path) -> None:
    text = counterexample.competition_text({"X": VALUES}, OUTPUTS)
    assert text == (
        "((X_0 0.10000000149011612)\n (X_1 0.3333333432674408)\n (Y_0 1.0000000031710769e-30)\n (Y_1 -2.5))\n"
    )
    parsed = counterexample.parse_competition("sat\n" + text)
    assert np.array_equal(parsed["Y"].astype(np.float32), OUTPUTS["Y"])
    text = counterexample.assignments_text({"X": VALUES}, OUTPUTS, ["Y", "X"])
    assert text == (
        "Y float32 [2]\n1.0000000031710769e-30\n-2.5\nX float32 [1,2]\n0.10000000149011612\n0.3333333432674408\n"
    )
    (tmp_path / "a.txt").write_text(text)
    assert counterexample.read(tmp_path / "a.txt", query).tolist() == VALUES.reshape(-1).tolist()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("((X_0 0.5)", "unexpected '('"),
        ("((X_0 0.5) (X_2 1))", "X_1 is missing"),
        ("((X_0 0.5) (X_0 1))", "X_0 is given twice"),
        ("((X_0 half))", "could not convert string to float: 'half'"),
        ("((Y_0 0.5))", "it gives no X_0"),
        ("((X_0 0.5))", "input 'X' has 1 values, the property has 2"),
        ("X float32 [2]\n0.5", "'X' has 1 numbers, its shape asks for 2"),
        ("0.5\n", "line 1 comes before any name"),
        ("Z float32 [2]\n0.5\n1", "input 'X' has no values"),
    ],
)
def test_errors(text: str, sentence: str, query: Query, tmp_path: Path) -> None:
    path = tmp_path / "cex.txt"
    path.write_text(text)
    with pytest.raises(PropertyError) as caught:
        counterexample.read(path, query)
    assert message(caught.value, path).split("\n")[0] == f"error[P111]: this is no counterexample: {sentence}"


def test_a_missing_file_and_a_broken_archive(query: Query, tmp_path: Path) -> None:
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04")
    for name, sentence in (("a.txt", "the file does not exist"), ("b.npz", "File is not a zip file")):
        with pytest.raises(PropertyError) as caught:
            counterexample.read(tmp_path / name, query)
        assert caught.value.message == f"this is no counterexample: {sentence}"


def test_shared_inputs_must_agree(tmp_path: Path) -> None:
    (tmp_path / "p.vnnlib").write_text(declarations() + box() + "(assert (= X_0 X_1))(assert (<= Y_0 0))")
    query = compile_query(tmp_path / "p.vnnlib", network())
    path = tmp_path / "cex.txt"
    path.write_text("((X_0 0.5) (X_1 0.5))")
    assert counterexample.read(path, query).tolist() == [0.5]
    path.write_text("((X_0 0.5) (X_1 0.25))")
    with pytest.raises(PropertyError, match="differs from an input that the property says is equal to it"):
        counterexample.read(path, query)
