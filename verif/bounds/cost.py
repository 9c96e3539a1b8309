"""What bound passes cost, counted from the graph: arithmetic and bytes of every node, before anything has run.

Counted is the work that the mathematics asks for; an implementation may do more. Two counts of bytes:
`least` must come from or go to memory however well the caches are used (constants, intervals and lines once in a pass,
the rows asked for and their result); `traffic` has every operand of every node read once and every result written once,
what a pass moves that takes one whole layer at a time and joins all work on a layer into one read and one write.
Shape letters as in `sweep.py`; "per box" counts are to be multiplied by B.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

from graphs import Graph
from graphs.ir import INPUT, Node
from graphs.ops import OPS, Kind
from relaxations.rule import RULES, Call, Interval, Relaxation
from relaxations.scalar.lines import ScalarLines
from verif.bounds.structure import CHOOSE, exact_nodes, window_behind

LINE = 3  # operations that a row's entry takes at a scalar node: slope, intercept, their sum
MINIMUM = 4  # and at the input: products with centre and radius, their sums
SLOPE_FIELDS = 4  # numbers per entry that two lines have


@dataclass(frozen=True)
class Work:
    """Arithmetic operations and bytes (see the module)."""

    flops: float = 0.0
    least: float = 0.0
    traffic: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.least + other.least, self.traffic + other.traffic)


@dataclass(frozen=True)
class PassCost:
    """The work of one pass over all boxes, node by node; in a backward pass that of all rows that visit the node."""

    method: str
    nodes: Mapping[str, Work]

    @property
    def total(self) -> Work:
        """The sum over the nodes."""
        return sum(self.nodes.values(), Work())


@dataclass(frozen=True)
class Load:
    """What a backward pass has to sweep: `rows` per box from each value (each row needs both bounds), `final` rows per
    box on the output (one bound), and `live`, the share of a value's entries that relax to more than a constant (the
    coefficients of all others are zero; default 1).
    """

    rows: Mapping[str, float]
    final: int
    live: Mapping[str, float] = field(default_factory=dict)


def swept_values(graph: Graph, *, boxed: bool = True) -> list[str]:
    """Values that rows may start from: inputs of nonlinear nodes, except those whose interval over a box is exact."""
    exact = exact_nodes(graph) if boxed else frozenset[str]()
    bent = (i for node in graph if not is_affine(node) for i in node.inputs)
    return [name for name in dict.fromkeys(bent) if name not in exact and graph[name].op != INPUT]


def all_rows(graph: Graph, *, final: int | None = None, boxed: bool = True) -> Load:
    """A row for every entry of every nonlinear node's input, and `final` rows (default: every output)."""
    rows = {name: graph[name].size for name in swept_values(graph, boxed=boxed)}
    return Load(rows, graph[graph.outputs[0]].size if final is None else final)


def undecided_rows(
    graph: Graph, intervals: Mapping[str, Interval], relaxations: Mapping[str, Relaxation], load: Load
) -> Load:
    """Of the rows of `load` those that a backward pass needed, from the intervals and relaxations that it found: the
    entries that its rules called undecided before they were tightened (a forward pass may have spared some of them),
    and of every value the share of entries with lines that are no constants.
    """
    rows: dict[str, float] = {}
    cheap = dict(intervals)
    for node in graph:
        if is_affine(node):
            if node.name in load.rows:
                cheap[node.name] = RULES[node.op].interval(Call.of(graph, node), [intervals[i] for i in node.inputs])
            continue
        masks = RULES[node.op].undecided(Call.of(graph, node), [cheap[i] for i in node.inputs])
        for source, mask in zip(node.inputs, masks, strict=True):
            if mask is not None and source in load.rows:
                rows[source] = max(rows.get(source, 0.0), float(mask.sum()) / len(mask))
    return Load(rows, load.final, _live(graph, relaxations))


def _live(graph: Graph, relaxations: Mapping[str, Relaxation]) -> dict[str, float]:
    """Shares of entries, for scalar nodes and for the values that only scalar nodes read."""
    live: dict[str, float] = {}
    for name, lines in relaxations.items():
        if isinstance(lines, ScalarLines):
            live[name] = float(((lines.lower_slope != 0) | (lines.upper_slope != 0)).double().mean())
    for name, readers in graph.consumers().items():
        if readers and all(reader.name in live for reader in readers) and name not in live:
            live[name] = min(1.0, sum(live[reader.name] for reader in readers))
    return live


def interval_cost(graph: Graph, batch: int = 1, item: int = 4) -> PassCost:
    """One interval pass over `batch` boxes in numbers of `item` bytes: every node's function on two ends."""
    return PassCost("interval", {node.name: _columns(graph, node, 1, batch, item) for node in graph})


def forward_cost(graph: Graph, batch: int = 1, item: int = 4) -> PassCost:
    """One forward pass: for each input number a slope of either bound, and the biases."""
    count = 1 + sum(graph[name].size for name in graph.inputs)
    return PassCost("forward", {node.name: _columns(graph, node, count, batch, item) for node in graph})


def crown_cost(graph: Graph, batch: int = 1, load: Load | None = None, item: int = 4) -> PassCost:
    """Backward sweeps from every value of the load (default: `all_rows`), then from the output."""
    load = all_rows(graph) if load is None else load
    nodes = {node.name: Work(0, _held(graph, node, batch, item), 0) for node in graph}
    sweeps = [(name, rows, True) for name, rows in load.rows.items() if rows]
    for at, rows, both in [*sweeps, (graph.outputs[0], load.final, False)]:
        for name, work in _sweep(graph, at, both=both, live=load.live):
            nodes[name] += Work(batch * rows * work.flops, 0, batch * rows * work.traffic * item)
    ends = graph[graph.outputs[0]].size + sum(graph[name].size for name in graph.inputs)
    nodes[graph.outputs[0]] += Work(0, batch * load.final * ends * item, 0)
    return PassCost("crown", nodes)


def flops_per_entry(graph: Graph, node: Node) -> float:
    """Operations that one entry of a node takes in the forward direction."""
    weight = graph.constants[node.params["weight"]] if "weight" in node.params else None
    match node.op:
        case "linear":
            return 2 * (weight.shape[1] if weight is not None else 0)
        case "conv":
            return 2 * (weight[0].numel() if weight is not None else 0)
        case "conv_transpose":
            return 2 * graph[node.inputs[0]].size * (weight[0].numel() if weight is not None else 0) / node.size
        case "matmul_left":
            return 2 * (weight.shape[-1] if weight is not None else 0)
        case "matmul_right":
            return 2 * (weight.shape[-2] if weight is not None else 0)
        case "matmul":
            return 2 * graph[node.inputs[0]].shape[-1]
        case "avg_pool" | "max_pool":
            return float(prod(node.attrs["kernel"]))
    if node.op == INPUT or node.op in CHOOSE - {"scale"}:
        return 0
    return max(1.0, sum(graph[name].size for name in node.inputs) / max(1, node.size))


def is_affine(node: Node) -> bool:
    """Whether a node is an input or an affine op."""
    return node.op == INPUT or OPS[node.op].kind is Kind.AFFINE


def constants_size(graph: Graph, node: Node) -> int:
    """Numbers in a node's constants."""
    return sum(graph.constants[name].numel() for name in node.params.values())


def _columns(graph: Graph, node: Node, count: int, batch: int, item: int) -> Work:
    """A node on `count` pairs of columns; a product of two variables has four combinations of ends."""
    if node.op == INPUT:
        return Work()
    ends = 4 if OPS[node.op].kind is Kind.BILINEAR else 2
    numbers = 2 * count * batch * (node.size + sum(graph[name].size for name in node.inputs))
    moved = float(item * (constants_size(graph, node) + numbers))
    return Work(ends * count * batch * node.size * flops_per_entry(graph, node), moved, moved)


def _held(graph: Graph, node: Node, batch: int, item: int) -> float:
    """Bytes of a node's constants, and of its interval and its lines for every box."""
    lines = 0 if is_affine(node) else SLOPE_FIELDS
    return item * (constants_size(graph, node) + batch * (2 + lines) * node.size)


@dataclass(frozen=True)
class _Rows:
    """Rows on a value on their way: inside a window (height, width) of a map, or (None) whole; `unit`: still those that
    pick one entry each.
    """

    window: tuple[int, int] | None
    unit: bool

    def entries(self, node: Node, live: Mapping[str, float]) -> float:
        """Entries of one row that are not known to be zero."""
        if self.unit:
            return 0.0
        whole = node.size if self.window is None else prod(self.window) * node.shape[1]
        return min(whole, node.size) * live.get(node.name, 1.0)


def _sweep(graph: Graph, at: str, *, both: bool, live: Mapping[str, float]) -> Iterator[tuple[str, Work]]:
    """The work of one row from value `at` at every node on its way; `traffic` in numbers.

    With `both` the row and its negation share everything until the first nonlinear node, and the row picks one entry.
    """
    held = {at: _Rows((1, 1) if both else None, both)}
    signs = 1
    for name in reversed(list(graph.nodes)):
        if name not in held:
            continue
        node, rows = graph[name], held[name]
        if node.op == INPUT:
            count = rows.entries(node, live)
            yield name, Work((1 + both) * MINIMUM * count, 0, (1 + both) * count)
            continue
        if both and not is_affine(node):
            signs = 2
        for source in node.inputs:
            behind = _behind(graph, node, graph[source], rows)
            held[source] = _joined(held.get(source, behind), behind)
        yield name, _pull(graph, node, held, live, signs)


def _behind(graph: Graph, node: Node, source: Node, rows: _Rows) -> _Rows:
    """Rows on an input of a node; unit rows stay so where the node moves no entry."""
    window = window_behind(graph, node, source, rows.window)
    return _Rows(window, rows.unit and node.op in ("reshape", "shift", "add") and node.size == source.size)


def _joined(held: _Rows, more: _Rows) -> _Rows:
    if held.window is None or more.window is None:
        return _Rows(None, held.unit and more.unit)
    window = max(held.window[0], more.window[0]), max(held.window[1], more.window[1])
    return _Rows(window, held.unit and more.unit)


def _pull(graph: Graph, node: Node, held: Mapping[str, _Rows], live: Mapping[str, float], signs: int) -> Work:
    """One row through one node. Unit rows become rows of the weight, which costs only writing them."""
    count = held[node.name].entries(node, live)
    behind = sum(held[name].entries(graph[name], live) for name in node.inputs)
    traffic = signs * (count + behind)
    if held[node.name].unit and is_affine(node):
        return Work(0, 0, traffic)
    if not is_affine(node):
        count = max(count, float(held[node.name].unit))
        if OPS[node.op].kind is Kind.SCALAR:
            return Work(signs * LINE * count, 0, traffic)
        return Work(signs * len(node.inputs) * count * flops_per_entry(graph, node), 0, traffic)
    share = min((live.get(name, 1.0) for name in node.inputs), default=1.0)
    return Work(signs * count * flops_per_entry(graph, node) * share, 0, traffic)
