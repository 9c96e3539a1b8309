"""What is known of every sample at every radius, kept in a file so that an evaluation goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from graphs import Graph
from verif.errors import PropertyError

WRONG, BROKEN, PROVED = "w", "x", "p"  # at the sample itself; within the radius; certified
UNSEEN, OPEN, SEARCHED = ".", "o", "s"  # not judged; neither broken nor proved by bounds; nor in the time of a search
_EVERY = 1.0  # seconds between writings of the file


@dataclass(frozen=True)
class Accuracy:
    """Of `count` samples: the shares whose label is right, stays right under attack, and is proved to stay right within
    `radius`. What lies between the last two is undecided; `left` samples are still to be judged (and count nowhere).
    """

    radius: float
    count: int
    natural: float
    attacked: float
    certified: float
    left: int = 0

    @classmethod
    def of(cls, radius: float, states: list[str], searching: bool = False) -> Accuracy:
        """The shares of what is known; where a search follows, open samples are left to it."""
        unseen, broken = states.count(UNSEEN), states.count(BROKEN)
        natural, proved = len(states) - unseen - states.count(WRONG), states.count(PROVED)
        seen = max(len(states) - unseen, 1)
        left = unseen + (states.count(OPEN) if searching else 0)
        return cls(radius, len(states), natural / seen, (natural - broken) / seen, proved / seen, left)


@dataclass
class States:
    """A letter for each of `count` samples and every radius, of what `digest` stands for; written to `path`, if any."""

    digest: str
    count: int
    path: Path | None = None
    known: dict[float, str] = field(default_factory=dict)
    limits: dict[float, float] = field(default_factory=dict)  # seconds of the longest search of a radius
    written: float = 0.0

    @classmethod
    def open(cls, digest: str, count: int, path: Path | None) -> States:
        """With what the file holds. Raises PropertyError (P121) where it is of something else."""
        found = cls(digest, count, path)
        if path is None or not path.exists():
            return found
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            for one in data["radii"] if data["of"] == digest else ():
                found.known[float(one["radius"])] = str(one["states"])
                found.limits[float(one["radius"])] = float(one["seconds"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise PropertyError("P121", f"'{path}' is not a file of results", help="give another name") from None
        if data["of"] != digest or any(len(states) != count for states in found.known.values()):
            raise PropertyError(
                "P121",
                f"'{path}' holds results of another model, other samples or another norm or range",
                help="give another name, or remove it to start again",
            )
        return found

    def at(self, radius: float, seconds: float) -> list[str]:
        """What is known at a radius, also from smaller and larger ones; a longer search takes up what one gave up."""
        states = list(self.known.get(radius, UNSEEN * self.count))
        for other, letters in self.known.items():
            for i, letter in enumerate(letters):
                if letter == WRONG or (letter == BROKEN and other < radius) or (letter == PROVED and other > radius):
                    states[i] = letter
        if seconds > self.limits.get(radius, 0.0):
            states = [OPEN if letter == SEARCHED else letter for letter in states]
        return states

    def keep(self, radius: float, states: list[str], seconds: float, *, now: bool = False) -> None:
        """Take over, and write the file (`now`, or when it has not been written for a second)."""
        self.known[radius] = "".join(states)
        self.limits[radius] = max(seconds, self.limits.get(radius, 0.0))
        if self.path is None or not (now or time.monotonic() - self.written > _EVERY):
            return
        rows: list[dict[str, Any]] = []
        for one, letters in sorted(self.known.items()):
            shares = {name: value for name, value in vars(Accuracy.of(one, list(letters))).items() if name != "left"}
            rows.append({**shares, "seconds": self.limits[one], "states": letters})
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        beside.write_text(json.dumps({"of": self.digest, "radii": rows}, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, self.path)
        self.written = time.monotonic()


def digest_of(graph: Graph, tensors: Iterable[Tensor], *more: object) -> str:
    """A fingerprint of a graph with its constants, of tensors, and of whatever else has a stable repr."""
    whole = hashlib.sha256(repr(more).encode())
    for node in graph:
        parts = (node.op, node.inputs, sorted(node.params.items()), sorted(map(str, node.attrs.items())), node.shape)
        whole.update(repr(parts).encode())
    for tensor in (*(graph.constants[name] for name in sorted(graph.constants)), *tensors):
        flat = tensor.detach().cpu().contiguous()
        whole.update(repr((flat.dtype, tuple(flat.shape))).encode())
        whole.update(flat.numpy().tobytes())
    return whole.hexdigest()
