"""Draw docs/bounds.svg: what bounds a small function gets over two boxes, over four, over eight."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from graphs import Graph, GraphBuilder  # noqa: E402
from relaxations.sets import Box  # noqa: E402
from verif.bounds import Engine  # noqa: E402

LOW, HIGH = -2.0, 2.0
WIDTH, HEIGHT, GAP = 250, 190, 22
BOTTOM, TOP = -2.6, 3.0


def example() -> Graph:
    """y = sin(2 x) + x tanh(x) - 0.4: two bends and a product, a small picture of what a network does."""
    builder = GraphBuilder()
    x = builder.input("x", (1,), "float64")
    wave = builder.add("sin", [builder.add("scale", [x], {"factor": torch.tensor([2.0], dtype=torch.float64)})])
    product = builder.add("mul", [x, builder.add("tanh", [x])])
    both = builder.add("add", [wave, product])
    return builder.build([builder.add("shift", [both], {"offset": torch.tensor([-0.4], dtype=torch.float64)})])


def panel(graph: Graph, boxes: int, left: float) -> str:
    """The function, its interval over each box (grey) and its linear bounds (blue)."""
    ends = torch.linspace(LOW, HIGH, boxes + 1, dtype=torch.float64)
    box = Box(ends[:-1, None], ends[1:, None])
    engine = Engine(graph)
    rows = torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64).expand(boxes, 2, 1)
    found = engine.bound(box, rows)
    interval = engine.interval(box)[graph.outputs[0]]
    shapes = []
    for i in range(boxes):
        a, b = float(ends[i]), float(ends[i + 1])
        low, high = float(interval.lower[i, 0]), float(interval.upper[i, 0])
        shapes.append(polygon(left, [(a, low), (b, low), (b, high), (a, high)], "#d0d7de"))
        slope, bias = found.slopes[i, :, 0].tolist(), found.bias[i].tolist()
        lower = [(x, slope[0] * x + bias[0]) for x in (a, b)]
        upper = [(x, -slope[1] * x - bias[1]) for x in (b, a)]
        shapes.append(polygon(left, lower + upper, "#54aeff"))
    xs = torch.linspace(LOW, HIGH, 161, dtype=torch.float64)
    (ys,) = graph(xs[:, None])
    curve = " ".join(place(left, float(x), float(y)) for x, y in zip(xs, ys[:, 0], strict=True))
    shapes.append(f'<polyline points="{curve}" fill="none" stroke="#1f2328" stroke-width="1.6"/>')
    shapes.append(f'<text x="{left + WIDTH / 2:.0f}" y="{HEIGHT + 18}" text-anchor="middle">{boxes} boxes</text>')
    return "\n".join(shapes)


def polygon(left: float, points: list[tuple[float, float]], colour: str) -> str:
    """A filled shape in the function's coordinates."""
    return f'<polygon points="{" ".join(place(left, x, y) for x, y in points)}" fill="{colour}" fill-opacity="0.75"/>'


def place(left: float, x: float, y: float) -> str:
    """A point of the plane as a point of the picture."""
    right = left + WIDTH * (x - LOW) / (HIGH - LOW)
    down = HEIGHT * (TOP - min(max(y, BOTTOM), TOP)) / (TOP - BOTTOM)
    return f"{right:.1f},{down:.1f}"


def picture() -> str:
    """Three panels side by side."""
    graph = example()
    panels = [panel(graph, boxes, column * (WIDTH + GAP)) for column, boxes in enumerate((2, 4, 8))]
    size = f"{3 * WIDTH + 2 * GAP} {HEIGHT + 26}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="13">'
    white = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, white, *panels, "</svg>"]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "bounds.svg").write_text(picture(), encoding="utf-8")
