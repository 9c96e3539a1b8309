"""How far a program that runs the networks in floating point is from their real values (relaxations.md, 5.4).

The program computes each node as the model's file says, every sum of n products in any order, fused or not: off by at
most gamma(n) times the sum of their sizes. Let e be the difference of a node's values in the program and in real
arithmetic, h the real value, |h| <= H over the input set, and |e| <= E:

    y = W x + b       e_y = W e_x + d,    |d| <= gamma(n) (|W| (H_x + E_x) + |b|)
    y = bent(x)       e_y = a e_x + d,    a the slope of the side that both values are on, and d their rounding
                      where the two may be on both sides: a the middle of the slopes, |d| <= half their range times E_x
    y = floor(x)      |d| <= 1 where an integer is between the two, for E_x <= 1; no coefficients go further back
    y = f(x)          the same with the slopes of a curve f near the values, and ULPS of the program's own f
    y = x1 x2, max    |e_y| <= steepest slopes times E_x, no coefficients go further back

so that E follows node by node. What the atoms are off by is a linear function of all d: their coefficients from one
backward pass cancel as the network's own do, and |coefficients| . |d| is a second bound, usually the smaller one.
Not covered: programs that rewrite sums into others (Strassen, Winograd), or compute in less than their type inside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from graphs.ops import OPS, Kind
from relaxations import RULES, Call, Interval
from relaxations.scalar.rule import ScalarRule
from relaxations.sets import Box
from verif.bounds import Engine
from verif.carries import LARGER, PRODUCTS, carry, top
from verif.query import Network, Query
from verif.rounding import JUMPS
from verif.roundoff import BENT, COMBINED, UNIT, Errors, absolute, errors, gamma, linear_part
from verif.strategy import FEW_INPUTS

TYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
LARGEST = 0.99  # share of the largest number of a type that a sum may reach
EXACT = {"reshape", "transpose", "slice", "gather", "pick", "concat", "pad", "expand", "tile", "select", "neg"}
STEPS = {"floor", "ceil"}
ULPS = 8  # units in the last place of 1, or of larger values, that a program's curves may be off by
STEEP = 1e-6  # relative error of slopes of curves, in float64
OWN = 1e-9  # relative error of the backward pass's own sums, in float64
WORK = 500_000_000  # numbers of the backward passes of all entries of a value, beyond which none are made
NUMBERS = 20_000_000  # of all nodes, in one backward pass
MOST_BOXES = 16  # regions that are looked at one by one
# Below it a result may become 0 (the least normal number, where programs flush; of float16 the least one).
SMALLEST = {torch.float16: 2.0**-24, torch.float32: 2.0**-126, torch.float64: 2.0**-1022}


class Unbounded(Exception):
    """Why nothing is known of what a program returns."""


@dataclass(frozen=True)
class Deployed:
    """What the atoms (M,) may be off by in a program, float64; None where nothing is proved, and `why`."""

    errors: Tensor | None
    why: str = ""


@dataclass(frozen=True)
class Differences:
    """By node: |e| <= total and |d| <= own, and the slopes of bent nodes, each (B, *N)."""

    total: dict[str, Tensor] = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)
    slopes: dict[str, Tensor] = field(default_factory=dict)


def deployed(query: Query, deadline: float = math.inf) -> Deployed:
    """What programs in the query's arithmetic may return beside the atoms' real values, over all its regions."""
    try:
        return Deployed(Programs.of(query).errors(Box(*query.outer()), deadline))
    except Unbounded as unbounded:
        return Deployed(None, str(unbounded))


@dataclass(frozen=True)
class Programs:
    """All programs that compute a query's networks in a type: op for op as `graph` says, float64 here."""

    graph: Graph
    dtype: torch.dtype
    engine: Engine
    proved: Errors

    @classmethod
    def of(cls, query: Query) -> Programs:
        """Raises Unbounded where nothing is known of them."""
        from verif.compose import joined

        networks = [_literal(query, network) for network in query.networks]
        graph = joined(query.property, networks).to(torch.float64)
        proved = errors(graph, Box(*query.outer()), torch.float64)
        if proved.unknown:
            raise Unbounded(f"no proved error of a program's {', '.join(proved.unknown)}")
        return cls(graph, TYPES[query.property.arithmetic], Engine(graph, errors=proved.nodes), proved)

    def inside(self, boxes: Box, deadline: float = math.inf) -> Tensor:
        """Bounds (B, M) of what the atoms are off by, over each of boxes (B, n) within the regions."""
        held = self.engine.bound(boxes, deadline=deadline).intervals
        found = differences(self.graph, _outward(held, self.proved), self.dtype, deadline)
        out = self.graph.outputs[0]
        combine(self.graph, found, out, torch.ones_like(found.total[out], dtype=torch.bool), deadline)
        return found.total[out].flatten(1)

    def errors(self, boxes: Box, deadline: float = math.inf) -> Tensor:
        """The same over all of boxes (D, n) at once."""
        if len(boxes) > MOST_BOXES:
            boxes = Box(boxes.lower.amin(0, keepdim=True), boxes.upper.amax(0, keepdim=True))
        return torch.cat([self.inside(box, deadline) for box in _each(boxes)]).amax(0)

    @property
    def few(self) -> bool:
        """Whether inputs are so few that parts of boxes are worth a look of their own."""
        return self.graph[self.graph.inputs[0]].size <= FEW_INPUTS


def _literal(query: Query, network: Network) -> Network:
    """A network whose graph computes what its file says, op for op."""
    from graphs.onnx import load
    from graphs.onnx.literal import altered

    if network.source is None:
        return network
    if not isinstance(network.source, str | Path):
        raise Unbounded("what a torch module computes is not known op for op: export it to ONNX")
    path = Path(network.source)
    ops = altered(path)
    if ops:
        raise Unbounded(f"no proved error of a program's {', '.join(ops)}")
    variables = query.property.variables
    hidden = [one.origin for one in variables if one.kind == "hidden" and one.network == network.name]
    return Network(network.name, load(path, keep=hidden, simplified=False), path)


def _each(boxes: Box) -> list[Box]:
    return [Box(boxes.lower[i : i + 1], boxes.upper[i : i + 1]) for i in range(len(boxes))]


def _outward(held: Mapping[str, Interval], proved: Errors) -> dict[str, Interval]:
    pairs = ((name, interval, proved.nodes[name]) for name, interval in held.items())
    return {name: Interval(low - error, high + error) for name, (low, high), error in pairs}


def differences(
    graph: Graph, held: Mapping[str, Interval], dtype: torch.dtype, deadline: float = math.inf
) -> Differences:
    """What every node's values in a program of this precision may be off by, from sound intervals of the real ones."""
    found = Differences()
    total, own, slopes = found.total, found.own, found.slopes
    for node in graph:
        call = Call.of(graph, node)
        affine = node.op == INPUT or (OPS[node.op].kind is Kind.AFFINE and node.op != "transposed")
        for name in () if affine or not slopes else node.inputs:
            open_ = (held[name].lower < total[name]) & (held[name].upper > -total[name])
            if node.op not in BENT:
                few = graph[name].size * sum(graph[n].size for n in total) < WORK
                open_ = torch.full_like(open_, few)
            combine(graph, found, name, open_, deadline)
        before = [total[name] for name in node.inputs]
        sizes = [held[name].lower.abs().maximum(held[name].upper.abs()) + total[name] for name in node.inputs]
        if node.op == INPUT:
            own[node.name] = torch.full_like(held[node.name].lower, SMALLEST[dtype])
            total[node.name] = own[node.name]
        elif affine:
            own[node.name] = _sums(call, sizes, dtype)
            total[node.name] = absolute(call, before) + own[node.name]
        elif node.op in PRODUCTS | LARGER:
            ends = [held[name] for name in node.inputs]
            total[node.name] = own[node.name] = _passed(call, ends, before, dtype)
        else:
            bend = _bent if node.op in BENT else _curve
            slopes[node.name], own[node.name] = bend(call, held[node.inputs[0]], before[0], dtype)
            total[node.name] = slopes[node.name].abs() * before[0] + own[node.name]
        total[node.name] = total[node.name] * (1 + OWN)
        if not bool(total[node.name].isfinite().all()):
            raise Unbounded(f"values of {dtype} may overflow, or have no correct digit")
    return found


def _sums(call: Call, sizes: list[Tensor], dtype: torch.dtype) -> Tensor:
    """The rounding of an affine op on values of these sizes."""
    mass = absolute(call, sizes) + absolute(call, sizes, only_offset=True)
    if bool((mass > LARGEST * torch.finfo(dtype).max).any()):
        raise Unbounded(f"values of {dtype} may overflow")
    if call.node.op in EXACT:
        return torch.zeros_like(mass)
    count, least = products(call, sizes), SMALLEST[dtype]
    weights = {name: p for name, p in call.params.items() if p.is_floating_point() and p.dim()}
    flushed = {name: ((p != 0) & (p.abs() < least)).double() * least for name, p in weights.items()}
    if any(bool(p.any()) for p in flushed.values()):
        mass = mass + call.forward(*sizes, **flushed) / UNIT[dtype]
    return gamma(count, UNIT[dtype]) * mass + count * least


def products(call: Call, sizes: list[Tensor]) -> int:
    """The most products that one number of an affine op's value is the sum of, and a few roundings more: a bias, the
    factors of Gemm, a division that is a product here.
    """
    op, most = call.node.op, max(size[0].numel() for size in sizes)
    if op in COMBINED:
        shape = call.params["weight"].shape
        if op == "conv_transpose":
            return 8 + shape[0] * math.prod(shape[2:])
        return 8 + (math.prod(shape[1:]) if op == "conv" else shape[-2 if op == "matmul_right" else -1])
    if op == "avg_pool":
        return 8 + int(math.prod(call.attrs["kernel"]))
    return 8 if call.node.size == most and op != "cumsum" else 8 + most


def _bent(call: Call, held: Interval, before: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Slopes and own errors of max(x, a x), or of |x| (a = -1)."""
    low = -1.0 if call.node.op == "abs" else float({**call.attrs, **call.params}.get("slope", 0.0))
    above, below = held.lower - before >= 0, held.upper + before <= 0
    slope = torch.where(above, 1.0, torch.where(below, low, (1.0 + low) / 2))
    own = torch.where(above | below, 0.0, abs(1.0 - low) / 2 * before)
    if call.node.op == "leaky_relu":
        size = held.lower.abs().maximum(held.upper.abs()) + before
        own = own + gamma(4, UNIT[dtype]) * abs(low) * size + SMALLEST[dtype]
    return slope, own


def _curve(call: Call, held: Interval, before: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Slopes and own errors of a curve: of the middle of all its slopes near the values, and of the math library."""
    rule, ends = RULES[call.node.op], Interval(held.lower - before, held.upper + before)
    if call.node.op in STEPS:  # computed as it is; a jump in reach of an error is one that programs may make or not
        far = torch.full_like(before, math.inf)
        wide = Interval(torch.nextafter(ends.lower, -far), torch.nextafter(ends.upper, far))
        low, high = rule.interval(call, [wide])
        return torch.zeros_like(before), (high - low).minimum(before.ceil())
    slopes = rule.slopes(call, ends) if isinstance(rule, ScalarRule) and call.node.op not in JUMPS else None
    if slopes is None:
        raise Unbounded(f"no proved error of a program's {call.node.op}")
    low, high = slopes
    value = top(rule.interval(call, [ends])).clamp(min=1.0)
    if bool((value > LARGEST * torch.finfo(dtype).max).any()):
        raise Unbounded(f"values of {dtype} may overflow")
    own = (high - low) / 2 * before * (1 + STEEP) + STEEP * high.abs().maximum(low.abs()) * before
    return (low + high) / 2, own + 2 * ULPS * UNIT[dtype] * value + SMALLEST[dtype]


def _passed(call: Call, held: list[Interval], before: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Errors of products, quotients and maxima: of their inputs' errors, and of their own rounding."""
    ends = [Interval(x.lower - e, x.upper + e) for x, e in zip(held, before, strict=True)]
    found = carry(call, ends, 0.0)
    if found is None or call.node.op in JUMPS:
        raise Unbounded(f"no proved error of a program's {call.node.op}")
    if call.node.op in LARGER:
        return found.through(before)
    count = 8 + (held[0].lower.shape[-1] if call.node.op == "matmul" else 0)
    mass = found.through([top(x) for x in ends])
    if not bool((mass < LARGEST * torch.finfo(dtype).max).all()):
        raise Unbounded(f"values of {dtype} may overflow")
    return found.through(before) + gamma(count, UNIT[dtype]) * mass + count * SMALLEST[dtype]


def combine(graph: Graph, found: Differences, at: str, mask: Tensor, deadline: float) -> None:
    """Meet the total of some entries of a node, a mask (B, *N), with what all nodes' coefficients make of it."""
    most = max(1, NUMBERS // sum(graph[name].size for name in found.total))
    flat = found.total[at].flatten(1).clone()
    owners, entries = mask.flatten(1).nonzero(as_tuple=True)
    for rows in zip(owners.split(most), entries.split(most), strict=True):
        if not len(rows[0]) or time.monotonic() > deadline:
            break
        flat[rows] = flat[rows].minimum(_pulled(graph, found, at, *rows) * (1 + OWN) + OWN * flat[rows])
    found.total[at] = flat.reshape(found.total[at].shape)


def _pulled(graph: Graph, found: Differences, at: str, owner: Tensor, entry: Tensor) -> Tensor:
    """|coefficients| . |d| for entries (R,) of a node over the boxes of their owners (R,), by one backward pass."""
    count = len(entry)
    values: dict[str, Tensor] = {}
    leaves: dict[str, Tensor] = {}
    with torch.enable_grad():
        for name, own in found.own.items():
            node = graph[name]
            leaves[name] = leaf = torch.zeros(count, *own.shape[1:], dtype=torch.float64, requires_grad=True)
            before = [values[source] for source in node.inputs]
            if node.op == INPUT:
                values[name] = leaf
            elif name in found.slopes:
                values[name] = _of(found.slopes[name], owner) * before[0] + leaf
            elif node.op in PRODUCTS | LARGER:  # all of their errors are their own
                values[name] = leaf
            else:
                values[name] = linear_part(Call.of(graph, node), before) + leaf
        last = values[at].reshape(count, -1)[torch.arange(count), entry]
        grads = torch.autograd.grad(last.sum(), list(leaves.values()), allow_unused=True)
    total = torch.zeros(count, dtype=torch.float64)
    for name, grad in zip(leaves, grads, strict=True):
        if grad is not None:
            total += (grad.abs() * _of(found.own[name], owner)).flatten(1).sum(1)
    return total


def _of(values: Tensor, owner: Tensor) -> Tensor:
    return values if len(values) == 1 else values[owner]
