"""`verify batch`: verdicts, what is not done twice, and kills of anything at any time."""

from __future__ import annotations

import io
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from cli.main import run
from tests.cli.conftest import HOLDS, VIOLATED, model, property_text
from verif.batch.store import Store

ROOT = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]


def instances(folder: Path, count: int = 2) -> Path:
    """A list of `count` queries, every second one violated."""
    model(folder / "model.onnx")
    for place in range(count):
        text = f"; {place}\n" + property_text(VIOLATED if place % 2 else HOLDS)
        (folder / f"p{place}.vnnlib").write_text(text)
    listed = folder / "instances.csv"
    listed.write_text("".join(f"model.onnx,p{place}.vnnlib,20\n" for place in range(count)))
    return listed


def verdicts(store: Path) -> list[str | None]:
    with Store(store) as found:
        return [row.outcome and row.outcome.verdict for row in found.rows()]


def test_nothing_is_done_twice_and_changes_are_seen(tmp_path: Path, capsys: Capture) -> None:
    listed, store = instances(tmp_path), tmp_path / "r.db"
    with (tmp_path / "instances.csv").open("a") as rows:
        rows.write("model.onnx,gone.vnnlib,20\n")
    command = ["batch", str(listed), "--results", str(store)]
    assert run(command) == 2
    out, err = capsys.readouterr()
    assert sorted(line.split()[0] for line in out.splitlines()) == ["1", "ERROR", "HOLDS", "VIOLATED"]
    assert out.endswith("1 holds, 1 violated, 1 error\n") and "gone.vnnlib" in err
    assert run([*command, "--resume"]) == 2
    assert capsys.readouterr() == ("1 holds, 1 violated, 1 error\n", "3 of 3 instances are decided already\n")
    (tmp_path / "gone.vnnlib").write_text(property_text(HOLDS))
    (tmp_path / "p0.vnnlib").write_text(property_text(VIOLATED) + "; changed\n")
    assert run(command) == 1
    assert capsys.readouterr().err == "1 of 3 instances are decided already\n"
    assert verdicts(store) == ["violated", "violated", "holds"]


def test_usage(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "i.csv").write_text("")
    (tmp_path / "one.csv").write_text("a.onnx,p.vnnlib,1\n")
    (tmp_path / "r.db").touch()
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x80")
    told = {
        "batch empty": "C117",
        "batch x.txt": "C107",
        "batch r.db": "C104",
        "batch i.csv": "C117",
        "batch binary.csv": "C109",
        "batch x.toml": "C107",
        "batch i.csv --jobs 0": "C103",
        "batch one.csv --resume": "C107",
    }
    for command, code in told.items():
        assert run(command.split()) == 2
        assert f"error[{code}]" in capsys.readouterr().err
    (tmp_path / "head.csv").write_text("onnx,vnnlib,timeout\na.onnx,p.vnnlib,1\n")
    assert run(["batch", "head.csv"]) == 2 and "help: a list has no head line" in capsys.readouterr().err


def test_a_list_over_folders_has_their_names_as_categories(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        instances(tmp_path / name)
    (tmp_path / "all.csv").write_text("first/model.onnx,first/p0.vnnlib,9\nsecond/model.onnx,first/p0.vnnlib,9\n")
    assert run(["batch", str(tmp_path / "all.csv"), "--results", str(tmp_path / "r.db"), "--quiet"]) == 0
    with Store(tmp_path / "r.db") as found:
        assert [row.entry.category for row in found.rows()] == ["first", tmp_path.name]


def kill_and_resume(folder: Path, kills: int, seed: int) -> list[str]:
    """Run a batch, kill the parent or a worker `kills` times at random moments, and let it end."""
    killed: list[str] = []
    count, chance, store = 40, random.Random(seed), folder / "r.db"
    listed = instances(folder, count)
    code = "from cli.main import main; main()"
    line = [sys.executable, "-c", code, "batch", str(listed), "--results", str(store), "--jobs", "2", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    while True:
        process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if kills == 0:
            assert process.wait(120) != 130
            break
        time.sleep(chance.uniform(0.1, 3.0))
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        workers = [int(pid) for task in tasks for pid in task.read_text().split()]
        target = chance.choice([process.pid, *workers])
        os.kill(target, signal.SIGKILL)
        kills -= 1
        killed.append("parent" if target == process.pid else "worker")
        if target != process.pid:
            time.sleep(chance.uniform(0.1, 1.0))
            process.kill()
        process.wait(120)
    assert subprocess.run([*line, "--retry"], env=environment, check=False, capture_output=True).returncode == 1
    assert verdicts(store) == ["violated" if place % 2 else "holds" for place in range(count)]
    base = sqlite3.connect(store)
    assert base.execute("SELECT count(*), sum(state = 'done') FROM instances").fetchone() == (count, count)
    base.close()
    return killed


def test_killed_twice(tmp_path: Path) -> None:
    assert len(kill_and_resume(tmp_path, 2, 1)) == 2


@pytest.mark.long
def test_killed_twenty_times(tmp_path: Path) -> None:
    assert set(kill_and_resume(tmp_path, 20, 2)) == {"parent", "worker"}


JOB = """
timeout = 20
[[robustness]]
model = "model.onnx"
data = "data.npz"
eps = [0.1, 0.9]
least = 0
most = 1
"""


def test_a_job_makes_instances_of_a_dataset(tmp_path: Path, capsys: Capture) -> None:
    """y = (x0, x1): the larger coordinate wins as long as both cannot meet."""
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "same", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), y=np.array([0, 0]))
    (tmp_path / "job.toml").write_text(JOB)
    assert run(["batch", str(tmp_path / "job.toml"), "--results", str(tmp_path / "r.db")]) == 1
    assert capsys.readouterr().out.endswith("1 holds, 3 violated\n")
    assert verdicts(tmp_path / "r.db") == ["holds", "violated", "violated", "violated"]
    with Store(tmp_path / "r.db") as found:
        rows = list(found.rows())
    around = {"index": 0, "eps": 0.9, "norm": "inf", "clip": [0.0, 1.0]}
    assert rows[2].entry.settings["around"] == around
    assert rows[2].outcome is not None and rows[2].outcome.middle is not None
    kept = np.load(io.BytesIO(rows[2].outcome.middle))
    assert kept["Y"].tolist() == kept["X"].tolist() == [[np.float32(0.9), np.float32(0.1)]]


SLOPES = """
[[monotone]]
model = "model.onnx"
box = "box.csv"
increasing = ["a", "b"]
decreasing = ["b"]
[[lipschitz]]
model = "model.onnx"
data = "data.npz"
eps = [0.25]
most = 2.5
[[lipschitz]]
model = "model.onnx"
data = "data.npz"
eps = [0.25]
norm = "2"
most = 1.2
"""


def test_a_job_asks_about_derivatives(tmp_path: Path, capsys: Capture) -> None:
    """y = relu(a + b) rises in both, by 2 at most where both move, and by 2**0.5 in the Euclidean norm."""
    model(tmp_path / "model.onnx")
    (tmp_path / "box.csv").write_text("a,0,1\nb,0,1\n")
    np.savez(tmp_path / "data.npz", x=np.array([[0.5, 0.5], [-2, 0]], np.float32), y=np.array([0, 0]))
    (tmp_path / "job.toml").write_text(SLOPES)
    assert run(["batch", str(tmp_path / "job.toml"), "--results", str(tmp_path / "r.db")]) == 1
    out, expected = capsys.readouterr().out, ["holds", "holds", "violated", "holds", "holds", "violated", "holds"]
    assert verdicts(tmp_path / "r.db") == expected and out.endswith("5 holds, 2 violated\n")
    assert "model x box output 0 decreasing in b" in out.replace(tmp_path.name, "model")
    with Store(tmp_path / "r.db") as store:
        pairs = [row.outcome.counterexample for row in store.rows() if row.outcome and row.outcome.counterexample]
    for pair in pairs:
        with np.load(io.BytesIO(pair)) as arrays:
            rise, step = (arrays[f"{part}"] - arrays[f"{other}"] for part, other in (("f(x)", "f(y)"), ("x", "y")))
            assert abs(rise).max() > 1.2 * np.linalg.norm(step) or (rise * step.sum() > 0).all()
    assert len(pairs) == 2 and run(["report", str(tmp_path / "r.db"), "--html", str(tmp_path / "r.html")]) == 0


@pytest.mark.parametrize(
    "text",
    [
        "[[robustness]]\nmodel = 'model.onnx'\ndata = 'data.npz'\neps = [-1]",
        "[[robustness]]\nmodel = 'model.onnx'\ndata = 'data.npz'\neps = [0.1]\nnorm = ['3']",
        "[[robustness]]\nmodel = 'model.onnx'\neps = [0.1]",
        "[[robustness]]\nmodel = 'model.onnx'\ndata = 'data.npz'\neps = [0.1]\nradius = 1",
        "[[monotone]]\nmodel = 'model.onnx'\nbox = 'box.csv'",
        "[[lipschitz]]\nmodel = 'model.onnx'\ndata = 'data.npz'\neps = [0.1]\nmost = -1",
        "[[lipschitz]]\nmodel = 'model.onnx'\ndata = 'data.npz'\neps = [0.1]\nmost = 1\nnorm = '3'",
        "timeout = 20",
        "timeout =",
    ],
)
def test_jobs_that_say_nothing(text: str, tmp_path: Path, capsys: Capture) -> None:
    model(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.zeros((1, 2)), y=np.zeros(1))
    (tmp_path / "box.csv").write_text("a,0,1\nb,0,1\n")
    (tmp_path / "job.toml").write_text(text)
    assert run(["batch", str(tmp_path / "job.toml"), "--results", str(tmp_path / "r.db")]) == 2
    assert "error[C118]" in capsys.readouterr().err
