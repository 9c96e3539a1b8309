"""Compiled properties mean what the formula says: random formulas against a direct interpreter, at grid points."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.properties.tools import declarations, network, unsafe
from verif.networks import Networks
from verif.query import Property
from verif.vnnlib import read

Formula = tuple  # ("and" | "or", parts...) or (op, left, right); a term is a number, a name, or (op, terms...)
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
GRID = (0.0, 0.25, 0.5, 1.0)


def term(rng: random.Random, names: list[str], depth: int):  # type: ignore[no-untyped-def]
    kind = rng.random()
    if depth == 0 or kind < 0.7:
        return rng.choice(names) if rng.random() < 0.7 else rng.choice([-1.0, -0.5, 0.25, 0.5, 1.0, 2.0])
    op = rng.choice("+-*")
    return (op, *(term(rng, names, depth - 1) for _ in range(rng.randint(1 if op == "-" else 2, 3))))


def formula(rng: random.Random, names: list[str], depth: int, compare: list[str]) -> Formula:
    if depth == 0 or rng.random() < 0.4:
        pure = rng.choice([names, [n for n in names if n[0] == "X"]])
        if rng.random() < 0.5:  # the shape that becomes a bound
            pair = [rng.choice(pure), rng.choice(GRID)]
            rng.shuffle(pair)
            return (rng.choice(compare), *pair)
        return (rng.choice(compare), term(rng, pure, 2), rng.choice([*pure, 0.5]))
    parts = (formula(rng, names, depth - 1, compare) for _ in range(rng.randint(1, 3)))
    return (rng.choice(["and", "or"]), *parts)


def text(node) -> str:  # type: ignore[no-untyped-def]
    return f"({' '.join(map(text, node))})" if isinstance(node, tuple) else str(node)


def value(node, at: Mapping[str, float]) -> float:  # type: ignore[no-untyped-def]
    if not isinstance(node, tuple):
        return at[node] if isinstance(node, str) else node
    numbers = [value(part, at) for part in node[1:]]
    if node[0] == "+":
        return sum(numbers)
    if node[0] == "*":
        return float(np.prod(numbers))
    return -numbers[0] if len(numbers) == 1 else numbers[0] - sum(numbers[1:])


def true(node: Formula, at: Mapping[str, float]) -> bool:
    if node[0] in COMPARE:
        return COMPARE[node[0]](value(node[1], at), value(node[2], at))
    return (all if node[0] == "and" else any)(true(part, at) for part in node[1:])


def first(asserts: list[Formula], folder: Path) -> Property:
    bounds = [(op, f"X_{i}", end) for i in range(2) for op, end in ((">=", 0.0), ("<=", 1.0))]
    lines = [f"(assert {text(node)})" for node in (*bounds, *asserts)]
    path = folder / "p.vnnlib"
    path.write_text(declarations() + "\n".join(lines))
    return read(path, Networks.of(network()))[0]


@pytest.mark.parametrize("seed", range(60))
def test_first_version(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    names = ["X_0", "X_1", "Y_0", "Y_1"]
    asserts = [formula(rng, names, 3, list(COMPARE)) for _ in range(rng.randint(1, 3))]
    compiled = first(asserts, tmp_path)
    merged = compiled.lower.shape[1] == 1
    for _ in range(150):
        x, y = rng.choices(GRID, k=2), rng.choices((-1.0, *GRID), k=2)
        at = dict(zip(names, (*x, *y), strict=True))
        if merged and x[0] != x[1]:
            continue
        expected = all(true(node, at) for node in asserts)
        z = x[:1] if merged else x
        assert unsafe(compiled, z, {"x": np.array(x), "y": np.array(y)}) == expected, (text(tuple(asserts)), at)


SECOND = """(vnnlib-version <2.0>)
(declare-network f (declare-input X_f float32 [2]) (declare-output Y_f float32 [2]))
(declare-network g (equal-to f) (declare-input X_g float32 [2]) (declare-output Y_g float32 [2]))
"""


@pytest.mark.parametrize("seed", range(40))
def test_second_version(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    names = [f"{v}_{n}[{i}]" for n in "fg" for v in "XY" for i in range(2)]
    inputs = [name for name in names if name[0] == "X"]
    asserts = [formula(rng, names, 3, list(COMPARE)) for _ in range(2)]
    bounds = [(op, name, end) for name in inputs for op, end in ((">=", 0.0), ("<=", 1.0))]
    shared = rng.random() < 0.3
    equal = [("==", "X_f[1]", "X_g[1]")] if shared else []
    path = tmp_path / "q.vnnlib"
    path.write_text(SECOND + "\n".join(f"(assert {text(node)})" for node in (*bounds, *equal, *asserts)))
    compiled = read(path, Networks.of({"f": network()}))[0]
    where = [int(p) for n in "fg" for p in compiled.gather[f"{n}.x"]]
    assert not shared or where[1] == where[3]
    for _ in range(150):
        at = {name: rng.choice(GRID if name[0] == "X" else (-1.0, *GRID)) for name in names}
        z = [0.0] * compiled.lower.shape[1]
        for name, position in zip(inputs, where, strict=True):
            z[position] = at[name]
        at |= {name: z[position] for name, position in zip(inputs, where, strict=True)}
        values = {f"{n}.{v.lower()}": np.array([at[f"{v}_{n}[{i}]"] for i in range(2)]) for n in "fg" for v in "XY"}
        expected = all(true(node, at) for node in asserts)
        assert unsafe(compiled, z, values) == expected, (text(tuple(asserts)), at)
