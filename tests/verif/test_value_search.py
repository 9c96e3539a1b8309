"""Branch-and-bound over ranges of values, and the choice between searches: no verdict is wrong under any of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import torch

from cli.main import run
from graphs import Graph
from relaxations.sets import Box
from tests.cli.conftest import model
from tests.verif.networks import attention, mlp, residual
from verif.bounds import Engine, crown
from verif.bounds.memory import UNLIMITED
from verif.properties import linear
from verif.query import Network, compile_query
from verif.strategy import STRATEGIES, Strategy, Task
from verif.values import ValueSearch
from verif.verdict import Verdict
from verif.verify import verify

GRAPHS: dict[str, Callable[[], Graph]] = {
    "relu": lambda: mlp(1, (4, 12, 12, 1)),
    "tanh": lambda: mlp(2, (30, 12, 12, 1), "tanh"),
    "gelu": lambda: mlp(3, (30, 10, 10, 1), "gelu"),
    "attention": attention,
    "residual": residual,
}


def _region(graph: Graph, radius: float, seed: int = 0) -> Box:
    center = torch.rand(1, graph[graph.inputs[0]].size, generator=torch.Generator().manual_seed(seed)).double()
    return Box(center - radius, center + radius)


def _lowest(graph: Graph, box: Box) -> float:
    """The lowest value of output 0 that descents from many points find."""
    points = box.sample(400, torch.Generator().manual_seed(1))[0]
    for step in range(60):
        points = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(graph(points)[0].flatten(1)[:, 0].sum(), points)
        points = points - 0.2 * 0.93**step * gradient.sign() * (box.upper - box.lower)
        points = torch.minimum(torch.maximum(points, box.lower), box.upper)
    return float(graph(points.detach())[0].flatten(1)[:, 0].min())


def _row(graph: Graph) -> torch.Tensor:
    row = torch.zeros(1, 1, graph[graph.outputs[0]].size, dtype=torch.float64)
    row[0, 0, 0] = 1.0
    return row


@pytest.mark.parametrize("chance", [None, 0], ids=["best", "random"])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_minimum_is_the_border(name: str, chance: int | None) -> None:
    graph = GRAPHS[name]()
    box = _region(graph, 0.15)
    lowest, bound = _lowest(graph, box), float(crown(graph, box)[0, 0])
    assert bound < lowest
    draw = None if chance is None else torch.Generator().manual_seed(chance)
    for limit, seconds, provable in ((lowest + 1e-9, 0.5, False), (lowest - 0.9 * (lowest - bound), 20.0, True)):
        asked = torch.tensor([limit], dtype=torch.float64)
        search = ValueSearch(Engine(graph), box, _row(graph), asked, time.monotonic() + seconds, chance=draw)
        try:
            for _ in search.run():
                assert search.points.numel() == 0 or bool(box.contains(search.points[:, None]).all())
        except Exception as error:
            assert type(error).__name__ == "OutOfTime"
            assert not provable
            continue
        assert (not len(search.open) and not search.unresolved) is provable


def test_few_at_once_changes_no_bound() -> None:
    graph = GRAPHS["tanh"]()
    box = _region(graph, 0.15)
    lowest, bound = _lowest(graph, box), float(crown(graph, box)[0, 0])
    limit, found = torch.tensor([0.5 * (lowest + bound)], dtype=torch.float64), []
    for most in (1, 64):
        search = ValueSearch(Engine(graph), box, _row(graph), limit, math.inf, most, batch=1)
        steps = search.run()
        for _ in range(3):
            next(steps, None)
            search.batch = 1
        found.append((search.done, search.lowest))
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_strategy_gives_the_same_verdicts(name: str, strategy: str) -> None:
    graph = GRAPHS[name]()
    box = _region(graph, 0.1)
    lowest, bound = _lowest(graph, box), float(crown(graph, box)[0, 0])
    network = Network("", graph, None)
    above, below = lowest + 0.05 * (lowest - bound), lowest - 0.97 * (lowest - bound)
    for limit, expected in ((above, Verdict.VIOLATED), (below, Verdict.HOLDS)):
        query = compile_query(linear(network, box.lower, box.upper, _row(graph)[0], limit), network)
        # The usual one has to decide; the others must not be wrong, and 20 s of theirs show no more of that than 1.5.
        result = verify(None, query, timeout=20.0 if strategy == "auto" else 1.5, strategy=strategy)
        wrong = Verdict.HOLDS if expected is Verdict.VIOLATED else Verdict.VIOLATED
        assert result.verdict is not wrong
        if strategy == "auto":
            assert result.verdict is expected
        assert result.strategy.split(":")[0] in ("none", "boxes", "signs", "values", "exact")


def test_boxes_are_cut_where_few_of_many_inputs_vary() -> None:
    graph = mlp(2, (40, 6, 1))
    few = torch.zeros(1, 40, dtype=torch.float64).index_fill(1, torch.tensor([3, 30]), 2.0)
    for width, expected in ((few, "boxes: 2 of 40 inputs vary"), (few + 1, "signs: 40 inputs are too many")):
        task = Task(Engine(graph), Box(-width, width), _row(graph), torch.zeros(1), math.inf, UNLIMITED)
        _, why = Strategy().search(task)
        assert why.startswith(expected)


def test_unknown_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="strategy's name is one of auto, boxes"):
        Strategy("fastest")


def test_explain_says_which_strategy_and_why(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    model(tmp_path / "model.onnx", bias=-0.5)
    text = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)"
    text += "(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))(assert (<= Y_0 -1))"
    (tmp_path / "p.vnnlib").write_text(text)
    assert run([str(tmp_path / "model.onnx"), str(tmp_path / "p.vnnlib"), "--explain"]) == 0
    assert "\n  strategy none: the first bounds and points decided" in capsys.readouterr().out
    assert run([str(tmp_path / "model.onnx"), str(tmp_path / "p.vnnlib"), "--strategy", "best"]) == 2
    assert "strategy" in capsys.readouterr().err.lower()
