"""Monotonicity along samples' lines, heads that share, and profiles of slopes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cli.main import run
from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from tests.cli.conftest import model
from verif.errors import PropertyError
from verif.monotone import Budget, monotone
from verif.monotone_lines import monotone_along, profile
from verif.verdict import Verdict


def product() -> Graph:
    """(x - 1/4) y: it rises in y where x > 1/4."""
    builder = GraphBuilder()
    z = builder.input("z", (2,), "float64")
    x, y = (builder.add("slice", [z], attrs={"axis": 0, "start": k, "stop": k + 1}) for k in (0, 1))
    moved = builder.add("shift", [x], {"offset": torch.tensor([-0.25], dtype=torch.float64)})
    return builder.build([builder.add("mul", [moved, y])])


def unit(n: int) -> Box:
    return Box(torch.zeros(1, n), torch.ones(1, n))


def test_each_line_has_its_own_verdict() -> None:
    samples = torch.tensor([[0.9, 0.5], [0.1, 0.5], [0.3, 0.0]])
    (up,) = monotone_along(product(), unit(2), samples, increasing=[1])
    assert up.verdicts == (Verdict.HOLDS, Verdict.VIOLATED, Verdict.HOLDS)
    assert up.verdict is Verdict.VIOLATED and up.count(Verdict.HOLDS) == 2
    pair = up.pairs[1]
    assert pair is not None and pair[0, 0] == pair[1, 0] and pair[0, 1] < pair[1, 1]
    (down,) = monotone_along(product(), unit(2), samples[1:2], decreasing=[1])
    assert down.verdicts == (Verdict.HOLDS,) and down.sign == -1


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_lines_agree_with_dense_samples(activation: str) -> None:
    random = torch.Generator().manual_seed(2)
    builder = GraphBuilder()
    value = builder.input("x", (3,), "float64")
    for n, m in ((3, 6), (6, 1)):
        value = builder.add("linear", [value], {"weight": torch.randn(m, n, generator=random, dtype=torch.float64)})
        value = builder.add(activation, [value]) if m > 1 else value
    graph = builder.build([value])
    samples = torch.rand(12, 3, generator=random, dtype=torch.float64)
    found = monotone_along(graph, unit(3), samples, increasing=[0, 1, 2], budget=Budget(timeout=30))
    for one in found:
        moved = samples[:, None].repeat(1, 200, 1)
        moved[..., one.feature] = torch.linspace(0, 1, 200, dtype=torch.float64)
        falls = (graph(moved.flatten(0, 1))[0].reshape(12, 200).diff() < -1e-9).any(1)
        for verdict, fell in zip(one.verdicts, falls.tolist(), strict=True):
            assert verdict is (Verdict.VIOLATED if fell else Verdict.HOLDS)


@pytest.mark.parametrize("head", ["softmax", "stablemax", "log_stablemax", "log_softmax"])
def test_heads_that_share(head: str) -> None:
    """The share of entry 0 rises in it and falls in the others."""
    builder = GraphBuilder()
    graph = builder.build([builder.add(head, [builder.input("x", (3,))], attrs={"axis": 0})])
    box = Box(-torch.ones(1, 3), torch.ones(1, 3))
    results = monotone(graph, box, increasing=[0], decreasing=[1, 2], budget=Budget(timeout=30))
    assert [r.verdict for r in results] == [Verdict.HOLDS] * 3
    (wrong,) = monotone(graph, box, increasing=[1], budget=Budget(timeout=30))
    assert wrong.verdict is Verdict.VIOLATED


def test_a_profile_holds_what_is_seen() -> None:
    found = profile(product(), unit(2), 1, pieces=5)
    assert found.ends.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert (found.lower <= found.least).all() and (found.most <= found.upper).all()
    assert found.lower.tolist() == pytest.approx([-0.25] * 5) and found.upper.tolist() == pytest.approx([0.75] * 5)


def test_bad_input() -> None:
    for samples, message in (
        (torch.zeros(2, 3), r"P104.*the shape \[2, 3\], not \(D, 2\)"),
        (torch.zeros(0, 2), "P112.*there must be a sample"),
        (torch.full((1, 2), torch.nan), "P112.*NaN"),
    ):
        with pytest.raises(PropertyError, match=message):
            monotone_along(product(), unit(2), samples, increasing=[0])
    with pytest.raises(PropertyError, match=r"P112.*feature 2"):
        profile(product(), unit(2), 2)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "model.onnx", bias=-0.5)
    (tmp_path / "box.csv").write_text("name,lower,upper\nage,0,1\n<debt>,0,1\n")
    np.save("x.npy", np.array([[0.2, 0.1], [0.9, 0.3]], np.float32))
    asked = ["--increasing", "age", "--decreasing", "<debt>"]
    words = ["monotone", "model.onnx", "--box", "box.csv", *asked, "--input", "x.npy", "--picture", "p.svg"]
    assert run(words) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("HOLDS     model increasing in age   along 2 lines: 2 holds   ")
    assert second.startswith("VIOLATED  model decreasing in <debt>   along 2 lines: ")
    shown = (tmp_path / "p.svg").read_text()
    assert shown.count("<polygon") == 4 and "slope in &lt;debt&gt;" in shown
