"""The plugin for pytest and its assertions: what passes, what a failure says, budgets, marks, and a light start."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from tests.cli.conftest import HOLDS, model, property_text
from verif.testing import Undecided, Violated, assert_holds, assert_monotone, assert_robust

pytest_plugins = "pytester"
PLUGIN = ("-p", "pytest_verif", "-p", "no:cacheprovider")
BOX = {"age": (0.0, 1.0), "debt": (0.0, 1.0)}
TESTS = """
import pytest

def test_holds(assert_holds):
    assert assert_holds("model.onnx", "holds.vnnlib").verdict.label == "holds"

def test_slopes(assert_monotone):
    assert_monotone("model.onnx", {"age": (0, 1), "debt": (0, 1)}, increasing=["age"], decreasing=["debt"])

@pytest.mark.verif(timeout=7)
def test_budget(assert_holds, monkeypatch):
    import verif.testing
    monkeypatch.setattr(verif.testing, "assert_holds", lambda *given, timeout: print("within", timeout) or [])
    assert_holds("model.onnx", "holds.vnnlib")

def test_run_budget(assert_holds, monkeypatch):
    import verif.testing
    monkeypatch.setattr(verif.testing, "assert_holds", lambda *given, timeout: print("within", timeout) or [])
    assert_holds("model.onnx", "holds.vnnlib")

def test_plain():
    pass
"""


def test_a_run(pytester: pytest.Pytester) -> None:
    model(pytester.path / "model.onnx")
    (pytester.path / "holds.vnnlib").write_text(property_text(HOLDS))
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_subprocess(
        *PLUGIN, "--strict-markers", "--verif-timeout", "9", "-rP", "--junitxml", "j.xml"
    )
    done.assert_outcomes(passed=4, failed=1)
    done.stdout.fnmatch_lines_random(
        [
            "E*verif.testing.Violated: monotonicity of model.onnx is violated in 1 of 2 cases*",
            "E*decreasing in debt: the output goes from * to * as debt goes from * to *",
            "within 7.0",
            "within 9.0",
            "verif: 2 holds, 1 violated",
        ]
    )
    assert not any(
        "testing.py" in line for line in done.outlines if line.startswith("verif/")
    )  # traces end at the test
    found = {case.get("name"): [p.get("value") for p in case.iter("property")] for case in _cases(pytester.path)}
    assert found["test_holds"][0] == "holds" and found["test_slopes"][::2] == ["holds", "violated"]
    assert found["test_plain"] == []


def _cases(folder: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(folder / "j.xml").getroot().iter("testcase"))


def test_selection_and_start_are_light(pytester: pytest.Pytester) -> None:
    """Where no assertion is called, neither torch nor verif is imported; a user's folder `graphs` does no harm."""
    pytester.makepyfile(TESTS)
    pytester.mkpydir("graphs")
    pytester.makeconftest(
        "import sys\ndef pytest_unconfigure():\n    print('seen', {'torch', 'verif', 'numpy'} & set(sys.modules))"
    )
    done = pytester.runpytest_subprocess(*PLUGIN, "-m", "not verif")
    done.assert_outcomes(passed=1, deselected=4)
    done.stdout.fnmatch_lines(["*seen set()*"])


def test_robustness(small: Path) -> None:
    layer = torch.nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.eye(2)
    net = torch.nn.Sequential(layer, torch.nn.ReLU()).eval()
    x = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    assert [result.verdict.label for result in assert_robust(net, x, 0.45)] == ["holds", "holds"]
    with pytest.raises(Violated, match=r"1 of 2 cases\n  sample 0, label 0: output 1 is .*\n.*differs in [12] of 2"):
        assert_robust(net, x, 0.6)
    with pytest.raises(Violated, match="sample 0, label 1: the model's own answer at the sample is 0"):
        assert_robust(net, x[:1], 0.1, label=1)
    with pytest.raises(Undecided, match=r"was not proved in 2 of 2 cases\n.*\n.*\n  tried within 1e-09 s each"):
        assert_robust(net, x, 0.45, timeout=1e-9)
    with pytest.raises(Exception, match="the module is in training mode"):
        assert_robust(net.train(), x, 0.45)


def test_properties_and_slopes(small: Path) -> None:
    assert assert_holds("model.onnx", "holds.vnnlib").verdict.label == "holds"
    with pytest.raises(
        Violated, match=r"violated.vnnlib of model.onnx is violated\n  a replayed point: .* = \["
    ) as told:
        assert_holds("model.onnx", "violated.vnnlib")
    assert told.value.results[0].counterexample is not None
    assert [one.feature for one in assert_monotone("model.onnx", BOX, increasing=["debt", "age"])] == [1, 0]
    with pytest.raises(Exception, match="the box has no feature 'income'"):
        assert_monotone("model.onnx", BOX, increasing=["income"])
    with pytest.raises(Exception, match="name at least one feature"):
        assert_monotone("model.onnx", BOX)


def test_the_page_on_ci(pytester: pytest.Pytester) -> None:
    """The tests that docs/how-to/ci.md shows pass."""
    root = Path(__file__).resolve().parent.parent.parent
    block = (root / "docs/how-to/ci.md").read_text().split("```python\n")[1].split("```")[0]
    (pytester.path / "cases").symlink_to(root / "cases")
    exec(compile(block, "ci.md", "exec"), {})
    pytester.runpytest_subprocess(*PLUGIN, "test_network.py", "--verif-timeout", "60").assert_outcomes(passed=3)
