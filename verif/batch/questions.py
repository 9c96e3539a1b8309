"""What a batch asks: instances with their files, settings and limits, keyed by the content of all of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from verif.batch.store import Entry
from verif.splits import Part
from verif.tactics import USUAL

ABSENT = "absent"  # stands for the digest of a file that cannot be read


@dataclass(frozen=True)
class Settings:
    """How instances are decided; `memory` in bytes (None: no limit)."""

    strategy: str = "auto"
    device: str = "cpu"
    seed: int = 0
    memory: int | None = None


@dataclass(frozen=True)
class Around:
    """Local robustness around sample `index` of a dataset: within `eps` in a norm, every input in `clip`."""

    index: int
    eps: float
    norm: float
    clip: tuple[float, float] | None = None

    def __str__(self) -> str:
        return f"[{self.index}] eps {self.eps:g} norm {self.norm:g}"


@dataclass(frozen=True)
class Steepness:
    """|f(x) - f(y)| <= `most` |x - y| within `eps` of sample `index` of a dataset, in norms of outputs and inputs."""

    index: int
    eps: float
    norm: float
    output_norm: float
    most: float

    def __str__(self) -> str:
        norms = f"norms {self.norm:g} {self.output_norm:g}"
        return f"[{self.index}] eps {self.eps:g} {norms} at most {self.most:g}"


@dataclass(frozen=True)
class Rising:
    """`output` never falls in input number `feature` (`sign` -1: never rises) anywhere between `lower` and `upper`."""

    name: str
    feature: int
    sign: int
    output: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __str__(self) -> str:
        return f" output {self.output} {'increasing' if self.sign > 0 else 'decreasing'} in {self.name}"


@dataclass(frozen=True)
class Question:
    """One instance: a property file and the models by name ("" where there is only one), within `timeout` seconds.

    With `about` the property is this; its file is a dataset of samples x and labels y (.npz), or a box (.csv). The
    `tactic` (see `verif.tactics`) changes no answer and is no part of the key. It may be about a `part` of another
    question only. With `halvings` the answer is where to halve it, at most so many times.
    """

    category: str
    title: str
    models: tuple[tuple[str, Path], ...]
    property: Path
    timeout: float
    settings: Settings
    about: Around | Steepness | Rising | None = None
    tactic: str = USUAL
    part: Part | None = None
    halvings: int = 0

    def whole(self) -> str:
        """The key of the question that it is a part of, or ""."""
        return "" if self.part is None else self.part.of

    def hashes(self) -> dict[str, object]:
        """SHA-256 of its files as they are now."""
        return {"models": {name: digest(file) for name, file in self.models}, "property": digest(self.property)}

    def key(self) -> str:
        """SHA-256 of all that the answer depends on: contents, settings and the time allowed."""
        asked: dict[str, object] = {"hashes": self.hashes(), "settings": asdict(self.settings), "timeout": self.timeout}
        asked |= self._about()
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def absolute(self) -> Question:
        """The same with absolute paths, for a process elsewhere."""
        models = tuple((name, file.absolute()) for name, file in self.models)
        return replace(self, models=models, property=self.property.absolute())

    def entry(self) -> Entry:
        """How the store names it."""
        models = {name: str(file) for name, file in self.models}
        names = ", ".join(dict.fromkeys(models.values())), f"{self.property}{self.about or ''}{self.part or ''}"
        settings = asdict(self.settings) | self._about()
        return Entry(self.key(), self.category, *names, models, settings, self.hashes())

    def _about(self) -> dict[str, object]:
        """As JSON can hold it, whose numbers are finite."""
        part: dict[str, object] = {} if self.part is None else {"part": asdict(self.part)}
        if self.about is None:
            return part
        plain = {name: str(value) if "norm" in name else value for name, value in asdict(self.about).items()}
        return part | {type(self.about).__name__.lower(): plain}

    def searched(self) -> bool:
        """Whether an ordinary search answers it, which has tactics."""
        return not isinstance(self.about, Steepness | Rising)

    def weight(self) -> tuple[int, str, int]:
        """Sorts cheap instances first and keeps those of one model together."""
        return sum(_size(file) for _, file in self.models), str(self.models), _size(self.property)


def digest(path: Path) -> str:
    """SHA-256 of a file (and of NAME.data beside it, where a model keeps large arrays); computed once for a version."""
    try:
        return _digest(path, tuple(_stamp(part) for part in _parts(path)))
    except OSError:
        return ABSENT


@cache
def _digest(path: Path, stamps: tuple[tuple[int, int], ...]) -> str:
    whole = hashlib.sha256()
    for part in _parts(path):
        with part.open("rb") as source:
            whole.update(hashlib.file_digest(source, "sha256").digest())
    return whole.hexdigest()


def _parts(path: Path) -> list[Path]:
    data = path.with_name(f"{path.name}.data")
    return [path, data] if data.is_file() else [path]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
