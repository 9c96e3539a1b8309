"""Thousands of small queries in one batch: instances a second, memory as it goes on, the store, the report's time.

The queries are made: two networks 30 x 128 x 2 of ReLUs and boxes around random points, as those of sentence
embeddings in the competition (safenlp). `python benchmarks/small.py --count 10000 --jobs 2` prints a table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS, HIDDEN = 30, 128
VERIFY = [sys.executable, "-c", "from cli.main import main; main()"]
PARTS = 10


def write_model(path: Path, seed: int) -> list[np.ndarray]:
    """A random network and its weights."""
    chance = np.random.default_rng(seed)
    shapes = [(INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, 2), (2,)]
    weights = [chance.normal(0, 1 / np.sqrt(shape[0]), shape).astype(np.float32) for shape in shapes]
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "w3"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n, size in (("x", INPUTS), ("y", 2))]
    tensors = [numpy_helper.from_array(weight, f"w{place}") for place, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return weights


def write_instances(folder: Path, count: int) -> Path:
    """Properties by turns for two networks: the label of a point stays the same in a box around it."""
    chance = np.random.default_rng(0)
    models = [write_model(folder / f"model{seed}.onnx", seed) for seed in (1, 2)]
    names = [f"X_{i}" for i in range(INPUTS)] + ["Y_0", "Y_1"]
    head = "".join(f"(declare-const {name} Real)\n" for name in names)
    rows = []
    for place in range(count):
        w0, b0, w1, b1 = models[place % 2]
        x, radius = chance.normal(0, 1, INPUTS), chance.uniform(0, 0.15)
        label = int(np.argmax(np.maximum(x @ w0 + b0, 0) @ w1 + b1))
        box = "".join(
            f"(assert (>= X_{i} {v - radius:.9g}))\n(assert (<= X_{i} {v + radius:.9g}))\n" for i, v in enumerate(x)
        )
        (folder / f"p{place}.vnnlib").write_text(f"{head}{box}(assert (<= Y_{label} Y_{1 - label}))\n")
        rows.append(f"model{place % 2 + 1}.onnx,p{place}.vnnlib,20\n")
    (folder / "instances.csv").write_text("".join(rows))
    return folder / "instances.csv"


def resident(pid: int) -> list[int]:
    """MB of a process, and of each of its children."""
    children = [int(c) for t in Path(f"/proc/{pid}/task").glob("*/children") for c in t.read_text().split()]
    pages = [int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in (pid, *children)]
    return [count * 4096 // 10**6 for count in pages]


def run_batch(listed: Path, store: Path, jobs: int, count: int) -> None:
    """Run it, and print at every tenth what it took."""
    line = [*VERIFY, "batch", str(listed), "--results", str(store), "--jobs", str(jobs)]
    started = last = time.perf_counter()
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = []
        for number, text in enumerate(process.stdout, 1):
            shown.append(text)
            if number % (count // PARTS) == 0:
                now = time.perf_counter()
                speed, last = count / PARTS / (now - last), now
                print(f"{number:7}   {now - started:7.1f} s   {speed:6.0f}/s   {resident(process.pid)} MB", flush=True)
    print(f"{shown[-1].strip()}: {time.perf_counter() - started:.1f} s, store {store.stat().st_size / 1e6:.1f} MB")


def timed(*words: str | Path) -> None:
    started = time.perf_counter()
    subprocess.run([*VERIFY, *map(str, words)], stdout=subprocess.DEVNULL, check=False)
    print(f"verify {words[0]}: {time.perf_counter() - started:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed, store = write_instances(folder, options.count), folder / "r.db"
        run_batch(listed, store, options.jobs, options.count)
        timed("batch", listed, "--results", store)  # nothing is left to do
        timed("report", store, "--html", folder / "r.html", "--csv", folder / "r.csv", "--junit", folder / "r.xml")
        print(f"page {(folder / 'r.html').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
