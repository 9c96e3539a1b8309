"""VNN-LIB 1.0: structure of the compiled property, speed, and every message."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.properties.tools import box, declarations, message, network
from verif.errors import PropertyError
from verif.networks import Networks
from verif.query import Property
from verif.vnnlib import read

HEAD = declarations() + box()  # 8 lines: 4 declarations, 4 bounds


def compiled(text: str, folder: Path, inputs: int = 2, outputs: int = 2) -> Property:
    path = folder / "p.vnnlib"
    path.write_text(text)
    return read(path, Networks.of(network((inputs,), (outputs,))))[0]


def error(text: str | bytes, folder: Path) -> str:
    path = folder / "p.vnnlib"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PropertyError) as caught:
        read(path, Networks.of(network()))
    return message(caught.value, path)


def test_disjuncts_share_an_expression(tmp_path: Path) -> None:
    cases = "".join(f"(and (<= Y_0 {k / 1000}) (>= (* 2 Y_1) {k}))" for k in range(1000))
    property = compiled(HEAD + f"(assert (or {cases}))", tmp_path)
    assert property.atoms[property.atoms.outputs[0]].shape == (2,)
    assert [node.op for node in property.atoms] == ["input", "linear"]
    assert property.clauses.atoms.shape == (1000, 2)
    assert property.clauses.thresholds[:, 0].tolist() == [k / 1000 for k in range(1000)]
    assert property.clauses.thresholds[:, 1].tolist() == [-k / 2 for k in range(1000)]


def test_boxes_of_disjuncts_become_regions_that_share_the_clauses_of_another_assert(tmp_path: Path) -> None:
    inputs = "(assert (or (and (<= X_0 0.25) (>= X_1 0.5)) (and (>= X_0 0.75) (<= X_0 2.0))))"
    outputs = "(assert (or (and (<= Y_0 Y_1)) (<= Y_1 0.0) (> Y_0 3)))"
    property = compiled(HEAD + inputs + outputs, tmp_path)
    assert property.lower.tolist() == [[0.0, 0.5], [0.75, 0.0]]
    assert property.upper.tolist() == [[0.25, 1.0], [1.0, 1.0]]
    assert property.spans.tolist() == [[[0, 3]], [[0, 3]]]
    assert property.clauses.strict[:, 0].tolist() == [False, False, True]


def test_equal_boxes_are_one_region(tmp_path: Path) -> None:
    case = "(and (>= X_0 0.1) (<= X_0 0.2) ({} Y_0 0.5))"
    cases = [case.format(op) for op in ("<=", ">=")]
    other = "(and (<= X_0 0.05) (>= Y_1 0.0))"
    property = compiled(HEAD + f"(assert (or {cases[0]} {other} {cases[1]}))", tmp_path)
    assert property.lower.tolist() == [[0.1, 0.0], [0.0, 0.0]]
    assert property.spans.tolist() == [[[0, 2]], [[2, 3]]]


def test_disjunctions_are_factors_not_products(tmp_path: Path) -> None:
    disjunction = "(assert (or " + "".join(f"(<= Y_0 {k})" for k in range(50)) + "))"
    property = compiled(HEAD + disjunction * 6, tmp_path)
    assert property.spans.shape == (1, 6, 2)
    assert len(property.clauses.atoms) == 300


def test_two_large_disjunctions_over_inputs_stay_apart(tmp_path: Path) -> None:
    def cases(name: str) -> str:
        return "(assert (or " + "".join(f"(<= {name} {k / 100})" for k in range(1, 101)) + "))"

    property = compiled(HEAD + cases("X_0") + cases("X_1") + "(assert (<= Y_0 0))", tmp_path)
    assert len(property.lower) == 100
    assert len(property.clauses.atoms) == 100


def test_strict_bounds_are_open_ends(tmp_path: Path) -> None:
    property = compiled(HEAD + "(assert (< X_0 1.0))(assert (> X_1 0.5))(assert (<= Y_0 0))", tmp_path)
    assert property.open_upper is not None and property.open_upper.tolist() == [[True, False]]
    assert property.open_lower is not None and property.open_lower.tolist() == [[False, True]]
    assert property.upper.tolist() == [[1.0, 1.0]]


def test_linear_input_constraints_are_atoms(tmp_path: Path) -> None:
    property = compiled(HEAD + "(assert (<= (+ X_0 X_1) 1.0))(assert (<= Y_0 0))", tmp_path)
    assert set(property.atoms.inputs) == {"x", "y"}
    x, y = torch.tensor([[0.25, 0.5]]).double(), torch.tensor([[7.0, 9.0]]).double()
    values = property.atoms(*({"x": x, "y": y}[name] for name in property.atoms.inputs))[0]
    assert sorted(values[0].tolist()) == [0.75, 7.0]


def test_a_bound_that_another_input_implies(tmp_path: Path) -> None:
    text = declarations() + "(assert (and (<= X_0 1) (>= X_0 0) (<= X_1 X_0) (>= X_1 0)))(assert (<= Y_0 0))"
    property = compiled(text, tmp_path)
    assert property.upper[0, 0] == 1.0 and 1.0 <= property.upper[0, 1] <= 1.0 + 1e-12


def test_equal_inputs_share_a_position(tmp_path: Path) -> None:
    property = compiled(HEAD + "(assert (= X_1 X_0))(assert (<= Y_0 X_1))", tmp_path)
    assert property.gather["x"].tolist() == [0, 0]
    assert property.lower.shape == (1, 1)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("(assert (>= X_1 2.5))", "the input set is empty: X_1 >= 2.5 and X_1 <= 1.0"),
        ("(assert (< X_0 0))", "the input set is empty: X_0 >= 0.0 and X_0 < 0.0"),
        ("(assert (<= 2 1))", "the input set is empty: a constraint without variables is false"),
        ("(assert (or (<= X_0 -1) (>= X_0 2)))", "the input set is empty: no disjunct can be satisfied"),
    ],
)
def test_an_empty_set_is_a_warning(text: str, warning: str, tmp_path: Path) -> None:
    property = compiled(HEAD + text + "(assert (<= Y_0 0))", tmp_path)
    assert len(property.lower) == 0 and property.warnings == (warning,)
    assert len(property.spans) == 0 and property.atoms[property.atoms.outputs[0]].size >= 1


def test_no_condition_on_outputs(tmp_path: Path) -> None:
    property = compiled(HEAD, tmp_path)
    assert property.clauses.atoms.tolist() == [[-1]]
    assert property.warnings == ("the property says nothing beyond its input bounds: every input is a counterexample",)


def test_gzip_comments_and_commands(tmp_path: Path) -> None:
    path = tmp_path / "p.vnnlib.gz"
    text = f"; (assert (\n(set-logic QF_LRA)\n{HEAD}(assert (<= Y_0 ; half\n 5e-1))(check-sat)"
    path.write_bytes(gzip.compress(text.encode()))
    property, _ = read(path, Networks.of(network()))
    assert property.clauses.thresholds.tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("text", "where", "sentence"),
    [
        ("(assert (<= Y_0 0.5)", "9:21", "the file ends where `)` is expected"),
        ("(assert (<= Y_0 0.5)))", "9:22", "expected `(`, found ')'"),
        ("(assert (<= Y_0 0.5.1))", "9:17", "'0.5.1' is not a number"),
        ("(assert (<= Y_0 1e999))", "9:17", "'1e999' is too large for float64"),
        ("(assert (<= Y_0 12abc))", "9:17", "'12abc' is not a number"),
        ("(assert (<= Y_0 1-2))", "9:17", "'1-2' is not a number"),
        ("(assert (<= Y_1e0 1))", "9:13", "expected a number, a variable or an arithmetic term, found 'Y_1e0'"),
        ("(assert (<= Y_01 1))", "9:13", "'Y_01' is not a variable name"),
        ("(assert (<= Y_0))", "9:16", "expected a number, a variable or an arithmetic term, found ')'"),
        ("(assert (<= Y_0 1 2))", "9:19", "expected `)`, found '2'"),
        ("(assert (not (<= Y_0 1)))", "9:10", "expected `and`, `or` or a comparison, found 'not'"),
        ("(assert (<= (/ Y_0 2) 1))", "9:14", "expected `+`, `-` or `*`, found '/'"),
        ("(asert (<= Y_0 1))", "9:2", "expected `assert` or `declare-const`, found 'asert'"),
        ("(assert (or))", "9:12", "expected a formula, found ')'"),
        ("assert", "9:1", "expected `(`, found 'assert'"),
    ],
)
def test_syntax_errors(text: str, where: str, sentence: str, tmp_path: Path) -> None:
    assert error(HEAD + text, tmp_path) == f"error[P101]: {sentence}\n  --> FILE:{where}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            HEAD + "(assert (<= Y_7 0))",
            "error[P102]: variable 'Y_7' is not declared\n  --> FILE:9:13\n  note: 2 output variables are declared",
        ),
        (HEAD + "(declare-const X_1 Real)", "error[P103]: variable 'X_1' is declared twice\n  --> FILE:9:16"),
        (
            HEAD + "(declare-const X_3 Real)",
            "error[P102]: 'X_3' is declared, but 'X_2' is not\n  --> FILE:9:16",
        ),
        (
            HEAD + "(declare-const X_2 Int)",
            "error[P101]: a declaration must read `(declare-const X_0 Real)`, with a name X_<number> or Y_<number>\n"
            "  --> FILE:9:2",
        ),
        (
            declarations(3) + box(3),
            "error[P104]: the property declares 3 inputs (X_0 ...), the network has 2\n  --> FILE\n"
            "  note: the network's inputs: x [2]",
        ),
        (
            declarations(2, 1) + box(),
            "error[P104]: the property declares 1 output (Y_0 ...), the network has 2\n  --> FILE\n"
            "  note: the network's outputs: y [2]",
        ),
        (
            declarations() + "(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= X_1 1))",
            "error[P106]: the input X_1 has no lower bound\n  --> FILE\n  note: 1 of 2 inputs lack a bound\n"
            "  help: (assert (>= X_1 -1.0))",
        ),
        ("", "error[P101]: the property file is empty\n  --> FILE:1:1"),
    ],
)
def test_other_errors(text: str, expected: str, tmp_path: Path) -> None:
    assert error(text, tmp_path) == expected


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PropertyError) as caught:
        read(tmp_path / "no.vnnlib", Networks.of(network()))
    assert message(caught.value, tmp_path / "no.vnnlib") == "error[P100]: the property file does not exist\n  --> FILE"


def test_several_networks_need_the_second_version(tmp_path: Path) -> None:
    (tmp_path / "p.vnnlib").write_text(HEAD)
    with pytest.raises(PropertyError) as caught:
        read(tmp_path / "p.vnnlib", Networks.of({"f": network(), "g": network()}))
    assert message(caught.value, tmp_path / "p.vnnlib") == (
        "error[P109]: a VNN-LIB 1.0 property is about one network, 2 are given\n  --> FILE\n  note: given: f, g"
    )


def test_an_inner_product_has_a_limit(tmp_path: Path) -> None:
    disjunction = "(or " + "".join(f"(<= Y_0 {k}.5)" for k in range(101)) + ")"
    text = error(HEAD + f"(assert (or (<= Y_1 0) (and {disjunction * 3})))", tmp_path)
    assert text.startswith("error[P107]: conjunctions of disjunctions inside one `or` multiply to 1030301 cases")


def test_speed(tmp_path: Path) -> None:
    """100,000 boxes in 9 MB: no Python object per disjunct (about 0.5 s on one slow core; the limit is generous)."""
    low = np.sort(np.random.default_rng(0).uniform(0, 0.9, 100_000))
    cases = "\n".join(f"  (and (>= X_0 {a!r}) (<= X_0 {a + 0.01!r}) (<= Y_0 {a!r}))" for a in low.tolist())
    text = HEAD + f"(assert (or\n{cases}\n))"
    started = time.process_time()
    property = compiled(text, tmp_path)
    assert time.process_time() - started < 10.0
    assert property.lower.shape == (100_000, 2) and property.spans.shape == (100_000, 1, 2)
    assert torch.equal(property.lower[:, 0], torch.from_numpy(low))
    assert property.atoms[property.atoms.outputs[0]].size == 1
