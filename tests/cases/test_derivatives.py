"""The cases about derivatives: what their properties claim, and that recipes make what is stored."""

from __future__ import annotations

import importlib
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from cases.heat import property as heat
from cases.pendulum import property as pendulum
from cli.slopes import read_box
from relaxations.sets import Box
from verif import Condition, prove
from verif.monotone import Budget, monotone
from verif.verdict import Verdict

CASES = Path(__file__).resolve().parents[2] / "cases"


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        (heat.residual_is_small, Verdict.HOLDS),
        (heat.residual_is_tiny, Verdict.VIOLATED),
        (pendulum.energy_falls, Verdict.HOLDS),
        (pendulum.energy_falls_far_out, Verdict.VIOLATED),
    ],
)
def test_verdicts(condition: object, verdict: Verdict) -> None:
    asked = condition()  # type: ignore[operator]
    assert isinstance(asked, Condition)
    assert prove(asked, timeout=60).verdict is verdict


def stored(path: Path) -> nn.Sequential:
    """A network from the weights in its file, in float64."""
    weights = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in onnx.load(path).graph.initializer}
    layers: list[nn.Module] = []
    for name in sorted({name.rsplit(".", 1)[0] for name in weights}):
        weight = weights[f"{name}.weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": weights[f"{name}.bias"]})
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def test_the_residual_bound_is_near_the_densest_sampling() -> None:
    """Sampled by autograd, on a grid of 301 x 301 points."""
    recipe = importlib.import_module("cases.heat.recipe")
    ends = torch.linspace(0, 1, 301, dtype=torch.float64)
    values = recipe.residual(stored(heat.MODEL), torch.cartesian_prod(ends, ends)).detach()
    found = heat.bound()
    assert found.lower <= float(values.min()) and float(values.max()) <= found.upper
    assert found.size <= 1.1 * float(values.abs().max())
    cells = heat.bounds_on_cells(6, 8)
    sampled = values.reshape(301, 301)[:300, :300].abs().reshape(6, 50, 6, 50).amax((1, 3))
    assert (cells >= sampled).all() and float(cells.max()) <= 1.5 * float(sampled.max())


@pytest.mark.parametrize(("name", "verdict"), [("plain", Verdict.VIOLATED), ("monotone", Verdict.HOLDS)])
def test_risk_models(name: str, verdict: Verdict) -> None:
    names, lower, upper = read_box(CASES / "risk" / "box.csv")
    box = Box(torch.tensor([lower]), torch.tensor([upper]))
    features = [names.index("bmi"), names.index("bp")]
    results = monotone(CASES / "risk" / f"{name}.onnx", box, increasing=features, budget=Budget(timeout=30))
    assert [result.verdict for result in results] == [verdict, verdict]


@pytest.mark.parametrize("case", ["heat", "pendulum", "risk"])
def test_training_is_deterministic(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if case == "risk":
        pytest.importorskip("sklearn", reason="scikit-learn has the diabetes data")
    recipe = importlib.import_module(f"cases.{case}.recipe")
    monkeypatch.setattr(recipe, "EPOCHS", 2)
    files = []
    for folder in (tmp_path / "once", tmp_path / "again"):
        folder.mkdir()
        recipe.build(folder)
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1]
    assert set(files[0]) <= {path.name for path in (CASES / case).iterdir()}


def test_the_picture_is_of_the_stored_model() -> None:
    recipe = importlib.import_module("cases.heat.recipe")
    shown = (CASES / "heat" / "residual.svg").read_text()
    top = float(heat.bounds_on_cells(24, 4).max())
    assert f"at most {top:.3f}" in shown and shown.count("<rect") == 24**2 + 2
    assert recipe.picture(2).count("<title>") == 4
