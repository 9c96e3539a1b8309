"""Monotonicity: proved on networks that are monotone by construction, refuted with pairs that the model has run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cli.main import run
from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from tests.cli.conftest import model
from verif.directions import directions
from verif.errors import PropertyError
from verif.monotone import Budget, monotone
from verif.monotone_lines import monotone_along
from verif.verdict import Verdict

Capture = pytest.CaptureFixture[str]


def network(activation: str = "relu") -> Graph:
    """Rises in the first two of four inputs, depends on the others in either direction: only its first layer has
    weights of both signs.
    """
    random = torch.Generator().manual_seed(0)
    builder = GraphBuilder()
    value = builder.input("x", (4,))
    for number, (n, m) in enumerate(((4, 16), (16, 16), (16, 1))):
        weight = torch.randn(m, n, generator=random)
        weight[:, : 2 if number == 0 else n] = weight[:, : 2 if number == 0 else n].abs()
        value = builder.add("linear", [value], {"weight": weight / n**0.5, "bias": torch.zeros(m)})
        if number < 2:
            value = builder.add(activation, [value])
    return builder.build([value])


def unit(n: int) -> Box:
    return Box(torch.zeros(1, n), torch.ones(1, n))


@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
def test_monotone_by_construction(activation: str) -> None:
    results = monotone(network(activation), unit(4), increasing=[0, 1], decreasing=[2], budget=Budget(timeout=30))
    assert [r.verdict for r in results] == [Verdict.HOLDS, Verdict.HOLDS, Verdict.VIOLATED]
    assert [(r.feature, r.sign) for r in results] == [(0, 1), (1, 1), (2, -1)]
    assert results[0].share == 1.0


def test_a_pair_differs_in_its_feature_only_and_the_model_falls() -> None:
    graph = network()
    (result,) = monotone(graph, unit(4), decreasing=[0])
    assert result.verdict is Verdict.VIOLATED and result.pair is not None and result.outputs is not None
    first, second = result.pair
    assert first[0] < second[0] and torch.equal(first[1:], second[1:]) and unit(4).contains(result.pair[None]).all()
    values = [float(graph(x[None].float())[0]) for x in result.pair]
    assert values[0] < values[1]
    assert result.outputs == pytest.approx(values)


def test_a_small_dip_is_found_by_the_search_for_a_proof() -> None:
    """x + 4 relu(1/1000 - |y - 0.123|) - ...: falls in x only where y is near 0.123."""
    builder = GraphBuilder()
    z = builder.input("x", (2,), "float64")
    y = builder.add(
        "linear", [z], {"weight": torch.tensor([[0.0, 1.0]]).double(), "bias": torch.tensor([-0.1234]).double()}
    )
    x = builder.add("linear", [z], {"weight": torch.tensor([[1.0, 0.0]]).double()})
    bump = builder.add(
        "shift", [builder.add("neg", [builder.add("abs", [y])])], {"offset": torch.tensor(1e-4).double()}
    )
    dip = builder.add("mul", [builder.add("relu", [bump]), x])
    falling = builder.add("scale", [dip], {"factor": torch.tensor(-2e4).double()})
    graph = builder.build([builder.add("add", [x, falling])])
    (result,) = monotone(graph, unit(2), increasing=[0], budget=Budget(timeout=60))
    assert result.verdict is Verdict.VIOLATED and result.pair is not None
    assert abs(float(result.pair[0, 1]) - 0.1234) < 1e-4


@pytest.mark.parametrize(
    ("op", "scale", "bump"), [("tan", 1.5, 0.2), ("log", 1.0, -0.2), ("sqrt", 1.0, -0.2), ("asin", 0.9, 0.2)]
)
def test_nothing_holds_where_a_value_may_be_undefined(op: str, scale: float, bump: float) -> None:
    """op(scale x + 0.01 + bump relu(1 - 1000 |y - 0.1234|)): leaves the op's domain, or jumps, on a hair's breadth."""
    builder = GraphBuilder()
    z = builder.input("x", (2,), "float64")

    def plane(row: list[float], bias: float) -> str:
        params = {"weight": torch.tensor([row]).double(), "bias": torch.tensor([bias]).double()}
        return builder.add("linear", [z], params)

    far = builder.add("neg", [builder.add("abs", [plane([0.0, 1000.0], -123.4)])])
    near = builder.add("relu", [builder.add("shift", [far], {"offset": torch.tensor(1.0).double()})])
    near = builder.add("scale", [near], {"factor": torch.tensor(bump).double()})
    graph = builder.build([builder.add(op, [builder.add("add", [plane([scale, 0.0], 0.01), near])])])
    (result,) = monotone(graph, unit(2), increasing=[0], budget=Budget(timeout=5))
    assert result.verdict is Verdict.UNKNOWN and f"'{op}'" in result.reason
    (along,) = monotone_along(graph, unit(2), torch.tensor([[0.5, 0.9]]), increasing=[0], budget=Budget(timeout=5))
    assert along.verdict is Verdict.HOLDS


def test_a_line_across_a_pole_is_not_monotone() -> None:
    builder = GraphBuilder()
    weight, bias = torch.tensor([[0.5]]).double(), torch.tensor([1.2]).double()
    value = builder.add("linear", [builder.input("x", (1,), "float64")], {"weight": weight, "bias": bias})
    graph = builder.build([builder.add("tan", [value])])
    (along,) = monotone_along(graph, unit(1), torch.tensor([[0.5]]), increasing=[0], budget=Budget(timeout=5))
    assert along.verdict is Verdict.VIOLATED


def test_a_fall_that_is_small_beside_other_slopes_is_never_called_monotone() -> None:
    builder = GraphBuilder()
    weight = torch.tensor([[-1e-10, 1000.0]], dtype=torch.float64)
    graph = builder.build([builder.add("linear", [builder.input("x", (2,), "float64")], {"weight": weight})])
    (result,) = monotone(graph, unit(2), increasing=[0], budget=Budget(timeout=5))
    assert result.verdict in (Verdict.VIOLATED, Verdict.UNKNOWN)


@pytest.mark.parametrize("seed", range(8))
def test_directions_that_signs_rule_out_are_never_taken(seed: int) -> None:
    """On random networks with few weights, so that some outputs move in one direction only."""
    random = torch.Generator().manual_seed(seed)
    builder = GraphBuilder()
    value = builder.input("x", (2, 5), "float64")

    def sparse(*shape: int) -> torch.Tensor:
        kept = torch.rand(shape, generator=random) < 0.3
        return torch.randn(shape, generator=random, dtype=torch.float64) * kept

    value = builder.add("reshape", [value], attrs={"shape": (1, 2, 5)})
    attrs = {"stride": [1], "padding": [1], "dilation": [1]}
    value = builder.add("relu", [builder.add("conv", [value], {"weight": sparse(3, 2, 3)}, attrs=attrs)])
    value = builder.add("scale", [value], {"factor": sparse(3, 1)})
    left = builder.add("tanh", [builder.add("linear", [value], {"weight": sparse(4, 5)})])
    right = builder.add("neg", [builder.add("slice", [value], attrs={"axis": 2, "start": 0, "stop": 4})])
    value = builder.add("sub", [builder.add("maximum", [left, right]), builder.add("softplus", [right])])
    graph = builder.build([builder.add("pad", [value], attrs={"before": [0, 0, 1], "after": [0, 0, 0], "value": 2.0})])
    points = torch.randn(200, 2, 5, generator=random, dtype=torch.float64)
    settled = 0
    for feature in range(10):
        moved = points.flatten(1).clone()
        moved[:, feature] += torch.rand(200, generator=random, dtype=torch.float64)
        change = (graph(moved.reshape_as(points))[0] - graph(points)[0]).flatten(1)
        for output in range(change.shape[1]):
            rises, falls = directions(graph, feature, output)
            settled += not (rises and falls)
            assert rises or bool((change[:, output] <= 1e-12).all())
            assert falls or bool((change[:, output] >= -1e-12).all())
    assert settled


def test_a_softmax_head() -> None:
    """p_0 of softmax(x_0, x_1) rises in x_0 and falls in x_1."""
    builder = GraphBuilder()
    graph = builder.build([builder.add("softmax", [builder.input("x", (2,))], attrs={"axis": 0})])
    results = monotone(graph, unit(2), increasing=[0], decreasing=[1], budget=Budget(timeout=30))
    assert [r.verdict for r in results] == [Verdict.HOLDS, Verdict.HOLDS]


def test_time_is_up_with_the_share_that_is_proved() -> None:
    random = torch.Generator().manual_seed(1)
    builder = GraphBuilder()
    value = builder.input("x", (8,), "float64")
    for n, m in ((8, 64), (64, 64), (64, 1)):
        weight = torch.randn(m, n, generator=random, dtype=torch.float64) / n**0.5
        value = builder.add("linear", [value], {"weight": weight})
        value = builder.add("tanh", [value]) if m > 1 else value
    x = builder.add("slice", ["x"], attrs={"axis": 0, "start": 0, "stop": 1})
    steep = builder.add("scale", [x], {"factor": torch.tensor(0.9, dtype=torch.float64)})
    graph = builder.build([builder.add("add", [value, steep])])
    (result,) = monotone(graph, unit(8), increasing=[0], budget=Budget(timeout=0.5))
    assert result.verdict in (Verdict.TIMEOUT, Verdict.HOLDS) and 0 <= result.share <= 1


def test_bad_input() -> None:
    graph = network()
    for box, more, message in (
        (unit(3), {}, "P104"),
        (unit(4), {"output": 1}, "P112.*output 1"),
        (unit(4), {"increasing": [4]}, "P112.*feature 4"),
        (Box(torch.ones(1, 4), torch.zeros(1, 4)), {}, "P112.*empty"),
    ):
        with pytest.raises(PropertyError, match=message):
            monotone(graph, box, **{"increasing": [0], **more})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the number of an input, counted from 0, not str"):
        monotone(graph, unit(4), increasing=["age"])  # type: ignore[list-item]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """y = relu(age + debt - 1/2)."""
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "model.onnx", bias=-0.5)
    (tmp_path / "box.csv").write_text("name,lower,upper\nage,0,1\ndebt,0,1\n")
    return tmp_path


def test_command(here: Path, capsys: Capture) -> None:
    assert run(["monotone", "model.onnx", "--box", "box.csv", "--increasing", "age,debt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, name in zip(lines, ("age", "debt"), strict=True):
        assert line.startswith(f"HOLDS     model increasing in {name}   ")
    assert run(["monotone", "model.onnx", "--box", "box.csv", "--increasing", "age", "--decreasing", "debt"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("VIOLATED") and lines[2].startswith("  output 0") and "debt=" in lines[3]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--increasing agge",
            "error[C116]: the box has no feature 'agge'\n  --> box.csv\n  help: did you mean 'age'?\n",
        ),
        ("--increasing age --decreasing age", "error[C104]: feature 'age' cannot be increasing and decreasing\n"),
        ("", "error[C104]: name at least one feature\n"),
        ("--increasing age --output 3", "error[P112]: output 3 is not one of the network's 1 outputs\n"),
        ("--increasing age --box bad.csv", "error[C115]: a line of a box is name,lower,upper\n  --> bad.csv:1\n"),
        ("--increasing a --box turned.csv", "error[C115]: 'a' needs two finite numbers, lower <= upper\n"),
        ("--increasing a --box twice.csv", "error[C115]: feature 'a' comes twice\n"),
        ("--increasing a --box binary.csv", "error[C115]: a line of a box is name,lower,upper\n  --> binary.csv:1\n"),
        ("--increasing a --box none.csv", "error[C115]: this box has no lines\n"),
        ("--increasing age --box gone.csv", "error[C107]: no such file\n"),
        ("--increasing a --box one.csv", "error[P104]: the box has 1 numbers, the network takes 2\n"),
    ],
)
def test_bad_command(line: str, message: str, here: Path, capsys: Capture) -> None:
    (here / "binary.csv").write_bytes(b"\xff\xfe\x80")
    for name, text in (
        ("bad", "age 0 1"),
        ("turned", "a,1,0"),
        ("twice", "a,0,1\na,0,1"),
        ("none", ""),
        ("one", "a,0,1"),
    ):
        (here / f"{name}.csv").write_text(text)
    words = line.split()
    box = [] if "--box" in words else ["--box", "box.csv"]
    assert run(["monotone", "model.onnx", *words, *box]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message)


def test_an_op_without_derivative(here: Path, capsys: Capture) -> None:
    model(here / "jump.onnx", "Floor")
    assert run(["monotone", "jump.onnx", "--box", "box.csv", "--increasing", "age"]) == 2
    assert capsys.readouterr().err.startswith("error[G301]: 'floor' has no derivative")
    model(here / "log.onnx", "Log")
    assert run(["monotone", "log.onnx", "--box", "box.csv", "--increasing", "age"]) == 2
    assert capsys.readouterr().err.startswith("error[P115]: 'log' is not defined on all of the box\n  --> node '/act'")
