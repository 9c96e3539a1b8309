"""Charts of the report's page: numbers for its template, or whole SVG elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cli.results import Row, Run
from verif.verdict import Verdict

_COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df")
_WIDTH, _HEIGHT, _LEFT, _TOP = 520, 260, 56, 16
_SHOWN, _WIDTHS = 12, 6  # searches on a page, and charts of widths


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


def accuracies(runs: Sequence[Run]) -> list[tuple[str, list[dict[str, float]]]]:
    """Of each model, dataset and norm that runs asked with radii: the shares certified and not broken, by radius."""
    found: dict[str, dict[float, list[Verdict]]] = {}
    for name, row in ((run.name, row) for run in runs for row in run.rows):
        around = row.entry.settings.get("around") if row.entry is not None else None
        if around is not None:
            data = row.spec.rpartition("[")[0]
            title = f"{row.model} x {data}, l{around['norm']}" + (f" ({name})" if len(runs) > 1 else "")
            found.setdefault(title, {}).setdefault(around["eps"], []).append(row.verdict)
    return [(title, [_accuracy(eps, radii[eps]) for eps in sorted(radii)]) for title, radii in found.items()]


def _accuracy(radius: float, verdicts: Sequence[Verdict]) -> dict[str, float]:
    held, broken = (verdicts.count(verdict) / len(verdicts) for verdict in (Verdict.HOLDS, Verdict.VIOLATED))
    return {"radius": radius, "samples": len(verdicts), "certified": held, "attacked": 1 - broken}


def widths(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """How wide the first bounds are, layer by layer, in decades: without an answer first, then the longest."""
    rows = [row for run in runs for row in run.rows if row.outcome is not None]
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row.solved, -row.seconds)):
        assert row.outcome is not None
        layers = [(name, width) for name, width in row.outcome.widths if 0 < width < math.inf]
        layers = layers[1:] if layers[1:] and layers[0][1] == layers[1][1] else layers  # z is the input, flat
        if len(layers) > 2 and row.model not in found and len(found) < _WIDTHS:
            found[row.model] = {"row": row, **_layers(layers)}
    return list(found.values())


def _layers(layers: Sequence[tuple[str, float]]) -> dict[str, Any]:
    low, high = (math.log10(end) for end in (min(w for _, w in layers), max(w for _, w in layers)))
    step, span = 300 / (len(layers) - 1), max(high - low, 1e-9)
    places = [(f"{step * k:.1f}", f"{80 * (high - math.log10(w)) / span:.1f}") for k, (_, w) in enumerate(layers)]
    grown = max(range(1, len(layers)), key=lambda k: layers[k][1] / layers[k - 1][1])
    marks = [(x, y, f"{name}: {width:.3g}") for (x, y), (name, width) in zip(places, layers, strict=True)]
    return {
        "corners": " ".join(f"{x},{y}" for x, y in places),
        "marks": marks,
        "first": layers[0],
        "last": layers[-1],
        "grown": (layers[grown][0], layers[grown][1] / layers[grown - 1][1]),
    }
