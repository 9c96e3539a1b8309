"""The command that decides an instance of a batch once more, with more time."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from cli.results import Row

_LONGER = 10


def again(row: Row) -> str:
    """The command to paste, for a person who wants an answer where there was none."""
    given = row.outcome.timeout if row.outcome is not None else None
    words = [*_asked(row), "--timeout", f"{_LONGER * (given or max(row.seconds, 1.0)):.0f}"]
    explained = words[0] in ("lipschitz", "monotone")
    return shlex.join(["verify", *words, *([] if explained else ["--explain"])])


def _asked(row: Row) -> list[str]:
    if row.entry is None:
        return [row.model, row.spec]
    settings, models = row.entry.settings, row.entry.models
    for kind, command in (("around", _around), ("steepness", _steepness), ("rising", _rising)):
        if kind in settings:
            return command(row, settings[kind])
    if set(models) <= {""}:
        return [row.model, row.spec]
    return [row.spec, *(word for name, file in models.items() for word in ("--network", f"{name}={file}"))]


def _around(row: Row, asked: Mapping[str, Any]) -> list[str]:
    ends = [(f, e) for f, e in zip(("--least", "--most"), asked["clip"] or (), strict=False) if math.isfinite(e)]
    return [row.model, *_sample(row, asked), *(word for flag, end in ends for word in (flag, f"{end:g}"))]


def _steepness(row: Row, asked: Mapping[str, Any]) -> list[str]:
    return ["lipschitz", row.model, *_sample(row, asked), "--output-norm", f"{float(asked['output_norm']):g}"]


def _sample(row: Row, asked: Mapping[str, Any]) -> list[str]:
    sample = f"{row.spec.rpartition('[')[0]}[{asked['index']}]"
    return ["--input", sample, "--eps", f"{asked['eps']}", "--norm", f"{float(asked['norm']):g}"]


def _rising(row: Row, asked: Mapping[str, Any]) -> list[str]:
    way = "--increasing" if asked["sign"] > 0 else "--decreasing"
    box = row.spec.rpartition(" output ")[0]
    return ["monotone", row.model, "--box", box, way, asked["name"], "--output", f"{asked['output']}"]
