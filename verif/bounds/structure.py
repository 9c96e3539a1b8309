"""What the shape of a graph says about bounds before any number is known."""

from __future__ import annotations

from math import prod

from graphs import Graph
from graphs.ir import INPUT, Node
from graphs.ops import OPS, Kind
from relaxations.window_pulls import WORTHWHILE, transposed

KEEP = {"reshape", "transpose", "shift", "neg", "slice"}  # one input entry each, none used twice
ENTRYWISE = {"add", "sub", "neg", "scale", "shift", "mul", "chain", "smooth_chain"}
CHOOSE = KEEP | {"scale", "gather", "pick", "pad", "expand", "tile", "concat", "scatter", "select"}  # one entry each
KEPT = {"add", "scale", "shift", "gather"}  # whose inputs' windows are no larger


def exact_nodes(graph: Graph) -> frozenset[str]:
    """Nodes whose interval over a *box* of inputs is exact, entry by entry: no backward sweep can improve it.

    True while every entry depends on one input entry ("independent"), and for one linear map of independent entries.
    """
    independent: set[str] = set()
    exact: set[str] = set()
    for node in graph:
        if node.op == INPUT:
            independent.add(node.name)
            exact.add(node.name)
            continue
        alone = len(node.inputs) == 1 and node.inputs[0] in independent
        if _single(node) and alone and (node.op in KEEP or OPS[node.op].kind is Kind.SCALAR or _same_size(graph, node)):
            independent.add(node.name)
        if (_single(node) and all(i in exact for i in node.inputs)) or (OPS[node.op].kind is Kind.AFFINE and alone):
            exact.add(node.name)
    return frozenset(exact)


def _single(node: Node) -> bool:
    """Whether every output entry is a function of one input entry."""
    return node.op in CHOOSE or OPS[node.op].kind is Kind.SCALAR


def _same_size(graph: Graph, node: Node) -> bool:
    return node.op == "scale" and node.size == graph[node.inputs[0]].size


def row_size(graph: Graph, at: str) -> int:
    """Numbers that one row on node `at` takes at most on its way to the input: windows on feature maps where they are
    worthwhile (see relaxations/windows.py), whole values elsewhere.
    """
    sizes: dict[str, tuple[int, int] | None] = {at: (1, 1)}  # a window's size; None: the whole value
    most = 1
    for name in reversed(list(graph.nodes)):
        if name not in sizes:
            continue
        node, size = graph[name], sizes[name]
        most = max(most, node.size if size is None else size[0] * size[1] * _channels(node))
        for source in node.inputs:
            back = window_behind(graph, node, graph[source], size)
            held = sizes.get(source, back)
            sizes[source] = None if back is None or held is None else (max(back[0], held[0]), max(back[1], held[1]))
    return most


def slab_size(graph: Graph, at: str) -> int:
    """Numbers that one unit row on node `at` takes at most where it stays a slab (see relaxations/slabs.py)."""
    shape = graph[at].shape
    fixed = {at: {a for a, n in enumerate(shape) if n > 1}}  # axes along which rows have one entry
    most = 1
    for name in reversed(list(graph.nodes)):
        if name not in fixed:
            continue
        node, own = graph[name], fixed[name]
        most = max(most, prod(n for a, n in enumerate(node.shape) if a not in own))
        for source in node.inputs:
            back = _fixed_behind(node, graph[source].shape, own)
            fixed[source] = fixed.get(source, back) & back
    return most


def _fixed_behind(node: Node, shape: tuple[int, ...], own: set[int]) -> set[int]:
    """The axes of an input along which rows have one entry, as far as this is known without numbers."""
    if node.op == "linear":
        return own - {len(node.shape) - 1}
    if node.op == "reshape":
        after, before = ([a for a, n in enumerate(sizes) if n > 1] for sizes in (shape, node.shape))
        same = [shape[a] for a in after] == [node.shape[a] for a in before]
        return {a for a, b in zip(after, before, strict=True) if b in own} if same else set()
    entrywise = node.op in ENTRYWISE or OPS[node.op].kind is Kind.SCALAR
    return {a for a in own if shape[a] > 1} if entrywise and len(shape) == len(node.shape) else set()


def _channels(node: Node) -> int:
    return node.shape[1] if len(node.shape) == 4 else node.size


def window_behind(graph: Graph, node: Node, source: Node, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Size of the window on `source` that a window of `size` on `node` reads; None: the whole value."""
    if size is None or len(node.shape) != 4 or len(source.shape) != 4:
        return None
    back = size
    if node.op in ("conv", "conv_transpose"):
        kernel, stride = graph.constants[node.params["weight"]].shape[2:], node.attrs["stride"]
        sides = zip(size, kernel, stride, strict=True)
        if node.op == "conv":
            height, width = ((n - 1) * s + k for n, k, s in sides)
        else:
            height, width = (transposed(n, k, s) for n, k, s in sides)
        back = height, width
    elif node.op not in KEPT and OPS[node.op].kind is not Kind.SCALAR:
        return None
    return back if back == size or back[0] * back[1] <= WORTHWHILE * source.shape[2] * source.shape[3] else None
