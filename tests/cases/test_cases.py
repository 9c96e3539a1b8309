"""Every case of cases/: the verdict is the expected one, counterexamples replay, and recipes make what is stored."""

from __future__ import annotations

import importlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks import replay
from verif import verify

CASES = Path(__file__).resolve().parents[2] / "cases"
FOLDERS = sorted(path.parent for path in CASES.glob("*/case.toml"))


@dataclass(frozen=True)
class Entry:
    """One row of a case.toml."""

    path: Path
    expected: str
    networks: dict[str, Path]
    counterexample: list[float] | None


def entries() -> list[Entry]:
    found = []
    for folder in FOLDERS:
        case = tomllib.loads((folder / "case.toml").read_text())
        for row in case["property"]:
            assert row["because"]
            networks = {name: folder / file for name, file in (row.get("networks") or case["networks"]).items()}
            found.append(Entry(folder / row["file"], row["expected"], networks, row.get("counterexample")))
    return found


ENTRIES = entries()
VIOLATED = [entry for entry in ENTRIES if entry.expected == "violated"]


def name(entry: Entry) -> str:
    return f"{entry.path.parent.name}-{entry.path.stem}"


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_verdict_is_as_expected(entry: Entry) -> None:
    several = len(entry.networks) > 1
    model = None if several else entry.networks["f"]
    result = verify(entry.networks if several else model, entry.path, timeout=60)
    assert result.verdict.label == entry.expected
    if result.counterexample is not None:
        point = np.concatenate([value.ravel() for value in result.counterexample.inputs.values()])
        assert replay.check(list(entry.networks.values()), entry.path, point) == 0


@pytest.mark.parametrize("entry", VIOLATED, ids=name)
def test_stored_counterexample_replays(entry: Entry) -> None:
    point = np.array(entry.counterexample * len(entry.networks))  # networks of one query get the same input
    assert replay.check(list(entry.networks.values()), entry.path, point) == 0


def test_a_point_that_is_no_counterexample_is_refused() -> None:
    holds = next(entry for entry in ENTRIES if entry.expected == "holds" and "collision" in entry.path.parts)
    assert replay.check([holds.networks["f"]], holds.path, np.array([15.0, 2.0, 0.0, 9.0, 6.0])) > 1
    assert replay.check([holds.networks["f"]], holds.path, np.array([-1e3, 2.0, 0.0, 9.0, 6.0])) > 1e3


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_property_of_a_case_is_listed(folder: Path) -> None:
    listed = {entry.path for entry in ENTRIES if entry.path.parent == folder}
    assert listed == set(folder.glob("*.vnnlib"))
    assert {entry.expected for entry in ENTRIES if entry.path.parent == folder} == {"holds", "violated"}


@pytest.mark.parametrize("case", ["collision", "digits", "smooth", "lane", "attention"])
def test_recipes_state_the_stored_properties(case: str) -> None:
    if case in ("digits", "smooth", "attention"):
        pytest.importorskip("sklearn", reason="scikit-learn has the digits")
    recipe = importlib.import_module(f"cases.{case}.recipe")
    outputs = {"collision": 5, "lane": recipe.STEPS + 1 if case == "lane" else 0}.get(case, 10)
    for claim in recipe.claims():
        assert claim.vnnlib(outputs) == (CASES / case / claim.file).read_text()


def test_training_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = importlib.import_module("cases.lane.recipe")
    copies = importlib.import_module("cases.quantised.recipe")
    monkeypatch.setattr(recipe, "EPOCHS", 2)
    once, again = recipe.network(), recipe.network()
    assert recipe.model(once).SerializeToString() == recipe.model(again).SerializeToString()
    for copy in (copies.quantise, copies.permute):
        assert copies.model(copy(once)).SerializeToString() == copies.model(copy(again)).SerializeToString()


def test_cases_stay_small() -> None:
    sizes = [path.stat().st_size for path in CASES.rglob("*") if path.suffix in (".onnx", ".vnnlib", ".toml")]
    assert max(sizes) < 300_000 and sum(sizes) < 2_000_000
