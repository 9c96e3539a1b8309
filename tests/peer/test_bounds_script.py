"""benchmarks/bounds.py without a peer: its networks are what it says, its rows of the table are sound figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import bounds, compare, peak, table
from benchmarks.networks import Problem, flat, random_problems
from benchmarks.passes import METHODS, deficit, ours
from graphs import GraphBuilder

PROBLEMS = {problem.name: problem for problem in random_problems()}
MLP = PROBLEMS["random_mlp784_256x6"]


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_graph_and_module_agree(problem: Problem) -> None:
    assert problem.module is not None
    x = torch.lerp(problem.lower, problem.upper, torch.rand_like(problem.lower))
    with torch.no_grad():
        (y,) = problem.graph(x.flatten(1))
        expected = problem.module(x)
    assert deficit(y, expected) < 1e-4 and deficit(expected, y) < 1e-4


def test_flat_keeps_the_function() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 2, 3))
    graph = builder.build([builder.add("mean", [builder.add("tanh", [x])], attrs={"axes": (2,)})])
    values = torch.rand(4, 1, 2, 3)
    (expected,), (found,) = graph(values), flat(graph)(values.flatten(1))
    assert torch.equal(found, expected.flatten(1))


@pytest.mark.parametrize("method", METHODS)
def test_bounds_are_below_samples(method: str) -> None:
    run = ours(MLP, method)
    if run is None:
        pytest.skip("rounds of slope optimisation need the native kernels")
    assert MLP.module is not None
    with torch.no_grad():
        lower = run()
        for _ in range(20):
            x = torch.lerp(MLP.lower, MLP.upper, torch.rand_like(MLP.lower).round())
            margins = torch.einsum("bsm,bm->bs", MLP.rows, MLP.module(x))
            assert (lower <= margins + 1e-4).all()


def test_a_softmax_has_no_rounds() -> None:
    block = PROBLEMS["random_transformer"]
    assert ours(block, "optimised") is None
    assert bounds.case(block, "optimised", peer=False, repeat=1, patience=1.0) is None


def test_an_impatient_case_is_its_warm_up() -> None:
    count, seconds, results = bounds.alternate([lambda: torch.zeros(1)], 5, 0.0)
    assert count == 0 and seconds[0] > 0 and results[0].item() == 0


def test_deficit() -> None:
    reference = torch.tensor([1.0, -4.0])
    assert deficit(reference - 0.4, reference) == pytest.approx(0.1)
    assert deficit(reference + 0.4, reference) == pytest.approx(-0.1)


def test_a_case_and_its_line() -> None:
    found = bounds.case(MLP, "interval", peer=False, repeat=2, patience=10.0)
    assert found is not None and found["repeat"] == 2 and found["flops"] > 1e6
    name, method, milliseconds, _, mean = table.line(found, 1e11).split()
    assert (name, method) == (MLP.name, "interval")
    assert float(milliseconds) > 0 and math.isfinite(float(mean))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says what a process held")
def test_peak_is_at_least_the_result() -> None:
    taken = peak.measure(["ours", "crown", "random_acas"])
    assert taken is not None
    assert 1024 * 4 * 4 <= taken < 1e9  # 1024 boxes, 4 rows


def test_peak_of_what_is_not_there_is_none() -> None:
    assert peak.measure(["ours", "crown", "no_such_problem"]) is None


def record(seconds: float = 0.01, peer: float | None = 0.04, **more: Any) -> dict[str, Any]:
    """A run of one case."""
    ours_ = {"seconds": seconds, "mean": -2.0, "bytes": 2e7} | more.pop("ours", {})
    found: dict[str, Any] = {"problem": "p", "method": "crown", "repeat": 5, "ours": ours_, "flops": 1e8}
    if peer is not None:
        found |= {"peer": {"seconds": peer, "mean": -3.0, "bytes": 8e7}, "below_peer": -0.1, "below_stored": 0.0}
    about = {"date": "2026-01-02T03:04:05+00:00", "commit": "abc", "changed": False, "machine": "m", "threads": 2}
    versions = {"verif": "0", "torch": "2", "python": "3"}
    facts = {"versions": versions, "kernels": "k", "peer": peer and "a peer", "product_rate": 1e11, "cases": [found]}
    return about | facts | more


def test_markdown() -> None:
    first, _, row, _, *_, last = table.markdown(record()).splitlines()
    titles = ["problem", "CROWN", "CROWN over its floor", "memory of CROWN, MB", "mean bound of CROWN"]
    assert [cell.strip() for cell in first.strip("|").split("|")] == titles
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["`p`", "10 (4.0x)", "10.0", "20 / 80", "-2 / -3"]
    assert "2026-01-02" in last and "2 thread(s)" in last


def test_markdown_without_a_peer() -> None:
    row = table.markdown(record(peer=None)).splitlines()[2]
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["`p`", "10", "10.0", "20", "-2"]


def test_a_page_gets_the_table_between_its_marks() -> None:
    page = f"above\n{table.START}\nold\n{table.END}\nbelow\n"
    made = table.insert(page, record())
    assert made.startswith(f"above\n{table.START}\n| problem |") and made.endswith(f".\n{table.END}\nbelow\n")
    assert "old" not in made and table.insert(made, record()) == made
    for unmarked in ("no mark", f"half {table.START} a mark"):
        assert table.insert(unmarked, record()) == unmarked


WORSE = {
    "slower": (record(), record(0.02), "slower by a factor of 2.00"),
    "slower without a peer": (record(peer=None), record(0.02, None), "slower by a factor of 2.00"),
    "larger": (record(), record(ours={"bytes": 4e7}), "takes 2.00 times the memory"),
    "looser": (record(), record(ours={"mean": -2.1}), "looser"),
    "not a number": (record(), record(ours={"mean": math.nan}), "looser"),
}


@pytest.mark.parametrize("name", WORSE)
def test_a_regression_is_seen(name: str) -> None:
    old, new, said = WORSE[name]
    (sentence,) = compare.regressions(old, new, 1.25)
    assert sentence.startswith("p crown: ") and said in sentence


def test_no_regression() -> None:
    assert not list(compare.regressions(record(), record(0.02, 0.08), 1.25)), "the whole machine was slower"
    assert not list(compare.regressions(record(), record(0.011), 1.25))
    assert not list(compare.regressions(record(), record(ours={"mean": -1.0}), 1.25))
    assert not list(compare.regressions(record(), record(cases=[]), 1.25))


def test_only_like_machines_are_compared() -> None:
    runs = [record(commit="a"), record(commit="b", threads=1), record(commit="c")]
    pair = compare.last_two(runs)
    assert pair is not None and [run["commit"] for run in pair] == ["a", "c"]
    assert compare.last_two(runs[:2]) is None and compare.last_two([]) is None


def test_compare_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    history = tmp_path / "history.jsonl"
    monkeypatch.setattr("sys.argv", ["compare.py", str(history)])
    assert compare.main() == 0 and "no two runs" in capsys.readouterr().out
    history.write_text(f"{json.dumps(record())}\n{json.dumps(record(0.03))}\n")
    assert compare.main() == 1 and "p crown: slower" in capsys.readouterr().out


def test_whole_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    result, history = tmp_path / "result.json", tmp_path / "history.jsonl"
    flags = ["--only", "acas", "--methods", "interval", "--repeat", "1", "--markdown", "--json", str(result)]
    monkeypatch.setattr("sys.argv", ["bounds.py", *flags, "--history", str(history)])
    threads = torch.get_num_threads()
    try:
        bounds.main()
    finally:
        torch.set_num_threads(threads)
    assert "| `random_acas` |" in capsys.readouterr().out
    assert json.loads(result.read_text()) == json.loads(history.read_text())
