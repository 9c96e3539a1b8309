"""Pictures (.svg) of what was bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from cli import files
from cli.options import MonotoneOptions

if TYPE_CHECKING:
    from torch import Tensor

    from relaxations.sets import Box
    from verif.monotone_lines import Profile

_WIDTH, _HEIGHT, _LEFT, _TOP, _STEP = 260, 170, 64, 30, 360


def write_profiles(
    model: Path, box: Box, names: Sequence[str], features: Sequence[int], options: MonotoneOptions
) -> None:
    """For each feature a panel: bounds of the slope over the feature's range, and what was seen."""
    from verif.monotone_lines import profile

    found = [profile(model, box, feature, output=options.output, seed=options.seed) for feature in features]
    assert options.picture is not None
    files.write(options.picture, profiles(found, names))


def profiles(found: Sequence[Profile], names: Sequence[str]) -> str:
    """Panels side by side: certified slopes (grey), slopes seen (blue), and zero."""
    panels = [_panel(one, names[one.feature], k * _STEP + _LEFT) for k, one in enumerate(found)]
    size = f"{_STEP * len(found)} {_TOP + _HEIGHT + 44}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="13">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *panels, "</svg>"]) + "\n"


def _panel(one: Profile, name: str, left: float) -> str:
    finite = [v for v in [*one.lower.tolist(), *one.upper.tolist(), 0.0] if abs(v) < float("inf")]
    bottom, top = min(finite), max(finite)
    span = top - bottom or 1.0
    first, last = float(one.ends[0]), float(one.ends[-1])

    def place(x: float, y: float) -> str:
        right = left + _WIDTH * (x - first) / ((last - first) or 1.0)
        return f"{right:.1f},{_TOP + _HEIGHT * (top - min(max(y, bottom), top)) / span:.1f}"

    def band(low: Tensor, high: Tensor, colour: str) -> str:
        ends = one.ends.tolist()
        there = [(ends[k + side], float(low[k])) for k in range(len(low)) for side in (0, 1)]
        back = [(ends[k + side], float(high[k])) for k in reversed(range(len(high))) for side in (1, 0)]
        corners = " ".join(place(*corner) for corner in there + back)
        return f'<polygon points="{corners}" fill="{colour}"/>'

    zero = f'<polyline points="{place(first, 0)} {place(last, 0)}" stroke="#1f2328" stroke-dasharray="4 3"/>'
    below, middle = _TOP + _HEIGHT + 18, left + _WIDTH / 2
    text = '<text x="{:.0f}" y="{:.0f}" text-anchor="{}">{}</text>'.format
    return "\n".join(
        [
            band(one.lower, one.upper, "#d0d7de"),
            band(one.least, one.most, "#54aeff"),
            zero,
            text(middle, 18, "middle", f"slope in {escape(name)}"),
            text(left - 6, _TOP + 6, "end", f"{top:.3g}"),
            text(left - 6, _TOP + _HEIGHT, "end", f"{bottom:.3g}"),
            text(left, below, "middle", f"{first:.3g}"),
            text(left + _WIDTH, below, "middle", f"{last:.3g}"),
        ]
    )


def accuracy_curve(found: Sequence[Mapping[str, float]]) -> str:
    """Accuracy by radius: natural where it is known, attacked and certified; what is undecided in grey."""
    last = max(one["radius"] for one in found) or 1.0

    def place(radius: float, share: float) -> str:
        return f"{_LEFT + _WIDTH * radius / last:.1f},{_TOP + _HEIGHT * (1 - share):.1f}"

    def line(name: str) -> str:
        return " ".join(place(one["radius"], one[name]) for one in found)

    back = " ".join(place(one["radius"], one["certified"]) for one in reversed(found))
    parts = [f'<polygon points="{line("attacked")} {back}" fill="#d0d7de"/>']
    text = '<text x="{:.0f}" y="{:.0f}" text-anchor="{}">{}</text>'.format
    colours = {"natural": "#1f2328", "attacked": "#bc4c00", "certified": "#0969da"}
    for row, (name, colour) in enumerate((name, colours[name]) for name in colours if name in found[0]):
        parts.append(f'<polyline points="{line(name)}" stroke="{colour}" stroke-width="2" fill="none"/>')
        marks = (place(one["radius"], one[name]).split(",") for one in found)
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in marks]
        y = _TOP + 14 + 18 * row
        parts.append(f'<circle cx="{_LEFT + _WIDTH + 20}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(text(_LEFT + _WIDTH + 30, y, "start", name))
    below = _TOP + _HEIGHT + 18
    parts += [text(_LEFT - 6, _TOP + 4, "end", "100 %"), text(_LEFT - 6, _TOP + _HEIGHT, "end", "0 %")]
    parts += [text(_LEFT, below, "middle", "0"), text(_LEFT + _WIDTH, below, "middle", f"{last:.3g}")]
    parts += [text(_LEFT + _WIDTH / 2, below, "middle", "radius"), text(_LEFT + _WIDTH / 2, 18, "middle", "accuracy")]
    size = f"{_LEFT + _WIDTH + 110} {below + 14}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="13">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"
