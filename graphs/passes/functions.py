"""Functions of one number that a graph computes in several steps (GELU, SiLU, mish...).

Exports write these in many ways (factors of 1/2 before, after or inside). So the steps are not matched one by one: the
part of the graph between a value and its elementwise function is run on a grid, and compared with the known functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs.ir import INPUT, Graph, Node
from graphs.ops import OPS, Kind
from graphs.passes.rewrite import Sweep, rewrite

ARITHMETIC = {"mul", "div", "add", "sub", "scale", "shift", "square", "power", "neg"}
LARGEST = 12  # nodes in one function
FAR = [50.0, 100.0, 300.0, 1e3, 1e4, 1e6]  # where a difference that is small nearby would show

# by the nonlinear ops in it: the op it may be, and that op's own factor on the argument of the nonlinear one
KNOWN: dict[frozenset[str], tuple[str, float]] = {
    frozenset({"erf"}): ("gelu", math.sqrt(0.5)),
    frozenset({"sigmoid"}): ("silu", 1.0),
    frozenset({"tanh"}): ("gelu_tanh", 0.0),
    frozenset({"clip"}): ("hard_swish", 0.0),
    frozenset({"softplus", "tanh"}): ("mish", 0.0),
    frozenset({"exp", "log", "tanh"}): ("mish", 0.0),
    frozenset({"exp", "log"}): ("softplus", 0.0),
    frozenset({"abs"}): ("softsign", 0.0),
    frozenset({"sign", "abs", "log"}): ("signed_log", 0.0),
    frozenset({"log", "stable_exp"}): ("signed_log", 0.0),
    frozenset({"step", "where", "reciprocal"}): ("stable_exp", 0.0),
    frozenset({"step", "where", "reciprocal", "clip"}): ("stable_exp", 0.0),
}


@dataclass(frozen=True)
class Region:
    """The nodes, in order, that compute an elementwise function of one value."""

    source: str
    nodes: tuple[Node, ...]


def recognise_functions(graph: Graph, moving: frozenset[str] = frozenset()) -> Graph:
    """Each such part as one node (with a factor before or after it where there is one)."""
    double = any(graph[name].attrs.get("dtype") == "float64" for name in graph.inputs)
    tolerance = 1e-12 if double else 1e-7  # float32 models hold rounded constants

    def rule(sweep: Sweep, node: Node) -> str | None:
        region = _region(sweep, node) if node.op in ("mul", "div", "log", "where") else None
        found = None if region is None else _match(sweep, region, tolerance)
        return None if region is None or found is None else _emit(sweep, node, region.source, found)

    return rewrite(graph, rule, moving)


def _known(nodes: Iterable[Node]) -> tuple[str, float] | None:
    """What nodes may be, by their ops other than arithmetic (each once)."""
    nonlinear = [node.op for node in nodes if node.op not in ARITHMETIC]
    return KNOWN.get(frozenset(nonlinear)) if len(set(nonlinear)) == len(nonlinear) else None


def _elementwise(sweep: Sweep, node: Node) -> bool:
    """Whether an op acts on each entry alone, the same way on all."""
    known = node.op in {*ARITHMETIC, "where"} or (node.op != INPUT and OPS[node.op].kind is Kind.SCALAR)
    if not known or not sweep.fixed(node):
        return False
    return all(p.numel() == 1 for p in sweep.params(node).values()) and all(
        sweep.node(name).shape == node.shape for name in node.inputs
    )


def _region(sweep: Sweep, sink: Node) -> Region | None:
    """Walk back from the sink, always over the value computed last, until all paths meet in one value and the
    nonlinear ops passed are those of a known function.
    """
    order = {name: i for i, name in enumerate(sweep.builder.nodes)}
    nodes, frontier = [sink], set(sink.inputs)
    if not _elementwise(sweep, sink):
        return None
    while len(frontier) > 1 or _known(nodes) is None:
        node = sweep.node(max(frontier, key=order.__getitem__))
        if len(nodes) == LARGEST or not _elementwise(sweep, node):
            return None
        nodes.append(node)
        frontier = (frontier - {node.name}) | set(node.inputs)
    (source,) = frontier
    return Region(source, tuple(reversed(nodes)))


def _run(sweep: Sweep, region: Region, x: Tensor) -> dict[str, Tensor]:
    """Values of the region's nodes on a grid (G,) of values of its source; also what the nonlinear one reads."""
    values = {region.source: x}
    for node in region.nodes:
        params = {role: p.double().reshape(()) for role, p in sweep.params(node).items()}
        values[node.name] = OPS[node.op].forward(*(values[name] for name in node.inputs), **params, **node.attrs)
    return values


def _match(sweep: Sweep, region: Region, tolerance: float) -> tuple[str, float, float] | None:
    """(f, s, k) such that the region is k f(s x), or None."""
    known = _known(region.nodes)
    if known is None:
        return None
    (op, inner), far = known, torch.tensor(FAR if all(node.op != "exp" for node in region.nodes) else FAR[:3])
    grid = torch.cat([torch.linspace(-30, 30, 1201), torch.linspace(-1, 1, 101), far, -far]).double()
    values = _run(sweep, region, grid)
    y = values[region.nodes[-1].name]
    scale = 1.0
    if inner:
        reader = next(node for node in region.nodes if node.op not in ARITHMETIC)
        scale = float(_run(sweep, region, torch.ones(1).double())[reader.inputs[0]]) / inner
    if not math.isfinite(scale) or scale == 0.0:
        return None
    expected = OPS[op].forward(grid * scale)
    factor = float(y[1200] / expected[1200]) if scale > 0 else float(y[0] / expected[0])
    for k in (round(factor, 3), factor):  # exactly 1 or 2 where that is within rounding
        if bool(((y - k * expected).abs() <= tolerance * abs(k) * expected.abs().clamp(min=1.0)).all()):
            return op, scale, k
    return None


def _emit(sweep: Sweep, node: Node, source: str, found: tuple[str, float, float]) -> str:
    op, scale, factor = found
    add = sweep.builder.add
    if abs(scale - 1.0) > 1e-7:
        source = sweep.between("scale", source, node, params={"factor": torch.tensor(scale).double()})
    if factor == 1.0:
        return add(op, [source], name=node.name, origin=node.origin)
    source = sweep.between(op, source, node)
    return add("scale", [source], {"factor": torch.tensor(factor).double()}, name=node.name, origin=node.origin)
