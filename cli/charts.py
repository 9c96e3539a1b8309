"""Charts of the report's page: numbers for its template, or whole SVG elements."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from cli.results import Row, Run
from verif.verdict import Verdict

_COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df")
_WIDTH, _HEIGHT, _LEFT, _TOP = 520, 260, 56, 16
_SHOWN = 12  # searches and counterexamples on a page
_CELL, _LARGEST = 4, 64  # pixels of the page for one of a picture, and the largest picture's side


def cactus(runs: Sequence[Run]) -> dict[str, Any]:
    """Solved instances against time, each within so many seconds; the seconds in decades."""
    times = [sorted(row.seconds for row in run.solved) for run in runs]
    most, slowest = max(map(len, times), default=0) or 1, max((max(t) for t in times if t), default=1.0)
    low, high = -1.0, max(1.0, math.ceil(math.log10(max(slowest, 1e-9))))

    def place(seconds: float, count: int) -> str:
        right = (math.log10(max(seconds, 0.1)) - low) / (high - low)
        return f"{_LEFT + _WIDTH * right:.1f},{_TOP + _HEIGHT * (1 - count / most):.1f}"

    lines = []
    for number, (run, own) in enumerate(zip(runs, times, strict=True)):
        corners = [place(own[0], 0)] if own else []
        for count, seconds in enumerate(own, 1):
            corners += [place(seconds, count - 1), place(seconds, count)]
        lines.append((run.name, _COLOURS[number % len(_COLOURS)], " ".join(corners)))
    decades = range(int(low), int(high) + 1)
    ticks = [(_LEFT + _WIDTH * (k - low) / (high - low), f"{10.0**k:g}") for k in decades]
    edges = {"top": _TOP, "bottom": _TOP + _HEIGHT, "left": _LEFT, "right": _LEFT + _WIDTH}
    return {"lines": lines, "ticks": ticks, "most": most, **edges}


def scatter(first: Run, second: Run) -> dict[str, Any]:
    """Times of the instances that both runs solved, in decades: the first run's to the right, the second's upwards."""
    held = {row.key: row for row in first.solved}
    both = [(held[row.key].seconds, row.seconds, row.spec) for row in second.solved if row.key in held]
    high = max([1.0, *(math.ceil(math.log10(max(a, b, 0.1))) for a, b, _ in both)])

    def share(seconds: float) -> float:
        return (math.log10(max(seconds, 0.1)) + 1) / (high + 1)

    side = _HEIGHT
    points = [(f"{_LEFT + side * share(a):.1f}", f"{_TOP + side * (1 - share(b)):.1f}", spec) for a, b, spec in both]
    ticks = [(side * (k + 1) / (high + 1), f"{10.0**k:g}") for k in range(-1, int(high) + 1)]
    edges = {"top": _TOP, "bottom": _TOP + side, "left": _LEFT, "right": _LEFT + side}
    return {"points": points, "ticks": ticks, "names": (first.name, second.name), **edges}


def progress(runs: Sequence[Run]) -> list[tuple[Row, str]]:
    """The longest searches that left a trace, with the corners of the share of the input set proved over time."""
    traced = [row for run in runs for row in run.rows if row.outcome is not None and len(row.outcome.trace) > 1]
    found = []
    for row in sorted(traced, key=lambda row: -row.seconds)[:_SHOWN]:
        assert row.outcome is not None
        last = max(row.outcome.trace[-1][0], 1e-9)
        corners = [f"{200 * step[0] / last:.1f},{50 * (1 - min(max(step[2], 0), 1)):.1f}" for step in row.outcome.trace]
        found.append((row, " ".join(corners)))
    return found


def examples(runs: Sequence[Run]) -> list[tuple[Row, str, str]]:
    """The first counterexamples of stores: inputs that are pictures as SVG ("" for others), and all values in words."""

    def all_of() -> Iterator[tuple[Row, str, str]]:
        for row in (row for run in runs for row in run.rows):
            if row.verdict is Verdict.VIOLATED and row.outcome is not None and row.outcome.counterexample:
                yield row, *_example(row.outcome.counterexample, row.outcome.inputs)

    return list(islice(all_of(), _SHOWN))


def _example(saved: bytes, inputs: Sequence[str]) -> tuple[str, str]:
    import numpy as np

    try:
        with np.load(io.BytesIO(saved), allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile):
        return "", "what was saved cannot be read"
    parts = []
    for name, array in held.items():
        values = ", ".join(f"{value:.5g}" for value in array.reshape(-1)[:10])
        parts.append(f"{name} = [{values}{', ...' if array.size > 10 else ''}]")
    return "".join(_picture(array) for name, array in held.items() if name in inputs), "; ".join(parts)


def _picture(array: Any) -> str:
    """An array (..., 1 or 3, height, width) as squares from black (its least number) to white; "" for others."""
    import numpy as np

    shape = array.shape
    if len(shape) < 3 or math.prod(shape[:-3]) != 1 or shape[-3] not in (1, 3) or min(shape[-2:]) < 4:
        return ""
    if max(shape[-2:]) > _LARGEST or not np.isfinite(array).all():
        return ""
    image = array.reshape(shape[-3:]).astype(np.float64)
    low, high = image.min(), image.max()
    grey = np.round(255 * (image - low) / ((high - low) or 1.0)).astype(int)
    colours = np.broadcast_to(grey, (3, *grey.shape[1:])).transpose(1, 2, 0)
    squares = "".join(
        f'<rect x="{x}" y="{y}" width="1.02" height="1.02" fill="#{r:02x}{g:02x}{b:02x}"/>'
        for y, line in enumerate(colours)
        for x, (r, g, b) in enumerate(line)
    )
    height, width = shape[-2:]
    size = f'viewBox="0 0 {width} {height}" width="{_CELL * width}" height="{_CELL * height}"'
    return f'<svg {size} role="img" aria-label="the input as a picture">{squares}</svg>'
