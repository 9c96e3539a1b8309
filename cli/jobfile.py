"""Job files (.toml): instances made from a dataset or a box, for a model.

timeout = 20                # seconds for each instance
[[robustness]]              # every sample with every radius and norm; each table once, several times or not at all
model = "model.onnx"        # paths are relative to the file
data = "data.npz"           # samples x and labels y
eps = [0.01, 0.02]
norm = ["inf", "2"]         # "inf" where it is left away
least = 0.0                 # the range of every input number, where it has one
most = 1.0
[[monotone]]                # every feature: the output never falls in it, or never rises
model = "model.onnx"
box = "box.csv"             # a line name,lower,upper for each input number
increasing = ["age"]
decreasing = ["income"]
output = 0                  # 0 where it is left away
[[lipschitz]]               # every sample with every radius: |f(x) - f(y)| <= most |x - y|
model = "model.onnx"
data = "data.npz"
eps = [0.01]
norm = "inf"                # of inputs; "inf" where it is left away
output_norm = "inf"
most = 10.0
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import files
from cli.decide import stem
from cli.errors import UsageError
from cli.options import BatchOptions

if TYPE_CHECKING:
    from verif.batch.questions import Around, Question, Rising, Settings, Steepness

TIMEOUT = 60.0  # seconds for each instance, where nothing says otherwise
_NORMS = ("inf", "2", "1")
_KEYS = {
    "robustness": ({"model", "data", "eps"}, {"norm", "least", "most"}),
    "monotone": ({"model", "box"}, {"increasing", "decreasing", "output"}),
    "lipschitz": ({"model", "data", "eps", "most"}, {"norm", "output_norm"}),
}


@dataclass(frozen=True)
class _Table:
    """One table of a job, and what its instances share."""

    path: Path
    given: Mapping[str, Any]
    seconds: float
    settings: Settings

    def file(self, name: str) -> Path:
        return files.require(self.path.parent / str(self.given[name]))

    def radii(self) -> list[float]:
        """The radii, or C118."""
        radii = self.given["eps"]
        if not isinstance(radii, list) or not all(_number(radius) and 0 <= radius < math.inf for radius in radii):
            raise _wrong(self.path, "eps is a list of radii of at least 0")
        return [float(radius) for radius in radii]

    def question(self, title: str, file: Path, about: Around | Steepness | Rising) -> Question:
        """One instance; its file is a dataset or a box."""
        from verif.batch.questions import Question

        model, category = self.file("model"), self.path.resolve().parent.name
        name = f"{stem(model)} x {title}"
        return Question(category, name, (("", model),), file, self.seconds, self.settings, about)


def read_job(path: Path, options: BatchOptions, settings: Settings) -> Iterator[Question]:
    """The instances of a job. Raises UsageError C118 where it does not say what to do."""
    try:
        job = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("C118", f"this job cannot be read: {error}", where=str(path)) from None
    seconds, kinds = job.pop("timeout", TIMEOUT), ", ".join(f"[[{kind}]]" for kind in _KEYS)
    if not job or set(job) - set(_KEYS) or not _number(seconds) or seconds <= 0:
        raise _wrong(path, f"a job has a timeout (seconds) and tables {kinds}")
    readers = {"robustness": _robustness, "monotone": _monotone, "lipschitz": _lipschitz}
    for kind, tables in job.items():
        needed, other = _KEYS[kind]
        for given in tables if isinstance(tables, list) else [tables]:
            if not isinstance(given, dict) or not needed <= set(given) or set(given) - needed - other:
                words = [", ".join(sorted(part)) for part in (needed, other)]
                raise _wrong(path, f"[[{kind}]] needs {words[0]}, and may have {words[1]}")
            yield from readers[kind](_Table(path, given, min(seconds, options.timeout or seconds), settings))


def _robustness(table: _Table) -> Iterator[Question]:
    from verif.batch.questions import Around

    norms = table.given.get("norm", ["inf"])
    least, most = (table.given.get(name, end) for name, end in (("least", -math.inf), ("most", math.inf)))
    if not isinstance(norms, list) or not all(norm in _NORMS for norm in norms):
        raise _wrong(table.path, 'norm is a list of "inf", "2", "1"')
    if not (_number(least) and _number(most) and least < most):
        raise _wrong(table.path, "least and most are two numbers, the first one less")
    data = table.file("data")
    clip = (float(least), float(most)) if {"least", "most"} & set(table.given) else None
    for norm in norms:
        for radius in table.radii():
            for index in range(_count(data)):
                title = f"{stem(data)}[{index}], eps {radius:g}{'' if norm == 'inf' else f' norm {norm}'}"
                yield table.question(title, data, Around(index, radius, float(norm), clip))


def _monotone(table: _Table) -> Iterator[Question]:
    from cli.slopes import positions, read_box
    from verif.batch.questions import Rising

    box, output = table.file("box"), table.given.get("output", 0)
    names, lower, upper = read_box(box)
    ways = [(sign, table.given.get(way, [])) for sign, way in ((1, "increasing"), (-1, "decreasing"))]
    if not any(asked for _, asked in ways) or not all(isinstance(asked, list) for _, asked in ways):
        raise _wrong(table.path, "increasing and decreasing are lists of features of the box, not both empty")
    if not isinstance(output, int) or isinstance(output, bool):
        raise _wrong(table.path, "output is the number of an output")
    for sign, asked in ways:
        for feature in positions(map(str, asked), names, box):
            about = Rising(names[feature], feature, sign, output, tuple(lower), tuple(upper))
            yield table.question(f"{stem(box)}{about}", box, about)


def _lipschitz(table: _Table) -> Iterator[Question]:
    from verif.batch.questions import Steepness

    data, most = table.file("data"), table.given["most"]
    norms = [table.given.get(name, "inf") for name in ("norm", "output_norm")]
    if not all(norm in _NORMS for norm in norms):
        raise _wrong(table.path, 'norm and output_norm are one of "inf", "2", "1"')
    if not _number(most) or not 0 <= most < math.inf:
        raise _wrong(table.path, "most is a number of at least 0")
    for radius in table.radii():
        for index in range(_count(data)):
            about = Steepness(index, radius, float(norms[0]), float(norms[1]), float(most))
            yield table.question(f"{stem(data)}[{index}], eps {radius:g}, at most {most:g}", data, about)


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
