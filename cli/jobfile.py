"""Job files (.toml): instances made from a dataset, every sample with every radius and norm.

timeout = 20                # seconds for each instance
[[robustness]]              # one or several
model = "model.onnx"        # paths are relative to the file
data = "data.npz"           # samples x and labels y
eps = [0.01, 0.02]
norm = ["inf", "2"]         # "inf" where it is left away
least = 0.0                 # the range of every input number, where it has one
most = 1.0
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import files
from cli.decide import stem
from cli.errors import UsageError
from cli.options import BatchOptions

if TYPE_CHECKING:
    from verif.batch.questions import Question, Settings

TIMEOUT = 60.0  # seconds for each instance, where nothing says otherwise
_KEYS = {"model", "data", "eps", "norm", "least", "most"}


def read_job(path: Path, options: BatchOptions, settings: Settings) -> Iterator[Question]:
    """The instances of a job. Raises UsageError C118 where it does not say what to do."""
    try:
        job = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("C118", f"this job cannot be read: {error}", where=str(path)) from None
    tables, seconds = job.get("robustness"), job.get("timeout", TIMEOUT)
    if not isinstance(tables, list) or set(job) - {"robustness", "timeout"} or not _number(seconds) or seconds <= 0:
        raise _wrong(path, "a job has a timeout (seconds) and tables [[robustness]]")
    for table in tables:
        yield from _robustness(path, table, min(seconds, options.timeout or seconds), settings)


def _robustness(path: Path, table: Mapping[str, Any], seconds: float, settings: Settings) -> Iterator[Question]:
    from verif.batch.questions import Around, Question

    radii, norms = table.get("eps"), table.get("norm", ["inf"])
    least, most = (table.get(name, end) for name, end in (("least", -math.inf), ("most", math.inf)))
    if set(table) - _KEYS or not {"model", "data", "eps"} <= set(table):
        raise _wrong(path, f"[[robustness]] needs model, data and eps, and knows {', '.join(sorted(_KEYS))}")
    if not isinstance(radii, list) or not all(_number(radius) and 0 <= radius < math.inf for radius in radii):
        raise _wrong(path, "eps is a list of radii of at least 0")
    if not isinstance(norms, list) or not all(norm in ("inf", "2", "1") for norm in norms):
        raise _wrong(path, 'norm is a list of "inf", "2", "1"')
    if not (_number(least) and _number(most) and least < most):
        raise _wrong(path, "least and most are two numbers, the first one less")
    model, data = (files.require(path.parent / table[name]) for name in ("model", "data"))
    clip = (float(least), float(most)) if {"least", "most"} & set(table) else None
    for norm in norms:
        for radius in radii:
            for index in range(_count(data)):
                title = (
                    f"{stem(model)} x {stem(data)}[{index}], eps {radius:g}{'' if norm == 'inf' else f' norm {norm}'}"
                )
                around = Around(index, float(radius), float(norm), clip)
                category = path.resolve().parent.name
                yield Question(category, title, (("", model),), data, float(seconds), settings, around)


def _count(data: Path) -> int:
    import numpy as np

    try:
        with np.load(data, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError):
        raise UsageError("C118", "a dataset has arrays x and y (.npz)", where=str(data)) from None
    if len(x) != len(y):
        raise UsageError("C118", f"there are {len(x)} samples and {len(y)} labels", where=str(data))
    return len(x)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _wrong(path: Path, message: str) -> UsageError:
    return UsageError("C118", f"this job does not say what to do: {message}", where=str(path))
