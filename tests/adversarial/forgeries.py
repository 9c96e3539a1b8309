"""Proofs changed so that they claim what they do not show: the checker must refuse every one.
`python -m tests.adversarial.forgeries COUNT [SEED]` tries COUNT of each kind, over all families of networks.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from tests.verif.proving import Array, mlp, pack, property_file, save, unpack
from verif import evidence
from verif.checker import Refused, check, derivative, model
from verif.checker.bounds import Bounds
from verif.checker.proof import digest_of

LEAF = -1
Arrays = dict[str, Array]
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Proved:
    """Files of one proof, its contents, and a point with the value of Y_0 there, from above."""

    model: Path
    claim: Path
    proof: Path
    box: list[tuple[str, str]]
    manifest: Manifest
    arrays: Arrays
    point: Array
    value: float
    slopes: int | None = None


def conv(path: Path, generator: np.random.Generator, middle: list[Any], constants: dict[str, Array]) -> Path:
    """x (1, 1, 2, 3), a convolution to two channels, more nodes from c to e, then two outputs."""
    constants = constants | {
        "k": generator.normal(size=(2, 1, 2, 2)).astype(np.float32),
        "b": generator.normal(size=2).astype(np.float32),
        "w": generator.normal(size=(24, 2)).astype(np.float32),
    }
    first = helper.make_node("Conv", ["x", "k", "b"], ["c"], pads=[1, 1, 1, 1])
    last = [helper.make_node("Flatten", ["e"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    return save(path, [first, *middle, *last], constants, [1, 1, 2, 3], 2)


def largest() -> list[Any]:
    """Windows of c with a step of one entry, as large as c."""
    return [helper.make_node("MaxPool", ["c"], ["e"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])]


def attention() -> list[Any]:
    """Four rows of c, softmaxed, times themselves: a curve, a quotient and products."""
    return [
        helper.make_node("Reshape", ["c", "shape"], ["r"]),
        helper.make_node("Softmax", ["r"], ["s"], axis=-1),
        helper.make_node("Mul", ["s", "r"], ["e"]),
    ]


def models(folder: Path, generator: np.random.Generator) -> dict[str, Path]:
    """One of each family."""
    sizes = [(6, 2), (6, 6), (2, 6)]
    weights = [generator.normal(size=size) for size in sizes]
    dense = mlp(folder / "dense.onnx", weights, [generator.normal(size=size[0]) for size in sizes])
    relu = helper.make_node("Relu", ["c"], ["e"])
    skip = [helper.make_node("Relu", ["c"], ["r"]), helper.make_node("Add", ["r", "c"], ["e"])]
    moments = {name: generator.uniform(0.5, 1.5, 2).astype(np.float32) for name in ("s", "o", "m", "v")}
    normal = helper.make_node("BatchNormalization", ["c", *moments], ["n"], epsilon=1e-5)
    pool = helper.make_node("AveragePool", ["c"], ["n"], kernel_shape=[1, 1])
    after = helper.make_node("Relu", ["n"], ["e"])
    found = {"dense": dense, "slopes": mlp(folder / "slopes.onnx", weights, [np.ones(size[0]) for size in sizes])}
    found |= {"conv": conv(folder / "conv.onnx", generator, [relu], {})}
    found["residual"] = conv(folder / "residual.onnx", generator, skip, {})
    found["normalised"] = conv(folder / "normalised.onnx", generator, [normal, after], moments)
    found["pooled"] = conv(folder / "pooled.onnx", generator, [pool, after], {})
    found["maximum"] = conv(folder / "maximum.onnx", generator, largest(), {})
    found["softmax"] = conv(folder / "softmax.onnx", generator, attention(), {"shape": np.array([1, 4, 6])})
    for op in ("Sigmoid", "Tanh", "Sin", "Floor"):
        found[op] = conv(folder / f"{op}.onnx", generator, [helper.make_node(op, ["c"], ["e"])], {})
    return found


def proved(path: Path, generator: np.random.Generator) -> Proved:
    """A claim that needs several leaves, and its proof; of slopes where the file is named so."""
    network, slopes = model.read(path), 0 if path.stem == "slopes" else None
    network = network if slopes is None else derivative.slopes(network, slopes)
    box = [("-1", "1")] * network.inputs
    points = generator.uniform(-1, 1, (400, network.inputs))
    high = -Bounds(network, points, points).rows(network.output, -np.eye(2)[:1]).lower[:, 0]
    ends = -np.ones((1, network.inputs)), np.ones((1, network.inputs))
    low = float(Bounds(network, *ends).rows(network.output, np.eye(2)[:1]).lower[0, 0])
    limit = low + 0.1 * (float(high.min()) - low)
    claim, out = path.with_suffix(".vnnlib"), path.with_suffix(".proof")
    property_file(claim, box, 2, f"(or (<= Y_0 {limit:.9f}) (and (<= Y_0 {limit:.9f}) (>= Y_1 0)))")
    assert evidence.write(out, evidence.Claim(path, claim, slopes)).leaves > 1
    assert check(out, path, claim, slopes).verdict == "holds"
    return Proved(path, claim, out, box, *unpack(out), points[int(high.argmin())], float(high.min()), slopes)


Forgery = Callable[[Proved, np.random.Generator, Path], Path]


def _tree(held: Proved, out: Path, axis: Array, cut: Array) -> Path:
    pack(out, held.manifest, {"axis.0": axis.astype("<i4"), "cut.0": cut.astype("<f8")})
    return held.claim


def byte(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """One byte of the file."""
    data = bytearray(held.proof.read_bytes())
    data[int(generator.integers(len(data)))] ^= int(generator.integers(1, 256))
    out.write_bytes(bytes(data))
    return held.claim


def ended(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """A file that ends early, or goes on."""
    data = held.proof.read_bytes()
    end = int(generator.integers(len(data)))
    out.write_bytes(data[:end] if generator.random() < 0.7 else data + data[end:])
    return held.claim


def dropped(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """A node left out, sealed again."""
    at = int(generator.integers(len(held.arrays["axis.0"])))
    return _tree(held, out, np.delete(held.arrays["axis.0"], at), np.delete(held.arrays["cut.0"], at))


def pruned(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """A subtree made a leaf, its nodes left out."""
    axis, cut = held.arrays["axis.0"], held.arrays["cut.0"]
    at = int(generator.choice(np.flatnonzero(axis != LEAF)))
    end, open_ = at, 1
    while open_:
        open_ += 1 if axis[end] != LEAF else -1
        end += 1
    kept = np.r_[np.arange(at + 1), np.arange(end, len(axis))]
    axis, cut = axis[kept].copy(), cut[kept].copy()
    axis[at] = LEAF
    return _tree(held, out, axis, cut)


def outside(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """A cut that lies outside of its box, or is no number."""
    axis, cut = held.arrays["axis.0"], held.arrays["cut.0"].copy()
    far = generator.choice([1.0, -1.0, 3.0, -1e300, np.nan, np.inf])
    cut[int(generator.choice(np.flatnonzero(axis != LEAF)))] = far
    return _tree(held, out, axis, cut)


def strange(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """An axis that the input does not have."""
    axis = held.arrays["axis.0"].copy()
    axis[int(generator.integers(len(axis)))] = int(generator.choice([len(held.box), -2, 2**30, -(2**31)]))
    return _tree(held, out, axis, held.arrays["cut.0"])


def longer(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """More nodes than the tree has."""
    more = int(generator.integers(1, 5))
    axis = np.append(held.arrays["axis.0"], generator.integers(-1, len(held.box), more))
    return _tree(held, out, axis, np.append(held.arrays["cut.0"], generator.uniform(-1, 1, more)))


def renamed(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """What the manifest says, sealed again."""
    key = str(generator.choice(["model", "property", "verdict", "arithmetic"]))
    word = generator.choice(["violated", "float32", "0" * 64, "", held.manifest["model"][::-1]])
    pack(out, {**held.manifest, key: str(word)}, held.arrays)
    return held.claim


def claimed(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """The same tree for a claim that a point contradicts."""
    limit = held.value + abs(held.value) * 10.0 ** generator.uniform(-12, 0) + 1e-12
    claim = property_file(out.with_suffix(".vnnlib"), held.box, 2, f"(<= Y_0 {limit:.17f})")
    pack(out, {**held.manifest, "property": digest_of(claim)}, held.arrays)
    return claim


def pointed(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """A point that violates nothing, or lies outside."""
    point = generator.uniform(-1, 1, len(held.box))
    if generator.random() < 0.3:
        point[int(generator.integers(len(point)))] = np.nextafter(1.0, 2.0)
    pack(out, {**held.manifest, "verdict": "violated"}, {"point": point})
    return held.claim


KINDS: tuple[Forgery, ...] = (byte, ended, dropped, pruned, outside, strange, longer, renamed, claimed, pointed)


def believed(proof: Path, network: Path, claim: Path, slopes: int | None = None) -> bool:
    """Whether the checker finds a verdict shown; that a share of the input set is shown is none."""
    try:
        return check(proof, network, claim, slopes).verdict != "incomplete"
    except Refused:
        return False


def run(count: int, seed: int = 0) -> tuple[Counter[tuple[str, str]], list[str]]:
    """How many of each kind and family were refused, and what was not."""
    refused, accepted = Counter[tuple[str, str]](), []
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        families = {family: proved(path, generator) for family, path in models(folder, generator).items()}
        for kind in KINDS:
            for number in range(count):
                family = list(families)[number % len(families)]
                held, out = families[family], folder / "forged.proof"
                claim = kind(held, generator, out)
                if believed(out, held.model, claim, held.slopes):
                    accepted.append(f"{kind.__name__} of {family}, number {number}")
                else:
                    refused[kind.__name__, family] += 1
    return refused, accepted


def main(run: Callable[[int, int], tuple[Counter[str], list[str]]]) -> None:
    """Run one of these scripts with its arguments, tries and seed, and say what was accepted."""
    most, start = (int(value) for value in (*sys.argv[1:], "0")[:2])
    done, wrong = run(most, start)
    print(dict(done), f"{len(wrong)} accepted")
    print(*wrong[:50], sep="\n")
    sys.exit(bool(wrong))


def _by_kind(most: int, start: int) -> tuple[Counter[str], list[str]]:
    done, wrong = run(most, start)
    totals = Counter[str]()
    for (kind_name, _), number_of in done.items():
        totals[kind_name] += number_of
    return totals, wrong


if __name__ == "__main__":
    main(_by_kind)
