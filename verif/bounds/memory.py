"""Memory of bound passes: what a box and a row take, how much may be done at once under a limit, passes in slices.

The estimates are upper ones of what was measured (benchmarks/memory.py). Shape letters as in `sweep.py`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs import Graph
from relaxations import RULES
from relaxations.matmul import TRIPLES
from relaxations.scalar.curve import CurveRule
from relaxations.scalar.lines import STRETCHES
from relaxations.sets import InputSet
from verif.bounds.cost import SLOPE_FIELDS, is_affine, swept_values
from verif.bounds.engine import CHUNK_BYTES, FORWARD_INPUTS, Engine, Pass
from verif.bounds.structure import row_size
from verif.bounds.tiles import NO_ROUNDS, Rounds

UNKNOWN_RESIDENT = 400 << 20  # taken for the process's memory where the system does not tell
TEMPORARIES = 12  # numbers per entry of the widest value while one node is bounded
LISTED = 12  # bytes of positions per entry of a scalar node, beside its lines (relaxations/kernels/tiles.py)
ROW_BYTES = 64  # of positions and masks for an undecided entry, beside 8 numbers
ROW_COPIES = 8  # of a chunk's rows while they pass one node: both signs, product, windows and their positions
GRADIENT_COPIES = 4  # of a point's values while its gradient is computed
LEAST_CHUNK = 1 << 16
STATE_SHARE, STORE_SHARE, CHUNK_SHARE = 1 / 4, 1 / 8, 1 / 32  # of a limit; the rest is for what nobody counted


@dataclass(frozen=True)
class Ration:
    """How much a run holds at once: boxes in a pass, points in an evaluation, bytes of the rows of a chunk, of a pass
    over a batch of boxes, and of the open domains; `missing` bytes that even one box and one row need beyond the limit.
    """

    boxes: int = 4096
    points: int = 1 << 62
    chunk_bytes: int = CHUNK_BYTES
    state_bytes: int = 1 << 62
    store_bytes: int = 1 << 62
    missing: int = 0


UNLIMITED = Ration()


def box_bytes(graph: Graph, item: int, rows: int | None = None) -> int:
    """Bytes that one box takes in a pass: intervals, lines, forward slopes, lists of undecided entries, and `rows`
    (default: one for each output) with their slopes in the input.
    """
    values = sum(node.size for node in graph)
    bent = sum(node.size for node in graph if not is_affine(node))
    widest = max(node.size for node in graph)
    n, outputs = sum(graph[name].size for name in graph.inputs), graph[graph.outputs[0]].size
    count = outputs if rows is None else rows
    listed = sum(node.size * _lines(node.op) for node in graph if not is_affine(node))
    numbers = 2 * values + SLOPE_FIELDS * bent + listed + TEMPORARIES * widest + count * (3 * n + 2 * outputs)
    numbers += sum(_planes(graph, name) for name in graph.nodes)
    if n <= FORWARD_INPUTS:
        numbers += 2 * (n + 1) * (values + TEMPORARIES // 2 * widest)
    swept = max((graph[name].size for name in swept_values(graph, boxed=False)), default=0)
    return item * numbers + LISTED * bent + swept * (ROW_BYTES + 8 * item)


def _lines(op: str) -> int:
    """Numbers for an entry of a scalar node in a tile sweep's list (see relaxations/kernels/native/tiles.hpp)."""
    return 6 + 8 * STRETCHES if isinstance(RULES.get(op), CurveRule) else 6


def _planes(graph: Graph, name: str) -> int:
    """Numbers that a product of two variables keeps beside its value."""
    node = graph[name]
    if node.op != "matmul":
        return 4 * node.size * len(node.inputs) if not is_affine(node) else 0
    triples = node.size * graph[node.inputs[0]].shape[-1]
    return 4 * triples if triples <= TRIPLES else 0


def point_bytes(graph: Graph, item: int) -> int:
    """Bytes of one point's evaluation with its gradient."""
    return GRADIENT_COPIES * item * sum(node.size for node in graph)


def row_bytes(graph: Graph, at: str, item: int) -> int:
    """Bytes that the coefficients of one row on value `at` take at most on their way to the input."""
    return item * row_size(graph, at)


def ration(graph: Graph, limit: int, held: int, item: int) -> Ration:
    """What fits into `limit` bytes where the process already holds `held`; numbers of `item` bytes.

    At least one box, one point and one row: a run that needs more than the limit for these still runs.
    """
    room = max(0, limit - held)
    box, point = box_bytes(graph, item), point_bytes(graph, item)
    chunk = min(CHUNK_BYTES, max(LEAST_CHUNK, int(CHUNK_SHARE * room)))
    state = int(STATE_SHARE * room)
    missing = max(0, held + max(box, point) + ROW_COPIES * LEAST_CHUNK - limit)
    boxes = min(UNLIMITED.boxes, max(1, state // box))
    return Ration(boxes, max(1, state // point), chunk, max(1, state), int(STORE_SHARE * room), missing)


def resident() -> int:
    """Bytes of memory that this process holds now."""
    try:
        with open("/proc/self/statm", encoding="ascii") as source:
            return int(source.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return UNKNOWN_RESIDENT


def bound_in_slices(
    engine: Engine,
    region: InputSet,
    limit_bytes: int,
    backward: bool = True,
    *,
    rounds: Rounds = NO_ROUNDS,
    deadline: float = math.inf,
) -> Pass:
    """`Engine.bound` for as many boxes at once as fit into `limit_bytes`, at least one; the slices joined.

    The joined pass has no intervals and no relaxations: they are what would not fit.
    """
    item, count = region.box().lower.element_size(), len(region)
    step = max(1, min(count, limit_bytes // box_bytes(engine.graph, item)))
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, count, step):
        part = region.take(torch.arange(first, min(first + step, count), device=region.box().lower.device))
        found = engine.bound(part, backward=backward, rounds=rounds, deadline=deadline)
        parts.append((found.lower, found.slopes, found.bias))
    lower, slopes, bias = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    return Pass(lower, slopes, bias, {}, {})
