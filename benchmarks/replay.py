"""An independent check of counterexamples by onnxruntime and a VNN-LIB reader of 60 lines, nothing of `verif`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Formula = Any  # a token, or a list of formulas
TINY = 1e-300  # how far a strict relation is missed by equality

_NEGATED = {"<=": ">", ">=": "<", "<": ">=", ">": "<=", "==": "!=", "=": "!=", "!=": "=="}


def parse(text: str) -> list[Formula]:
    """The S-expressions of a VNN-LIB file (1.0 or 2.0)."""
    text = re.sub(r";[^\n]*", "", text)
    text = re.sub(r"\[[^\]]*\]", lambda index: "".join(index.group().split()), text)
    stack: list[list[Formula]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", text):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    (formulas,) = stack
    return formulas


def slack(formula: Formula, values: Mapping[str, float], positive: bool = True) -> float:
    """By how much relations must be loosened for the formula (or its negation) to be true: 0 means true as it is."""
    head, *rest = formula
    if head == "not":
        return slack(rest[0], values, not positive)
    if head in ("and", "or"):
        parts = [slack(part, values, positive) for part in rest]
        return max(parts) if (head == "and") == positive else min(parts)
    left, right = (number(term, values) for term in rest)
    match head if positive else _NEGATED[head]:
        case "<=":
            return max(0.0, left - right)
        case ">=":
            return max(0.0, right - left)
        case "<":
            return max(TINY, left - right) if left >= right else 0.0
        case ">":
            return max(TINY, right - left) if left <= right else 0.0
        case "!=":
            return TINY if left == right else 0.0
        case _:
            return abs(left - right)


def number(term: Formula, values: Mapping[str, float]) -> float:
    """The value of a variable, a number, or a sum, difference or product."""
    if isinstance(term, str):
        return values[term] if term in values else float(term)
    head, *rest = term
    parts = [number(part, values) for part in rest]
    match head:
        case "+":
            return math.fsum(parts)
        case "-":
            return -parts[0] if len(parts) == 1 else parts[0] - math.fsum(parts[1:])
        case "*":
            return math.prod(parts)
        case _:
            raise ValueError(f"no meaning for '{head}'")


def read_point(text: str) -> np.ndarray:
    """The inputs X_0, X_1, ... of a counterexample in VNN-COMP's text, float64."""
    pairs = {int(i): float(v) for i, v in re.findall(r"\(\s*X_(\d+)\s+([^\s()]+)\s*\)", text)}
    return np.array([pairs[i] for i in range(len(pairs))])


def run(model: Path, point: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The inputs as the model takes them and its outputs, both flat float64, and how many numbers it took."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feeds, used = {}, 0
    for entry in session.get_inputs():
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in entry.shape]
        dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64}[entry.type]
        feeds[entry.name] = point[used : used + math.prod(shape)].astype(dtype).reshape(shape)
        used += math.prod(shape)
    outputs = session.run(None, feeds)
    taken = np.concatenate([np.ravel(feed) for feed in feeds.values()]).astype(np.float64)
    return taken, np.concatenate([np.ravel(y) for y in outputs]).astype(np.float64), used


def check(models: Sequence[Path], property: Path, point: np.ndarray) -> float:
    """The slack that a point (inputs of all networks, in order) needs to be a counterexample: 0 means it is one."""
    formulas = parse(property.read_text())
    inputs, outputs, first = [], [], 0
    for model in models:
        x, y, used = run(model, point[first:])
        inputs, outputs, first = [*inputs, *x], [*outputs, *y], first + used
    if first != len(point):
        raise ValueError(f"the networks take {first} numbers, the point has {len(point)}")
    values = _names(formulas, "declare-input", "X", inputs) | _names(formulas, "declare-output", "Y", outputs)
    return max(slack(formula[1], values) for formula in formulas if formula[0] == "assert")


def _names(formulas: Sequence[Formula], keyword: str, letter: str, numbers: Sequence[float]) -> dict[str, float]:
    """Values by name: X_0, X_1, ... in VNN-LIB 1.0, the declared arrays in order in 2.0."""
    declared = [part for f in formulas if f[0] == "declare-network" for part in f if part[0] == keyword]
    if not declared:
        return {f"{letter}_{i}": value for i, value in enumerate(numbers)}
    values, place = {}, iter(numbers)
    for _, name, _, shape in declared:
        sizes = [int(size) for size in shape.strip("[]").split(",") if size]
        for index in np.ndindex(*sizes):
            values[f"{name}[{','.join(map(str, index))}]" if sizes else name] = next(place)
    return values
