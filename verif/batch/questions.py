"""What a batch asks: instances with their files, settings and limits, keyed by the content of all of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from verif.batch.store import Entry

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

    def plain(self) -> dict[str, object]:
        """As JSON can hold it."""
        return {**asdict(self), "norm": str(self.norm)}


@dataclass(frozen=True)
class Question:
    """One instance: a property file and the models by name ("" where there is only one), within `timeout` seconds.

    With `around` the property is local robustness, and its file a dataset of samples x and labels y (.npz).
    """

    category: str
    title: str
    models: tuple[tuple[str, Path], ...]
    property: Path
    timeout: float
    settings: Settings
    around: Around | None = None

    def hashes(self) -> dict[str, object]:
        """SHA-256 of its files as they are now."""
        return {"models": {name: digest(file) for name, file in self.models}, "property": digest(self.property)}

    def key(self) -> str:
        """SHA-256 of all that the answer depends on: contents, settings and the time allowed."""
        asked: dict[str, object] = {"hashes": self.hashes(), "settings": asdict(self.settings), "timeout": self.timeout}
        if self.around is not None:
            asked["around"] = self.around.plain()
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def entry(self) -> Entry:
        """How the store names it."""
        models = {name: str(file) for name, file in self.models}
        around = self.around
        asked = "" if around is None else f"[{around.index}] eps {around.eps:g} norm {around.norm:g}"
        names = ", ".join(dict.fromkeys(models.values())), f"{self.property}{asked}"
        settings = asdict(self.settings) | ({} if around is None else {"around": around.plain()})
        return Entry(self.key(), self.category, *names, models, settings, self.hashes())

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
