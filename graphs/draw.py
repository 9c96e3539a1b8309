"""A graph as a standalone SVG drawing: layers from top to bottom, one box per node, coloured by the kind of its op."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from graphs.ir import INPUT, Graph, Node
from graphs.ops import OPS

COLOURS = {  # fill and edge by kind of op
    "input": ("#eef2f7", "#64748b"),
    "affine": ("#e6f0fb", "#3b7dc4"),
    "scalar": ("#fdf0dc", "#c98a1b"),
    "bilinear": ("#f3e8fb", "#8a4fc0"),
    "custom": ("#fbe6e8", "#c4485a"),
}
CHARACTER, BOLD, LINE = 6.9, 8.0, 16.0  # widths of a character and height of a line, in pixels
GAP_X, GAP_Y, MARGIN = 26.0, 34.0, 24.0
LONGEST = 30  # characters of a name
SWEEPS = 6


@dataclass
class Box:
    """One place in a layer: a node, or where an edge passes through (then without text)."""

    name: str
    lines: tuple[str, ...] = ()
    x: float = 0.0
    y: float = 0.0
    height: float = 0.0

    @property
    def width(self) -> float:
        """In pixels."""
        if not self.lines:
            return 6.0
        title, *others = (len(line) for line in self.lines)
        return max(BOLD * title, CHARACTER * max(others, default=0)) + 20.0


Layers = list[list[Box]]
Links = dict[str, list[str]]


def svg(graph: Graph) -> str:
    """The drawing as the text of an SVG file."""
    layers, links = _layers(graph)
    _order(layers, links)
    _place(layers, links)
    boxes = {box.name: box for layer in layers for box in layer}
    right = max(box.x + box.width / 2 for box in boxes.values()) + MARGIN
    bottom = max(box.y + box.height for box in boxes.values()) + MARGIN
    body = [_edge(path, boxes) for path in _paths(graph, links)]
    body += [_box(boxes[node.name], node, node.name in graph.outputs) for node in graph]
    return "\n".join([*_head(right, bottom), *body, *_legend(graph, bottom), "</svg>", ""])


# ---- layout: layers by longest path, order by barycentres (Sugiyama), places by averages ----


def _layers(graph: Graph) -> tuple[Layers, Links]:
    """Boxes by layer, and for each box those above it. An edge over several layers passes through empty boxes."""
    import networkx as nx

    generations = nx.topological_generations(graph.networkx())
    depth = {name: layer for layer, names in enumerate(generations) for name in names}
    layers: Layers = [[] for _ in range(1 + max(depth.values()))]
    links: Links = {}
    for node in graph:
        layers[depth[node.name]].append(Box(node.name, _text(node)))
        links[node.name] = []
        for source in dict.fromkeys(node.inputs):
            above = source
            for layer in range(depth[source] + 1, depth[node.name]):
                passing = f"{source}\0{node.name}\0{layer}"
                layers[layer].append(Box(passing))
                links[passing], above = [above], passing
            links[node.name].append(above)
    return layers, links


def _neighbours(links: Links) -> Links:
    """For each box those below it."""
    below: Links = {name: [] for name in links}
    for name, above in links.items():
        for source in above:
            below[source].append(name)
    return below


def _order(layers: Layers, links: Links) -> None:
    """Sort each layer by the mean position of its neighbours, down and up in turn."""
    below = _neighbours(links)
    for sweep in range(SWEEPS):
        for layer in layers[1:] if sweep % 2 == 0 else layers[-2::-1]:
            table = links if sweep % 2 == 0 else below
            place = {box.name: i for row in layers for i, box in enumerate(row)}
            keys = {b.name: _mean((place[n] for n in table[b.name]), place[b.name]) for b in layer}
            layer.sort(key=lambda box: keys[box.name])


def _mean(values: Iterable[float], default: float) -> float:
    known = list(values)
    return sum(known) / len(known) if known else default


def _place(layers: Layers, links: Links) -> None:
    """Heights by layer; then every box moves towards its neighbours as far as those beside it let it."""
    y = MARGIN
    for layer in layers:
        height = LINE * max(len(box.lines) for box in layer) + 12.0
        for box in layer:
            box.y, box.height = y, height
        y += height + GAP_Y
        _pack(layer, [0.0] * len(layer))
    below, boxes = _neighbours(links), {box.name: box for layer in layers for box in layer}
    for sweep in range(2 * SWEEPS):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            table = links if sweep % 2 == 0 else below
            _pack(layer, [_mean((boxes[n].x for n in table[box.name]), box.x) for box in layer])
    left = min(box.x - box.width / 2 for box in boxes.values()) - MARGIN
    for box in boxes.values():
        box.x -= left


def _pack(layer: list[Box], wanted: list[float]) -> None:
    """Put boxes at the wanted centres as nearly as their widths allow: clusters that collide share their shift."""
    clusters: list[tuple[float, int, list[Box], list[float]]] = []
    for box, want in zip(layer, wanted, strict=True):
        members, offsets, shift, count = [box], [0.0], want, 1
        while clusters:
            before, size, others, theirs = clusters[-1]
            gap = (others[-1].width + members[0].width) / 2 + GAP_X
            step = theirs[-1] + gap
            if before + step <= shift:
                break
            clusters.pop()
            shift = (before * size + (shift - step) * count) / (size + count)
            members, offsets = [*others, *members], [*theirs, *(step + o for o in offsets)]
            count += size
        clusters.append((shift, count, members, offsets))
    for shift, _, members, offsets in clusters:
        for box, offset in zip(members, offsets, strict=True):
            box.x = shift + offset


# ---- drawing ----


def _text(node: Node) -> tuple[str, ...]:
    shape = " x ".join(str(n) for n in node.shape) or "scalar"
    title = node.op if node.op != INPUT else f"input {_short(node.name)}"
    named = node.origin if node.op != INPUT else str(node.attrs.get("dtype", ""))
    return tuple(line for line in (title, _short(named), shape) if line)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 3]}...{name[-(2 * LONGEST // 3 - 3) :]}"


def _kind(node: Node) -> str:
    return "input" if node.op == INPUT else OPS[node.op].kind.value


def _paths(graph: Graph, links: Links) -> Iterable[list[str]]:
    """Every edge as the boxes that it goes through, from the reader up to what it reads."""
    for node in graph:
        for above in links[node.name]:
            path = [node.name, above]
            while path[-1] not in graph.nodes:
                path += links[path[-1]]
            yield path


def _edge(path: list[str], boxes: dict[str, Box]) -> str:
    points = [boxes[name] for name in reversed(path)]
    x, y = points[0].x, points[0].y + points[0].height
    parts = [f"M{x:.1f} {y:.1f}"]
    for box in points[1:]:
        middle = (y + box.y) / 2
        parts.append(f"C{x:.1f} {middle:.1f} {box.x:.1f} {middle:.1f} {box.x:.1f} {box.y:.1f}")
        x, y = box.x, box.y
        if not box.lines:  # straight through the layer
            y += box.height
            parts.append(f"V{y:.1f}")
    return f'<path class="edge" d="{" ".join(parts)}" marker-end="url(#arrow)"/>'


def _box(box: Box, node: Node, is_output: bool) -> str:
    fill, edge = COLOURS[_kind(node)]
    x, y, strong = box.x - box.width / 2, box.y, 2.5 if is_output else 1.2
    lines = [
        f'<text x="{box.x:.1f}" y="{y + 6 + LINE * (i + 0.75):.1f}" class="line{min(i, 1)}">{escape(line)}</text>'
        for i, line in enumerate(box.lines)
    ]
    rectangle = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="6" '
        f'fill="{fill}" stroke="{edge}" stroke-width="{strong}"/>'
    )
    return f"<g><title>{escape(node.name)}</title>{rectangle}{''.join(lines)}</g>"


def _head(width: float, height: float) -> list[str]:
    width, height = max(width, 480.0), height + 30.0
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        "<style>text{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:11px;text-anchor:middle;fill:#475569}"
        ".line0{font-weight:bold;font-size:12px;fill:#0f172a}.edge{fill:none;stroke:#94a3b8;stroke-width:1.2}"
        ".key{text-anchor:start}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#94a3b8"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]


def _legend(graph: Graph, y: float) -> list[str]:
    """The kinds of op that occur; outputs have a thick border."""
    kinds = [kind for kind in COLOURS if any(_kind(node) == kind for node in graph)]
    items = []
    for i, kind in enumerate(kinds):
        fill, edge = COLOURS[kind]
        x = MARGIN + 90.0 * i
        items.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="12" height="12" rx="3" fill="{fill}" stroke="{edge}"/>')
        items.append(f'<text class="key" x="{x + 18:.0f}" y="{y + 10:.0f}">{kind}</text>')
    return items
