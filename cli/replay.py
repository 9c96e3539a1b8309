"""`verify replay`: a saved counterexample, run again in onnxruntime."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cli import files
from cli.decide import importing
from cli.errors import UsageError
from verif.verdict import Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from verif.query import Query

Values = Mapping[str, NDArray[np.float64]]
_PAIR = re.compile(r"\(\s*([XY])_(\d+)\s+([^\s()]+)\s*\)")
_HEADER = re.compile(r"(\S+)\s+\w+\s+\[([\d,\s]*)\]\s*")


def replay_file(networks: Path | Mapping[str, Path], property: Path, counterexample: Path) -> int:
    """Exit code 1 where the saved point violates the property, 3 where it does not."""
    models = [networks] if isinstance(networks, Path) else list(networks.values())
    for path in (*models, property, counterexample):
        files.require(path)
    values = read_values(counterexample)
    with importing():
        from verif.query import compile_query
        from verif.replay import replay
    from cli import report

    query = compile_query(property, networks)
    seen = replay(query, _point(query, values, counterexample))
    if seen.violated:
        print("VIOLATED  the models' own runtime confirms the counterexample")
    else:
        print(f"NOT A COUNTEREXAMPLE  {seen.reason}")
    print("\n".join(report.arrays(seen.inputs, seen.outputs)), flush=True)
    return Verdict.VIOLATED.exit_code if seen.violated else Verdict.UNKNOWN.exit_code


def read_values(path: Path) -> Values:
    """Flat values by name, from arrays (.npz), the competition's text or VNN-LIB 2.0's; "X" counts through inputs."""
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: np.asarray(arrays[name], np.float64).reshape(-1) for name in arrays.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            raise UsageError("C111", "this is not a file of arrays (.npz)", where=str(path)) from None
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return _competition(text) if text.lstrip().startswith(("(", "sat")) else _standard(text)
    except ValueError as error:
        raise UsageError(
            "C111", f"this is no counterexample: {error}", where=str(path), help="expected ((X_0 0.5) ... (Y_0 0.1))"
        ) from None


def _competition(text: str) -> Values:
    found = {int(index): float(value) for letter, index, value in _PAIR.findall(text) if letter == "X"}
    if sorted(found) != list(range(len(found))) or not found:
        raise ValueError("its inputs are not X_0, X_1, ... without a gap")
    return {"X": np.array([found[index] for index in range(len(found))])}


def _standard(text: str) -> Values:
    values: dict[str, list[float]] = {}
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.fullmatch(line)
        if header:
            name = header[1]
            values[name] = []
        elif line.strip() and name:
            values[name].append(float(line))
        elif line.strip():
            raise ValueError(f"line {number} comes before any name")
    if not values:
        raise ValueError("it is empty")
    return {name: np.array(numbers) for name, numbers in values.items()}


def _point(query: Query, values: Values, path: Path) -> Tensor:
    """The flat point z of the query that the values describe."""
    import torch

    property = query.property
    inputs = [variable for variable in property.variables if variable.kind == "input"]
    counts = Counter(variable.name for variable in property.variables)
    total = sum(variable.size for variable in inputs)
    names = [v.name if counts[v.name] == 1 else v.origin or v.value for v in inputs]
    if set(names) <= set(values):
        flat = np.concatenate([values[name] for name in names])
    elif "X" in values:
        flat = values["X"]
    else:
        missing = next(name for name in names if name not in values)
        raise UsageError("C111", f"input '{missing}' has no values here", where=str(path))
    if len(flat) != total:
        raise UsageError("C111", f"it has {len(flat)} input values, the property has {total}", where=str(path))
    point = torch.zeros(property.lower.shape[1], dtype=torch.float64)
    for variable, part in zip(inputs, np.split(flat, np.cumsum([v.size for v in inputs])[:-1]), strict=True):
        point[property.gather[variable.key].reshape(-1)] = torch.from_numpy(np.ascontiguousarray(part))
    return point
