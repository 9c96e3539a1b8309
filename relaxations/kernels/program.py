"""What a tile sweep has to do: the steps from one value back to the network's input, and where coefficients are kept.

Only networks of linear layers, convolutions, scalar ops, additions and changes of shape have a program; the steps of
anything else are taken one whole layer at a time (`verif.bounds.sweep`).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from graphs import Graph
from graphs.ir import INPUT, Node
from graphs.ops import OPS, Kind

MAPS = ("conv", "avg_pool", "conv_transpose", "gather")  # between maps; pooling is a convolution with equal weights
Geometry = tuple[int, int, int]  # channels, height, width; a flat value is a map of one pixel


class StepKind(enum.IntEnum):
    """As in native/tiles.hpp."""

    LINEAR = 0
    CONVOLUTION = 1
    RELAX = 2
    SHIFT = 3
    COPY = 4
    TRANSPOSED = 5
    GATHER = 6


KINDS = {
    "linear": StepKind.LINEAR,
    "conv": StepKind.CONVOLUTION,
    "avg_pool": StepKind.CONVOLUTION,
    "conv_transpose": StepKind.TRANSPOSED,
    "gather": StepKind.GATHER,
}


@dataclass(frozen=True)
class Slot:
    """Coefficients of one value; `scalar` is the scalar node that makes it, whose lines say which entries count."""

    geometry: Geometry
    scalar: str | None
    offset: int = 0  # of its coefficients in the arena, in vectors
    kept: int = 0  # of its values and, for a scalar node, of what its slopes' optimisation keeps

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.geometry)


@dataclass(frozen=True)
class Step:
    """Rows on slot `source` become rows on slot `target` through a node; `sign` -1 for the second operand of sub."""

    kind: StepKind
    source: int
    target: int
    node: str
    sign: int = 1


@dataclass(frozen=True)
class Program:
    """Steps in the order of a backward sweep from slot `at` to slot `input`.

    `arena` and `kept`: vectors of memory that a tile needs, without and with what the optimisation of slopes keeps.
    """

    slots: tuple[Slot, ...]
    steps: tuple[Step, ...]
    at: int
    input: int
    arena: int
    kept: int

    @property
    def scalars(self) -> tuple[str, ...]:
        """The scalar nodes whose lines the program reads."""
        return tuple(slot.scalar for slot in self.slots if slot.scalar is not None)


def compile_sweep(graph: Graph, at: str) -> Program | None:
    """The program of sweeps from node `at`; None where a node on the way has no step."""
    behind = _ancestors(graph, at)
    if any(not _supported(graph, node) for node in behind):
        return None
    geometry = _geometries(graph, behind)
    return _Compiler(graph, behind, geometry).run(at) if geometry is not None else None


def _ancestors(graph: Graph, at: str) -> list[Node]:
    """The nodes that `at` is computed from, itself included, last first."""
    wanted = {at}
    found = []
    for node in reversed(list(graph)):
        if node.name in wanted:
            found.append(node)
            wanted.update(node.inputs)
    return found


def _supported(graph: Graph, node: Node) -> bool:
    shapes = [graph[name].shape for name in node.inputs]
    match node.op:
        case "linear":
            rows, columns = graph.constants[node.params["weight"]].shape
            return node.size == rows and graph[node.inputs[0]].size == columns
        case "conv" | "conv_transpose":
            plain = len(node.attrs["stride"]) <= 2 and node.attrs.get("groups", 1) == 1
            return plain and node.shape[0] == 1
        case "avg_pool":
            counts = node.attrs.get("count_include_pad", True) or not any(node.attrs["padding"])
            return len(node.attrs["stride"]) <= 2 and node.shape[0] == 1 and counts
        case "gather":
            along = node.attrs["axis"] >= 2 and len(node.shape) == len(shapes[0])
            return along and len(node.shape) in (3, 4) and node.shape[0] == 1
        case "add" | "sub" | "shift" | "scale":
            return all(shape == node.shape for shape in shapes)
        case "reshape" | "neg" | "input":
            return True
    return OPS[node.op].kind is Kind.SCALAR


def _geometries(graph: Graph, behind: Sequence[Node]) -> dict[str, Geometry] | None:
    """One geometry for each value; the same on both sides of a node that keeps positions. None where they disagree."""
    parent = {node.name: node.name for node in behind}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in behind:
        if node.op not in ("linear", *MAPS, INPUT):
            for source in node.inputs:
                parent[find(source)] = find(node.name)
    maps: dict[str, set[Geometry]] = {}
    for node in behind:
        if node.op in MAPS:
            for name in (node.name, *node.inputs):
                maps.setdefault(find(name), set()).add(_map(graph[name].shape))
    if any(len(found) > 1 for found in maps.values()):
        return None
    return {node.name: next(iter(maps.get(find(node.name), {(node.size, 1, 1)}))) for node in behind}


def _map(shape: Sequence[int]) -> Geometry:
    return (shape[1], 1, shape[2]) if len(shape) == 3 else (shape[1], shape[2], shape[3])


class _Compiler:
    def __init__(self, graph: Graph, behind: Sequence[Node], geometry: dict[str, Geometry]) -> None:
        self.graph, self.behind, self.geometry = graph, behind, geometry
        self.slots: list[Slot] = []
        self.steps: list[Step] = []
        self.slot_of: dict[str, int] = {}
        self.uses: dict[str, int] = {}
        for node in behind:
            if node.op != "reshape":
                for name in node.inputs:
                    home = self.home(name)
                    self.uses[home] = self.uses.get(home, 0) + 1

    def run(self, at: str) -> Program:
        start = self.slot(self.home(at))
        for node in self.behind:
            if node.name in self.slot_of and node.op != INPUT:
                self.visit(node)
        last = self.slot_of.get(self.home(self.graph.inputs[0]))
        if last is None:
            last = self.slot(self.graph.inputs[0])
        slots, arena = _arrange(self.slots, self.steps, start, last)
        kept = arena
        for i, slot in enumerate(slots):
            slots[i] = replace(slot, kept=kept)
            kept += slot.size * (5 if slot.scalar is not None else 1)
        return Program(tuple(slots), tuple(self.steps), start, last, arena, kept)

    def home(self, name: str) -> str:
        """The value itself, behind all changes of shape."""
        while self.graph[name].op == "reshape":
            name = self.graph[name].inputs[0]
        return name

    def slot(self, home: str) -> int:
        if home not in self.slot_of:
            scalar = self.graph[home].op != INPUT and OPS[self.graph[home].op].kind is Kind.SCALAR
            geometry = self.geometry.get(home, (self.graph[home].size, 1, 1))
            self.slots.append(Slot(geometry, home if scalar else None))
            self.slot_of[home] = len(self.slots) - 1
        return self.slot_of[home]

    def visit(self, node: Node) -> None:
        source = self.slot_of[node.name]
        match node.op:
            case op if op in KINDS:
                self.steps.append(Step(KINDS[op], source, self.slot(self.home(node.inputs[0])), node.name))
            case "add" | "sub":
                for name, sign in zip(node.inputs, (1, -1 if node.op == "sub" else 1), strict=True):
                    self.steps.append(Step(StepKind.COPY, source, self.slot(self.home(name)), node.name, sign))
            case "scale" | "neg":
                self.steps.append(Step(StepKind.COPY, source, self.slot(self.home(node.inputs[0])), node.name))
            case _:
                kind = StepKind.SHIFT if node.op == "shift" else StepKind.RELAX
                self.steps.append(Step(kind, source, source, node.name))
                self.stay(node, source)

    def stay(self, node: Node, source: int) -> None:
        """Leave the rows where they are for the node's input, unless others add to them or other lines come next."""
        home = self.home(node.inputs[0])
        scalar = self.graph[home].op != INPUT and OPS[self.graph[home].op].kind is Kind.SCALAR
        if self.uses[home] == 1 and not scalar:
            self.slot_of[home] = source
        else:
            self.steps.append(Step(StepKind.COPY, source, self.slot(home), ""))


def _arrange(slots: Sequence[Slot], steps: Sequence[Step], start: int, last: int) -> tuple[list[Slot], int]:
    """Offsets in an arena where a slot's room is free again after its last step (first fit), and the arena's size."""
    ends = {start: -1, **{s: i for i, step in enumerate(steps) for s in (step.source, step.target)}, last: len(steps)}
    held: dict[int, tuple[int, int]] = {}
    offsets: dict[int, int] = {}
    arena = 0

    def room(size: int) -> int:
        at = 0
        for low, high in sorted(held.values()):
            if low - at >= size:
                break
            at = max(at, high)
        return at

    for s, when in _births(steps, start, last):
        for other in [o for o in held if ends[o] < when]:
            del held[other]
        offsets[s] = room(slots[s].size)
        held[s] = (offsets[s], offsets[s] + slots[s].size)
        arena = max(arena, held[s][1])
    return [replace(slot, offset=offsets[i]) for i, slot in enumerate(slots)], arena


def _births(steps: Sequence[Step], start: int, last: int) -> Iterator[tuple[int, int]]:
    """Each slot with the step that fills it first."""
    seen = {start}
    yield start, 0
    for i, step in enumerate(steps):
        if step.target not in seen:
            seen.add(step.target)
            yield step.target, i
    if last not in seen:
        yield last, len(steps)
