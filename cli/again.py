"""The command that decides an instance of a batch once more, with more time."""

from __future__ import annotations

import math
import shlex

from cli.results import Row

_LONGER = 10


def again(row: Row) -> str:
    """The command to paste, for a person who wants an answer where there was none."""
    given = row.outcome.timeout if row.outcome is not None else None
    words = [*_asked(row), "--timeout", f"{_LONGER * (given or max(row.seconds, 1.0)):.0f}", "--explain"]
    return shlex.join(["verify", *words])


def _asked(row: Row) -> list[str]:
    if row.entry is None:
        return [row.model, row.spec]
    around, models = row.entry.settings.get("around"), row.entry.models
    if around is not None:
        sample = f"{row.spec.rpartition('[')[0]}[{around['index']}]"
        ends = [(f, e) for f, e in zip(("--least", "--most"), around["clip"] or (), strict=False) if math.isfinite(e)]
        flags = ["--input", sample, "--eps", f"{around['eps']}", "--norm", f"{float(around['norm']):g}"]
        return [row.model, *flags, *(word for flag, end in ends for word in (flag, f"{end:g}"))]
    if set(models) <= {""}:
        return [row.model, row.spec]
    return [row.spec, *(word for name, file in models.items() for word in ("--network", f"{name}={file}"))]
