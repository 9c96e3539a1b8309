"""`verif.evaluate`: bounds, attacks and searches agree with the truth, and a kept evaluation goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import verif
from verif.training import Accuracy, Attack, Judge
from verif.training.accuracy import _Evaluation

WEAK = Judge(methods=("ibp",), attack=Attack(0))


def module() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    with torch.no_grad():
        network[4].bias.sub_(network(torch.zeros(1, 2))[0])  # all classes meet in the middle
    return network


def samples(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(count, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        labels = module()(x).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    return x, labels


def test_searches_decide_what_bounds_leave_open() -> None:
    x, labels = samples()
    network, radius = module(), 0.1
    (bounds,) = verif.evaluate(network, [(x, labels)], [radius], WEAK)
    (searched,) = verif.evaluate(network, [(x, labels)], [radius], Judge(methods=("ibp",), timeout=20.0))
    axis = torch.linspace(-radius, radius, 41)
    with torch.no_grad():
        found = network(x[:, None] + torch.cartesian_prod(axis, axis)).argmax(2)
    stays = float((found == labels[:, None]).all(1).float().mean())
    assert bounds.certified < searched.certified == searched.attacked == pytest.approx(stays)
    assert searched.attacked < bounds.attacked <= bounds.natural == pytest.approx(11 / 12)


@pytest.mark.parametrize(("bend", "proved"), [(nn.ReLU(), True), (nn.Tanh(), True), (nn.Softmax(-1), False)])
def test_bounds_pay_for_rounding(bend: nn.Module, proved: bool) -> None:
    x, labels = samples()
    network = verif.compile(nn.Sequential(nn.Linear(2, 12), bend, nn.Linear(12, 3)).eval(), x).network()
    run = _Evaluation(network, x.double(), labels, Judge())
    room, inside = run._rounding(0.1)
    assert room.shape == (3,) and bool((room < 1e-11).all())
    assert bool((room > 0).all()) == proved == (set(inside) == set(run.graph.nodes))


def test_every_kind_of_model_and_loader(tmp_path: Path) -> None:
    x, labels = samples()
    network = module()
    compiled = verif.compile(network, x[:1])
    loader = DataLoader(TensorDataset(x, labels), batch_size=5)
    judge = Judge(norm=2.0, least=-1.0, most=1.0)
    found = [list(verif.evaluate(model, loader, [0.2, 0.05], judge)) for model in (network, compiled, compiled.graph())]
    assert found[0] == found[1] == found[2]
    small, large = found[0]
    assert (small.radius, large.radius) == (0.05, 0.2) and small.certified > large.certified


def test_goes_on(tmp_path: Path) -> None:
    x, labels = samples(70)
    path, radii, seen = tmp_path / "r.json", [0.02, 0.1], list[Accuracy]()

    def stop(one: Accuracy) -> None:
        seen.append(one)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(verif.evaluate(module(), [(x, labels)], radii, WEAK, results=path, on_event=stop))
    assert seen[0].left == 6 and json.loads(path.read_text())["radii"][0]["states"].endswith(6 * ".")
    whole = list(verif.evaluate(module(), [(x, labels)], radii, WEAK, results=path, on_event=seen.append))
    assert [one.left for one in seen[1:]] == [0, 5, 0]
    assert whole == list(verif.evaluate(module(), [(x, labels)], radii, WEAK))
    again = list(verif.evaluate(module(), [(x, labels)], radii, WEAK, results=path, on_event=seen.append))
    assert again == whole and len(seen) == 4
    (large,) = (one for one in json.loads(path.read_text())["radii"] if one["radius"] == 0.1)
    assert large["seconds"] == 0 and "o" in large["states"]
    (between,) = verif.evaluate(module(), [(x, labels)], [0.05], WEAK, results=path)
    assert whole[0].certified >= between.certified >= whole[1].certified


def test_what_a_search_gave_up_is_taken_up_by_a_longer_one(tmp_path: Path) -> None:
    x, labels = samples()
    path = tmp_path / "r.json"
    short, long = (Judge(methods=("ibp",), attack=Attack(0), timeout=seconds) for seconds in (1e-9, 20.0))
    (found,) = verif.evaluate(module(), [(x, labels)], [0.1], short, results=path)
    assert "s" in json.loads(path.read_text())["radii"][0]["states"] and found.certified < found.attacked
    (found,) = verif.evaluate(module(), [(x, labels)], [0.1], long, results=path)
    assert found.certified == found.attacked


def test_bad_input(tmp_path: Path) -> None:
    x, labels = samples()
    for network, data, radii, message in (
        (module().train(), [(x, labels)], [0.1], "training mode"),
        (module(), [], [0.1], "no samples"),
        (module(), [(x, labels[1:])], [0.1], "12 samples and 11 labels"),
        (module(), [(x, labels + 2)], [0.1], "labels must lie between 0 and 2"),
        (module(), [(x, labels)], [-0.1], "at least 0"),
    ):
        with pytest.raises(verif.VerifError, match=message):
            list(verif.evaluate(network, data, radii))
    for value, judge in ((1.5, Judge(most=1.0)), (-1.5, Judge(least=-1.0)), (math.nan, Judge())):
        with pytest.raises(verif.VerifError, match=f"a sample holds {value:g}, outside the range"):
            list(verif.evaluate(module(), [(torch.full_like(x, value), labels)], [0.1], judge))
    path = tmp_path / "r.json"
    list(verif.evaluate(module(), [(x, labels)], [0.0], WEAK, results=path))
    with torch.no_grad():
        other = module()
        other[0].bias.add_(1e-3)
    for network, data in ((other, [(x, labels)]), (module(), [(x.flip(0), labels)])):
        with pytest.raises(verif.VerifError, match="another model"):
            list(verif.evaluate(network, data, [0.0], WEAK, results=path))
