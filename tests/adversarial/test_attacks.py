"""Networks built as published attacks build them: what float32 hides must never become a proof.

Zombori et al., Fooling a complete neural network verifier (ICLR 2021); Jia & Rinard (arXiv 2003.03021).
"""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.verif.proving import mlp, property_file, save
from verif import Verdict, evidence, verify
from verif.checker import Refused, check, exact, model
from verif.query import compile_query


def hiding(path: Path, size: float, lost: float) -> Path:
    """y = x + backdoor, where the backdoor is `size` + `lost` x - `size` in sums of magnitudes that float32 loses.

    The real value of the backdoor is relu(lost x), the value in float32 is 0 or a multiple of the spacing at `size`.
    """
    weights = [
        np.array([[1.0], [0.0], [lost]]),
        np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]),
        np.array([[1.0, -1.0, 1.0]]),
    ]
    return mlp(path, weights, [np.array([0.0, size, 0.0]), np.zeros(3), np.zeros(1)])


def unproved(out: Path, network: Path, claim: Path) -> bool:
    """Whether no proof of all of the input set is found in a short time, and the checker agrees."""
    try:
        written = evidence.write(out, evidence.Claim(network, claim), deadline=time.monotonic() + 0.3)
    except Refused:
        return not out.exists()
    return written.share < 1 and check(out, network, claim).verdict == "incomplete"


@pytest.mark.parametrize("size", [2.0**10, 2.0**25, 2.0**40, 2.0**70])
def test_a_hidden_backdoor_has_no_proof(size: float, tmp_path: Path) -> None:
    """y = x - relu(x / 2) is at most 1/2 over [0, 1]; float32 sees y = x for large sizes."""
    network = hiding(tmp_path / "net.onnx", size, 0.5)
    assert exact.evaluate(model.read(network), [Fraction(1)]) == [Fraction(1, 2)]
    false = property_file(tmp_path / "p.vnnlib", [("0.9", "1")], 1, "(<= Y_0 0.6)")  # y stays in [0.45, 0.5]: unsafe
    assert unproved(tmp_path / "out.proof", network, false)
    evidence.write(tmp_path / "out.proof", evidence.Claim(network, false), np.array([1.0]))
    assert check(tmp_path / "out.proof", network, false).verdict == "violated"


@pytest.mark.parametrize("size", [2.0**10, 2.0**25, 2.0**40])
def test_the_search_says_no_holds_either(size: float, tmp_path: Path) -> None:
    network = hiding(tmp_path / "net.onnx", size, 0.5)
    claim = property_file(tmp_path / "p.vnnlib", [("0.9", "1")], 1, "(<= Y_0 0.6)")
    assert verify(network, claim, timeout=2).verdict != Verdict.HOLDS


@pytest.mark.parametrize("size", [2.0**20, 2.0**25, 2.0**40])
def test_no_holds_about_programs_that_lose_a_term(size: float, tmp_path: Path) -> None:
    """In real arithmetic y = x - relu(x / 2) stays below 0.6; a program that adds x / 2 to `size` returns x or so."""
    network = hiding(tmp_path / "net.onnx", size, 0.5)
    claim = property_file(tmp_path / "p.vnnlib", [("0.9", "1")], 1, "(>= Y_0 0.6)")
    real, program = (verify(None, compile_query(claim, network, arithmetic=a), timeout=5) for a in ("real", "float32"))
    assert program.verdict in (Verdict.VIOLATED, Verdict.UNKNOWN)
    if size == 2.0**20:
        assert real.verdict is Verdict.HOLDS
        assert program.reason.startswith("it holds in real arithmetic, not shown for float32: ")


@pytest.mark.parametrize("tiny", [1e-40, 1e-45])
def test_denormals_are_numbers(tiny: float, tmp_path: Path) -> None:
    """Weights that a processor may flush to 0: y = tiny * x * 1e38 is not 0."""
    network = mlp(tmp_path / "net.onnx", [np.array([[tiny]]), np.array([[1e38]])], [np.zeros(1), np.zeros(1)])
    held = float(np.float32(tiny)) * float(np.float32(1e38))
    claim = property_file(tmp_path / "p.vnnlib", [("1", "2")], 1, f"(<= Y_0 {0.99 * held:.60f})")
    evidence.write(tmp_path / "out.proof", evidence.Claim(network, claim))
    assert check(tmp_path / "out.proof", network, claim).verdict == "holds"


def test_decimals_between_floats(tmp_path: Path) -> None:
    """The unsafe set touches the box in its decimal end only, which no float is."""
    network = mlp(tmp_path / "net.onnx", [np.eye(1)], [np.zeros(1)])
    touching = property_file(tmp_path / "p.vnnlib", [("0", "0.1")], 1, "(>= Y_0 0.1)")
    assert unproved(tmp_path / "out.proof", network, touching)
    with pytest.raises(Refused):
        evidence.write(tmp_path / "out.proof", evidence.Claim(network, touching), np.array([0.1]))
    beyond = property_file(tmp_path / "q.vnnlib", [("0", "0.1")], 1, "(>= Y_0 0.10000000000001)")
    evidence.write(tmp_path / "out.proof", evidence.Claim(network, beyond))
    assert check(tmp_path / "out.proof", network, beyond).verdict == "holds"


def test_widths_where_errors_add_up(tmp_path: Path) -> None:
    """A sum of 20,000 equal terms against as many negative ones, in an order that loses most."""
    count = 20_000
    weight = np.concatenate([np.full(count, 1e8), np.ones(count), np.full(count, -1e8)])[None]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    constants = {"w": np.ones((1, 3 * count)), "b": np.zeros(3 * count), "v": weight.T}
    path = save(tmp_path / "net.onnx", nodes, {k: v.astype(np.float32) for k, v in constants.items()}, [1, 1], 1)
    false = property_file(tmp_path / "p.vnnlib", [("1", "1")], 1, "(<= Y_0 20000)")
    assert unproved(tmp_path / "out.proof", path, false)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_constants_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    network = mlp(tmp_path / "net.onnx", [np.array([[1.0, value]])], [np.zeros(1)])
    with pytest.raises(Refused, match="finite"):
        model.read(network)
