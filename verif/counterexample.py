"""Counterexample files: VNN-COMP's text, VNN-LIB 2.0 assignments, numpy arrays. Numbers round-trip exactly."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verif.errors import PropertyError
from verif.query import Query, Variable

Array = NDArray[Any]
Arrays = Mapping[str, Array]

_PAIR = re.compile(r"\(\s*([XY])_(\d+)\s+([^\s()]+)\s*\)")
_HEADER = re.compile(r"([^\s()]+)\s+([A-Za-z]+\d*)\s+\[([\d,\s]*)\]\s*")
_HELP = "expected ((X_0 0.5) ... (Y_0 0.1)), VNN-LIB 2.0 assignments, .npz or .npy"


def competition_text(inputs: Arrays, outputs: Arrays) -> str:
    """VNN-COMP's form ((X_0 v) ... (Y_0 v)); inputs and outputs are counted through in order."""
    lines = [
        f"({letter}_{index} {decimal(value)})"
        for letter, arrays in (("X", inputs), ("Y", outputs))
        for index, value in enumerate(_scalars(arrays))
    ]
    return "(" + "\n ".join(lines) + ")\n"


def assignments_text(inputs: Arrays, outputs: Arrays, order: Iterable[str] = ()) -> str:
    """VNN-LIB 2.0's form: `name type [shape]`, then one number a line; `order` is that of the declarations."""
    named, lines = {**inputs, **outputs}, []
    for name in dict.fromkeys([*(name for name in order if name in named), *named]):
        array = named[name]
        lines.append(f"{name} {array.dtype.name} [{','.join(map(str, array.shape))}]")
        lines += [decimal(value) for value in array.reshape(-1)]
    return "\n".join(lines) + "\n"


def decimal(value: Any) -> str:
    """Digits that read back as the same number, in float64 as well as in the value's own type."""
    return repr(int(value)) if isinstance(value, np.integer | np.bool_) else repr(float(value))


def write(path: str | Path, inputs: Arrays, outputs: Arrays) -> None:
    """By suffix: .npz (all arrays by name), .npy (the only input), anything else VNN-COMP's text."""
    path = Path(path)
    if path.suffix == ".npz":
        np.savez(path, **{**inputs, **outputs})  # type: ignore[arg-type]
    elif path.suffix == ".npy":
        if len(inputs) != 1:
            raise _error(path, f".npy holds one array, there are {len(inputs)} inputs", "write a .npz file")
        np.save(path, next(iter(inputs.values())))
    else:
        path.write_text(competition_text(inputs, outputs), encoding="utf-8")


def read(path: str | Path, query: Query) -> Tensor:
    """The point z (n,) float64 that a file describes. Raises PropertyError where it does not fit the query."""
    path = Path(path)
    values = read_values(path)
    inputs = [variable for variable in query.property.variables if variable.kind == "input"]
    parts = _by_variable(path, values, inputs)
    point = torch.full((query.property.lower.shape[1],), torch.nan, dtype=torch.float64)
    for variable, part in zip(inputs, parts, strict=True):
        positions = query.property.gather[variable.key].reshape(-1)
        new, old = torch.from_numpy(np.array(part, np.float64)), point[positions]
        point[positions] = new
        if bool(((old != new) & ~old.isnan() | (point[positions] != new)).any()):
            raise _error(path, f"'{variable.name}' differs from an input that the property says is equal to it", "")
    return point


def read_values(path: Path) -> dict[str, NDArray[np.float64]]:
    """Flat values by name; "X" (and "Y") count through all inputs (outputs) in VNN-COMP's text, "" is a bare array."""
    try:
        if path.suffix == ".npz":
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: np.asarray(arrays[name], np.float64).reshape(-1) for name in arrays.files}
        if path.suffix == ".npy":
            return {"": np.asarray(np.load(path, allow_pickle=False), np.float64).reshape(-1)}
        text = path.read_text(encoding="utf-8", errors="replace")
        return parse_competition(text) if text.lstrip().startswith(("(", "sat\n(")) else parse_assignments(text)
    except FileNotFoundError:
        raise _error(path, "the file does not exist", "") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _error(path, str(error), _HELP) from None


def parse_competition(text: str) -> dict[str, NDArray[np.float64]]:
    """X and Y of `((X_0 v) ... (Y_0 v))`. Raises ValueError where numbers are missing, repeated or no numbers."""
    found: dict[str, dict[int, float]] = {"X": {}, "Y": {}}
    for letter, index, value in _PAIR.findall(text):
        if int(index) in found[letter]:
            raise ValueError(f"{letter}_{index} is given twice")
        found[letter][int(index)] = float(value)
    rest = _PAIR.sub("", text).split()
    if not found["X"] or "".join(rest) not in ("()", "sat()"):
        raise ValueError(f"unexpected '{' '.join(rest)[:40]}'" if found["X"] else "it gives no X_0")
    for letter, values in found.items():
        missing = next((i for i in range(len(values)) if i not in values), None)
        if missing is not None:
            raise ValueError(f"{letter}_{missing} is missing")
    return {letter: np.array([v[i] for i in range(len(v))]) for letter, v in found.items() if v}


def parse_assignments(text: str) -> dict[str, NDArray[np.float64]]:
    """Values by name of VNN-LIB 2.0 assignments. Raises ValueError where a line or a count is wrong."""
    values: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.fullmatch(line.strip())
        if header:
            name = header[1]
            if name in values:
                raise ValueError(f"'{name}' is given twice (line {number})")
            values[name] = []
            sizes[name] = int(np.prod([int(n) for n in header[3].split(",") if n.strip()], dtype=np.int64))
        elif line.strip() and name:
            values[name].append(float(line))
        elif line.strip() and line.strip() != "sat":
            raise ValueError(f"line {number} comes before any name")
    if not values:
        raise ValueError("it gives no values")
    for name, size in sizes.items():
        if len(values[name]) != size:
            raise ValueError(f"'{name}' has {len(values[name])} numbers, its shape asks for {size}")
    return {name: np.array(numbers) for name, numbers in values.items()}


def _by_variable(path: Path, values: Arrays, inputs: Sequence[Variable]) -> list[Array]:
    """The flat values of each input, found by its name or by counting through."""
    names = [variable.name for variable in inputs]
    if len(set(names)) < len(names):
        names = [variable.origin or variable.value for variable in inputs]
    sizes = [variable.size for variable in inputs]
    if all(name in values for name in names):
        parts = [values[name] for name in names]
    else:
        flat = values.get("X", values.get(""))
        if flat is None:
            missing = next(name for name in names if name not in values)
            raise _error(path, f"input '{missing}' has no values", "")
        if len(flat) != sum(sizes):
            raise _error(path, f"it has {len(flat)} input values, the property has {sum(sizes)}", "")
        parts = np.split(flat, np.cumsum(sizes)[:-1])
    for name, part, size in zip(names, parts, sizes, strict=True):
        if len(part) != size:
            raise _error(path, f"input '{name}' has {len(part)} values, the property has {size}", "")
    return list(parts)


def _scalars(arrays: Arrays) -> Iterable[Any]:
    return (value for array in arrays.values() for value in array.reshape(-1))


def _error(path: Path, message: str, help: str) -> PropertyError:
    return PropertyError("P111", f"this is no counterexample: {message}", where=str(path), help=help)
