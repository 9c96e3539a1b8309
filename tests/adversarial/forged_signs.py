"""Proofs over signs, changed so that they claim what they do not show, of networks that have other bends too.
`python -m tests.adversarial.forged_signs COUNT [SEED]` tries COUNT of each kind.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from tests.adversarial.forgeries import believed, main
from tests.verif.proving import Array, pack, property_file, save, unpack
from verif import evidence
from verif.checker import Refused, check, model
from verif.checker.bounds import Bounds
from verif.checker.proof import digest_of
from verif.checker.signs import LEAF

INPUTS = 26
BOX = [("-1", "1")] * INPUTS
Arrays = dict[str, Array]
# Nodes from h (1, 6), which also goes through a ReLU, to e (1, 6).
BESIDE: dict[str, list[tuple[str, list[str], str, dict[str, Any]]]] = {
    "relu": [("Relu", ["h"], "e", {})],
    "attention": [
        ("Reshape", ["h", "rows"], "q", {}),
        ("Softmax", ["q"], "s", {"axis": -1}),
        ("Mul", ["s", "q"], "m", {}),
        ("Reshape", ["m", "flat"], "e", {}),
    ],
    "maxima": [
        ("Reshape", ["h", "image"], "q", {}),
        ("MaxPool", ["q"], "m", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}),
        ("Reshape", ["m", "flat"], "e", {}),
    ],
    "sigmoid": [("Sigmoid", ["h"], "e", {})],
}


@dataclass(frozen=True)
class Proved:
    """A model, a claim of two clauses with its proof's contents, and an upper bound of the least Y_0."""

    model: Path
    claim: Path
    proof: Path
    manifest: dict[str, Any]
    arrays: Arrays
    least: float

    @property
    def tree(self) -> Array:
        """The first clause's tree."""
        return self.arrays["tree.0.0"]

    def leaf_arrays(self, leaves: Array) -> Arrays:
        """Slopes and multipliers of some leaves of the first clause."""
        count = len(self.arrays["neurons.0"])
        names = ("slopes.0.0", "multipliers.0.0")
        return {name: self.arrays[name].reshape(-1, count)[leaves].ravel() for name in names}


def network(path: Path, family: str, generator: np.random.Generator) -> Path:
    """x to h, the sum of relu(h) and what is beside it, a ReLU behind it, two outputs."""
    constants = {
        name: (generator.normal(size=size) / size[0] ** 0.5).astype(np.float32)
        for name, size in {"a": (INPUTS, 6), "b": (6, 6), "c": (6, 2)}.items()
    }
    constants |= {"rows": np.array([1, 2, 3]), "image": np.array([1, 1, 2, 3]), "flat": np.array([1, 6])}
    nodes = [("MatMul", ["x", "a"], "h", {}), ("Relu", ["h"], "r", {}), *BESIDE[family], ("Add", ["r", "e"], "t", {})]
    nodes += [("MatMul", ["t", "b"], "i", {}), ("Relu", ["i"], "p", {}), ("MatMul", ["p", "c"], "y", {})]
    made = [helper.make_node(op, given, [out], **attributes) for op, given, out, attributes in nodes]
    return save(path, made, constants, [1, INPUTS], 2)


def proved(folder: Path, family: str, generator: np.random.Generator) -> Proved:
    """A claim that needs several cases: of the networks and limits that come in turn, the first that does."""
    out = folder / f"{family}.proof"
    for _ in range(40):
        path = network(folder / f"{family}.onnx", family, generator)
        read = model.read(path)
        ends = -np.ones((1, INPUTS)), np.ones((1, INPUTS))
        low = float(Bounds(read, *ends).rows(read.output, np.eye(2)[:1]).lower[0, 0])
        points = np.sign(generator.normal(size=(2000, INPUTS)))
        least = float((-Bounds(read, points, points).rows(read.output, -np.eye(2)[:1]).lower).min())
        for share in (0.2, 0.4, 0.6):
            limit = low + share * (least - low)
            second = f"(and (<= Y_0 {limit - 1:.6f}) (>= Y_1 9))"
            claim = property_file(folder / f"{family}.vnnlib", BOX, 2, f"(or (<= Y_0 {limit:.6f}) {second})")
            try:
                written = evidence.write(out, evidence.Claim(path, claim), deadline=time.monotonic() + 5)
            except Refused:
                break
            if written.leaves > 2 and not written.why:
                assert check(out, path, claim).verdict == "holds"
                return Proved(path, claim, out, *unpack(out), least)
    raise AssertionError("no claim needs several cases")


Forgery = Callable[[Proved, np.random.Generator, Path], Path]


def _packed(held: Proved, out: Path, change: Arrays) -> Path:
    pack(out, held.manifest, {**held.arrays, **change})
    return held.claim


def dropped(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """A node left out of the tree, with the arrays of its leaf where it is one."""
    at = int(generator.integers(len(held.tree)))
    tree = np.delete(held.tree, at)
    leaves = np.arange(int((held.tree == LEAF).sum()))
    gone = int((held.tree[:at] == LEAF).sum()) if held.tree[at] == LEAF else None
    kept = leaves if gone is None else np.delete(leaves, gone)
    return _packed(held, out, {"tree.0.0": tree, **held.leaf_arrays(kept)})


def pruned(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """A subtree replaced by one of its leaves, of any slopes."""
    at = int(generator.choice(np.flatnonzero(held.tree != LEAF)))
    end, open_ = at, 1
    while open_:
        open_ += 1 if held.tree[end] != LEAF else -1
        end += 1
    first, last = int((held.tree[:at] == LEAF).sum()), int((held.tree[:end] == LEAF).sum())
    tree = np.r_[held.tree[:at], LEAF, held.tree[end:]].astype("<i4")
    kept = np.r_[np.arange(first), first, np.arange(last, int((held.tree == LEAF).sum()))]
    change = held.leaf_arrays(kept)
    count = len(held.arrays["neurons.0"])
    own = slice(first * count, (first + 1) * count)
    change["slopes.0.0"] = change["slopes.0.0"].copy()
    change["slopes.0.0"][own] = generator.integers(0, 256, count)
    return _packed(held, out, {"tree.0.0": tree, **change})


def named(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """A node that names no neuron, or the one of its parent."""
    tree, count = held.tree.copy(), len(held.arrays["neurons.0"])
    inner = np.flatnonzero(tree != LEAF)
    if len(inner) > 1 and inner[1] == 1 and generator.random() < 0.5:
        tree[1] = tree[0]
    else:
        tree[int(generator.choice(inner))] = int(generator.choice([count, -2, 2**31 - 1, -(2**31)]))
    return _packed(held, out, {"tree.0.0": tree})


def negative(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """A multiplier below 0, or none."""
    found = held.arrays["multipliers.0.0"].copy()
    found[int(generator.integers(len(found)))] = generator.choice([-1e-6, -1.0, np.nan, np.inf, -np.inf])
    return _packed(held, out, {"multipliers.0.0": found})


def shortened(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """Arrays that end early, or are missing."""
    name = str(generator.choice(sorted(held.arrays)))
    if generator.random() < 0.3:
        pack(out, held.manifest, {kept: array for kept, array in held.arrays.items() if kept != name})
        return held.claim
    return _packed(held, out, {name: held.arrays[name][: int(generator.integers(len(held.arrays[name])))]})


def rowed(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """A row that another clause has, or none."""
    rows = held.arrays["row.0"].copy()
    rows[0] = int(generator.choice([1, 2, 3, -1, 2**30]))
    return _packed(held, out, {"row.0": rows})


def claimed(held: Proved, generator: np.random.Generator, out: Path) -> Path:
    """The same tree for a claim that a point contradicts, with any slopes and multipliers."""
    limit = held.least + 10.0 ** generator.uniform(-9, 0)
    unsafe = f"(or (<= Y_0 {limit:.12f}) (<= Y_0 -99))"
    claim = property_file(out.with_suffix(".vnnlib"), BOX, 2, unsafe)
    change: Arrays = {"row.0": np.array([0, 1], "<i4"), "neurons.0": generator.permutation(held.arrays["neurons.0"])}
    if generator.random() < 0.7:
        change["slopes.0.0"] = generator.integers(0, 256, len(held.arrays["slopes.0.0"])).astype("<u1")
        size = len(held.arrays["multipliers.0.0"])
        change["multipliers.0.0"] = (10.0 ** generator.uniform(-4, 3, size)).astype("<f4")
    pack(out, {**held.manifest, "property": digest_of(claim)}, {**held.arrays, **change})
    return claim


KINDS: tuple[Forgery, ...] = (dropped, pruned, named, negative, shortened, rowed, claimed)


def run(count: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """How many of each kind were refused, over all families in turn, and what was not."""
    refused, accepted = Counter[str](), []
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        families, out = [proved(folder, family, generator) for family in BESIDE], folder / "forged.proof"
        for kind in KINDS:
            for number in range(count):
                held = families[number % len(families)]
                claim = kind(held, generator, out)
                if believed(out, held.model, claim):
                    accepted.append(f"{kind.__name__} of {held.model.stem}, number {number}")
                else:
                    refused[kind.__name__] += 1
    return refused, accepted


if __name__ == "__main__":
    main(run)
