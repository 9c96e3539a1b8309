"""VNN-LIB 2.0: several networks, hidden values, products, and every message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graphs import Graph
from tests.properties.tools import message, network, onnx_model
from verif.errors import PropertyError
from verif.query import Query, compile_query
from verif.replay import replay

VERSION = "(vnnlib-version <2.0>)\n"
F = "(declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))\n"
BOX = "".join(f"(assert (and (>= X[0,{i}] 0.0) (<= X[0,{i}] 1.0)))\n" for i in range(2))
WEIGHT = np.array([[1.0, -1.0], [0.5, 2.0]])


def query(text: str, folder: Path, networks=None) -> Query:  # type: ignore[no-untyped-def]
    path = folder / "q.vnnlib"
    path.write_text(VERSION + text)
    return compile_query(path, networks or network((1, 2), (1, 2)))


def error(text: str, folder: Path, networks=None) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(PropertyError) as caught:
        query(text, folder, networks)
    return message(caught.value, folder / "q.vnnlib")


def test_products_and_exponents(tmp_path: Path) -> None:
    text = F + BOX + "(assert (<= (+ (* X[0,0] Y[0,1]) (* 2.0 Y[0,0] Y[0,0]) (* X[0,0] X[0,1] Y[0,0])) 1.5e-1))"
    property = query(text, tmp_path).property
    x, y = torch.tensor([[[0.5, 0.25]]]).double(), torch.tensor([[[3.0, -2.0]]]).double()
    (value,) = property.atoms(*({"f.x": x, "f.y": y}[name] for name in property.atoms.inputs))
    scale = 0.15 / property.clauses.thresholds.item()
    assert value.item() * scale == pytest.approx(0.5 * -2 + 2 * 9 + 0.5 * 0.25 * 3)
    assert {"mul", "square"} <= {node.op for node in property.atoms}


def test_two_networks_share_inputs(tmp_path: Path) -> None:
    g = G.replace("g (", "g (equal-to f) (")
    inputs = "(assert (== Z[0,0] X[0,0]))(assert (>= Z[0,1] X[0,1]))(assert (<= Z[0,1] 1.0))"
    text = F + g + BOX + inputs + "(assert (< W[0,0] Y[0,0]))"
    found = query(text, tmp_path)
    gather = found.property.gather
    assert gather["f.x"].tolist() == [[0, 1]] and gather["g.x"].tolist() == [[0, 2]]
    assert found.property.lower.shape == (1, 3)
    assert [n.name for n in found.networks] == ["f", "g"]
    z = torch.tensor([[0.25, 0.5, 0.75]]).double()
    (atoms,) = found.graph(z)
    assert sorted(atoms[0].tolist()) == pytest.approx([0.5 - 0.75, 0.25])  # X1 - Z1, and W0 - Y0 = 1.0 - 0.75


def test_hidden_values_run_in_onnxruntime(tmp_path: Path) -> None:
    model = onnx_model(tmp_path / "m.onnx", WEIGHT)
    for name in ("minus", "/minus"):
        hidden = f'(declare-network f (declare-input X float32 [1,2]) (declare-hidden H float32 [1,2] "{name}")'
        text = hidden + " (declare-output Y float32 [1,2]))\n" + BOX + "(assert (>= H[0,1] 0.5))"
        found = query(text, tmp_path, model)
        (atoms,) = found.graph(torch.tensor([[1.0, 0.0]]).double())
        assert atoms.tolist() == [[-1.0]]
        seen = replay(found, torch.tensor([1.0, 0.0]))
        assert seen.violated and seen.outputs["H"].tolist() == [[0.0, 1.0]]
        assert not replay(found, torch.tensor([0.0, 1.0])).violated


def test_the_name_of_one_network_does_not_matter(tmp_path: Path) -> None:
    for networks in (network((1, 2), (1, 2)), {"other": network((1, 2), (1, 2))}, [("f", network((1, 2), (1, 2)))]):
        assert query(F + BOX + "(assert (<= Y[0,0] 0.0))", tmp_path, networks).networks[0].name == "f"


def test_real_is_any_type(tmp_path: Path) -> None:
    real = F.replace("float32", "real")
    for dtype in ("float32", "float64"):
        found = query(real + BOX + "(assert (<= Y[0,0] 0.0))", tmp_path, network((1, 2), (1, 2), dtype))
        assert found.graph[found.graph.inputs[0]].attrs["dtype"] == dtype


G = "(declare-network g (declare-input Z float32 [1,2]) (declare-output W float32 [1,2]))\n"


@pytest.mark.parametrize(
    ("text", "networks", "expected"),
    [
        (
            F.replace("X float32 [1,2]", "X float32 [1,3]"),
            None,
            "error[P104]: 'X' is declared as [1, 3], the network's input 'x' is [1, 2]\n  --> FILE",
        ),
        (
            F.replace("X float32", "X float64") + BOX,
            None,
            "error[P105]: 'X' is declared as float64, the network's input 'x' is float32\n  --> FILE",
        ),
        (
            F.replace("(declare-output", "(declare-input X2 float32 [1]) (declare-output"),
            None,
            "error[P104]: network 'f' has 1 inputs, the query declares 2\n  --> FILE\n  note: input 'x' [1, 2]",
        ),
        (
            F + G,
            {"f": network((1, 2), (1, 2))},
            "error[P109]: network 'g' is not given\n  --> FILE\n  help: --network g=FILE.onnx",
        ),
        (
            F + G,
            {"f": network((1, 2), (1, 2)), "h": network()},
            "error[P109]: the query declares no network 'h'\n  --> FILE\n  note: declared: f, g",
        ),
        (
            F + G,
            [("f", network()), ("f", network())],
            "error[P109]: network 'f' is given twice\n  help: give one file: --network f=FILE.onnx",
        ),
        (
            F + G.replace("g (", "g (equal-to f) ("),
            {"f": network((1, 2), (1, 2)), "g": network((1, 2), (1, 2))},
            "error[P109]: network 'g' is equal to 'f', but another model is given for it\n  --> FILE\n"
            "  help: leave --network g=... away",
        ),
        (
            F + G.replace("g (", "g (isomorphic-to f) (").replace("W float32 [1,2]", "W float32 [1,3]"),
            {"f": network((1, 2), (1, 2)), "g": network((1, 2), (1, 3))},
            "error[P104]: shape mismatch for variable number 1 between networks 'g' and 'f': 'f'\n  --> FILE:3:35\n"
            "  note: Ensure corresponding variables have the same shape",
        ),
        (
            F.replace("(declare-output", '(declare-hidden H float32 [2] "no") (declare-output'),
            None,
            "error[P110]: network 'f' has no value 'no' to be declared as hidden\n  --> FILE",
        ),
        (F + "(assert (<= X[0,0] 1.0)", None, "error[P101]: syntax error: the file ends too early\n  --> FILE:3:24"),
        (F + "(assert (not 1.0))", None, "error[P101]: syntax error: unexpected 'not'\n  --> FILE:3:10"),
        (
            F + "(assert\n  (<= Q[0] 1.0))",
            None,
            "error[P102]: undeclared variable: 'Q'\n  --> FILE:4:7\n  note: Variable must be declared before use.",
        ),
        (
            F + "(assert (<= X[0,5] 1.0))",
            None,
            "error[P101]: index out of bounds for variable: 'X[0,5]'\n  --> FILE:3:13\n"
            "  note: Index 5 is out of bounds for dimension 1 with size 2.",
        ),
        (
            F + "(assert (<= X[0,1] 1.0))(assert (<= Y[0,0] 1.0))",
            None,
            "error[P106]: the input X[0,0] has no lower or upper bound\n  --> FILE\n"
            "  note: 2 of 2 inputs lack a bound\n  help: (assert (>= X[0,0] -1.0))",
        ),
    ],
)
def test_errors(text: str, networks, expected: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text = text if "assert" in text else text + "(assert (<= X[0,0] 1.0))"
    assert error(text, tmp_path, networks) == expected


def test_hidden_of_an_onnx_file_must_exist(tmp_path: Path) -> None:
    model = onnx_model(tmp_path / "m.onnx", WEIGHT)
    text = F.replace("(declare-output", '(declare-hidden H float32 [2] "no") (declare-output') + BOX
    expected = "error[P110]: network 'f' has no value 'no' to be declared as hidden\n  --> FILE"
    assert error(text, tmp_path, {"f": model}) == expected


def test_types_are_compared_with_each_input(tmp_path: Path) -> None:
    assert isinstance(network(), Graph)
    text = F.replace("X float32", "X float64") + BOX + "(assert (<= Y[0,0] 0.0))"
    assert query(text, tmp_path, network((1, 2), (1, 2), "float64")).property.variables[0].dtype == "float64"
