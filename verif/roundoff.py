"""What floating-point arithmetic may do to linear bounds: a priori, for all boxes inside a given one at once.

Model of arithmetic (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1): a sum of n products in any
order, fused or not, is off by at most gamma(n) = n u / (1 - n u) times the sum of their sizes, and by n LEAST where
products underflow.

Let M be the value of the absolute network: inputs |x|, weights |W|, biases |b|, and s |x| for a bent op of slopes up
to s (ReLU: 1). The coefficients A of a backward sweep of rows c obey |A| M <= |c| M at every node, and so do the values
themselves, |h| <= M. In forward mode each bent op adds an intercept of at most 2 M, which makes (1 + 2 d) M after d of
them; all terms below are multiplied by as much where it runs. Each rounding changes a coefficient or a bias by gamma
of its size, so that a bound is off by no more than gamma of a part of |c| M. A vector T for each node sums these
changes, so that a bound of rows c on the node's value is off by at most |c| T, whatever the lines' slopes and the box
(inside the given one) are:

    input             T = g(2n) 3M                          the least value over a box, by its centre and radius
    y = W x + b       T = |W| T_x + 3 g(k) (|W| M_x) + g(m) |b|, k terms per number both ways, m numbers in y
    y = bent(x)       T = s (T_x + 3 g(m) M_x), s = max(1, |a|)    two slopes, intercepts of at most 2 s M_x
    y = f(x), x1 x2   T = S T_x + 3 g(m) (S M_x + B)               slopes up to S, values and intercepts up to B

S and B of curves, products and maxima come from intervals of x over the given box (`verif.carries`); B is added to M.
Their rules move intervals and intercepts outward by the error of the math library (`ScalarRule.ulps`).

A coefficient of a value x that underflows changes the bound by up to LEAST M_x, however small the coefficient is to be:
the sum of these over all nodes so far is added to each T (rows c are units here, for it does not shrink with c).

Lines are sound on the intervals that they were made for, which are computed bounds themselves: the engine moves
their ends outward by T_x first (`Engine.errors`). Multipliers b of ReLU signs add |b| T at their neurons.

The deployed network is off from the real one by less than T of its own precision: a float evaluation of it sums the
same products, with the same masses (relaxations.md, 5.4; Szasz et al., arXiv 2506.01054).
Shape letters: B boxes, n inputs, N one node's shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from graphs.ops import OPS, Kind
from relaxations import Call, Interval
from relaxations.sets import Box
from verif.bounds.engine import FORWARD_INPUTS
from verif.carries import Carry, carry, known, ranges, widened
from verif.query import Query
from verif.rounding import JUMPS, Allowance, beyond, shaken

UNIT = {torch.float16: 2.0**-11, torch.float32: 2.0**-24, torch.float64: 2.0**-53}
LEAST = {torch.float16: 2.0**-24, torch.float32: 2.0**-126, torch.float64: 2.0**-1022}  # normal, for some CPUs flush
TINY = {torch.float16: 2.0**-10, torch.float32: 2.0**-90, torch.float64: 2.0**-900}
MARGIN = 1.01  # of the rounding of these numbers themselves, and of products of (1 + gamma)
USEFUL = 0.05  # share of the atoms' values that a proved error may take
CHEAP, DEAR = 0.3, 0.01  # and where boxes are cut: they can be cut small, or each takes seconds
COARSE = 0.25  # share of the atoms' values that a measured error in float32 may take to tell anything of bounds
SMALL = 512  # numbers in the largest layer up to which thousands of boxes are cut
MOST = 0.05  # gamma beyond which nothing is claimed
BENT = {"relu", "leaky_relu", "abs"}
COMBINED = {"linear", "matmul_right", "matmul_left", "conv", "conv_transpose"}


@dataclass(frozen=True)
class Errors:
    """What a bound of one entry may be off by, T (*N) by node, float64; `unknown` ops have no proved error."""

    nodes: Mapping[str, Tensor]
    unknown: tuple[str, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether the errors are bounds."""
        return not self.unknown


def gamma(count: float, unit: float) -> float:
    """The relative error of a sum of `count` products; inf where it says nothing."""
    return count * unit / (1 - count * unit) if count * unit < MOST else math.inf


def errors(graph: Graph, box: Box, dtype: torch.dtype) -> Errors:
    """Errors of bounds computed in `dtype` over any box inside of boxes (B, n), and of values where nothing jumps."""
    graph = graph.to(torch.float64)
    unit, tiny = UNIT[dtype], TINY[dtype]
    inputs = graph[graph.inputs[0]].size
    forward = inputs if inputs <= FORWARD_INPUTS else 0
    sizes: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    mass, under = 1.0, 0.0
    lost: dict[str, float] = {}
    readers = {node.name: 0 for node in graph}
    bends = any(node.op not in BENT and known(node.op) for node in graph)
    held = ranges(graph, box) if bends else {}
    for node in graph:
        for name in node.inputs:
            readers[name] += 1
    for node in graph:
        if node.op == INPUT:
            size = box.lower.abs().maximum(box.upper.abs()).double().amax(0, keepdim=True) + tiny
            error = 3 * gamma(2 * node.size + 16, unit) * size
        else:
            call = Call.of(graph, node)
            under += (
                mass * LEAST[dtype] * products(call) * sum(float(sizes[name].sum()) + 1 for name in call.node.inputs)
            )
            xs, ts = ([of[name] for name in node.inputs] for of in (sizes, found))
            rounds = gamma(node.size + len(graph.nodes) + 16, unit)
            if OPS[node.op].kind is Kind.AFFINE and node.op != "transposed":
                carried, offset = absolute(call, xs), absolute(call, xs, only_offset=True)
                error = absolute(call, ts) + mass * (3 * gamma(terms(call, xs), unit) * carried + rounds * offset)
                size = carried + offset
            elif node.op in BENT:
                steep = max(1.0, abs(float({**call.attrs, **call.params}.get("slope", 0.0))))
                error, size = steep * (ts[0] + 3 * mass * rounds * xs[0]), steep * xs[0]
                mass += 2.0 if forward else 0.0
            elif (passed := _carried(call, held, found, unit)) is not None:
                carried, level = passed.through(xs), passed.level
                rounds = gamma(sum(graph[name].size for name in node.inputs) + node.size + len(graph.nodes) + 64, unit)
                error = passed.through(ts) + 3 * mass * rounds * (carried + level)
                size = carried + level
                mass += 2.0 if forward else 0.0
            else:
                unknown.append(node.op)  # a guess, so that what is behind is not forgotten
                size = torch.full((1, *node.shape), max(1.0, *(float(x.max()) for x in xs)), dtype=torch.float64)
                error = gamma(64, unit) * size
            error = error + LEAST[dtype] * products(call) * (1 + float(sizes[graph.inputs[0]].sum()))
        sizes[node.name], lost[node.name] = size + tiny, under
        found[node.name] = MARGIN * (
            error + mass * gamma(2 * readers[node.name] + 8 + 6 * forward, unit) * (size + tiny)
        )
    return Errors(
        {name: MARGIN * lost[name] + error[0] for name, error in found.items()}, tuple(dict.fromkeys(unknown))
    )


def _carried(call: Call, held: Mapping[str, Interval], found: Mapping[str, Tensor], unit: float) -> Carry | None:
    """What an op that is neither affine nor bent passes on."""
    return carry(call, widened(held, call.node.inputs, found), 2 * unit) if known(call.node.op) else None


def allowance(query: Query, box: Box, single: Graph, double: Graph, points: Tensor) -> Allowance:
    """What bounds of a query's atoms must exceed their thresholds by, over boxes (D, n); measured at points (P, n)
    where nothing useful is proved.
    """
    with torch.no_grad():
        values = double(points.float().double())[0]
        seen = beyond(single(points.float())[0], values)
    fine = errors(double, box, torch.float64)
    out, unknown = double.outputs[0], fine.unknown
    jumps = {name for node in double if node.op in JUMPS for name in node.inputs}

    def measured(why: str) -> Allowance:
        found = {torch.float64: fine, torch.float32: errors(double, box, torch.float32) if jumps else fine}
        kept = {dtype: {n: t for n, t in f.nodes.items() if n in jumps} for dtype, f in found.items()}
        noise = seen.maximum(beyond(shaken(double, points), values))
        trusted = bool((noise <= COARSE * values.abs().amax(0)).all())
        return replace(Allowance.measured(noise, why, kept, trusted=trusted), crossing=fine.nodes)

    if unknown:
        return measured("no proved error of " + ", ".join(unknown))
    if points.device.type != "cpu" or query.property.center is not None:
        return measured("no proved error of balls, or on this device")
    clauses = query.property.clauses
    largest = torch.zeros(len(seen), dtype=torch.float64)
    largest.scatter_reduce_(0, clauses.atoms.clamp(min=0).flatten(), clauses.thresholds.abs().flatten(), "amax")
    least = 4 * UNIT[torch.float64] * largest
    rows, few = fine.nodes[out].flatten() + least, box.lower.shape[1] <= FORWARD_INPUTS
    cut = CHEAP if max(node.size for node in double) <= SMALL else DEAR
    scale = (cut if few else USEFUL) * values.abs().amax(0).maximum(largest)
    if not bool((rows <= scale).all()):
        return measured("the proved error is too large to be of use")
    part = 30_000 if few else 10  # float64 costs little where inputs are few
    nodes = {torch.float64: fine.nodes}
    if not bool((rows * (UNIT[torch.float32] / UNIT[torch.float64]) <= scale).all()):
        return Allowance(seen, rows, "", False, nodes)  # nothing in float32 is less than that many times as much
    coarse = errors(double, box, torch.float32).nodes
    rounded = coarse[out].flatten() + least
    if not bool((rounded <= scale / part).all()):
        return Allowance(seen, rows, "", False, nodes)
    return Allowance(rounded, rows, "", True, nodes | {torch.float32: coarse})


@dataclass(frozen=True)
class Unrounded:
    """Atoms (M,) that are values of one ReLU or input node with a sign: the ends of its interval bound them exactly."""

    name: str
    entry: Tensor
    positive: Tensor

    @classmethod
    def of(cls, graph: Graph) -> Unrounded | None:
        """None where the atoms are anything else."""
        last = graph[graph.outputs[0]]
        if last.op != "linear" or "bias" in last.params or graph[last.inputs[0]].op not in ("relu", INPUT):
            return None
        weight = graph.params(last)["weight"]
        if not bool(((weight.abs() == 1).sum(1) == 1).all()) or bool((weight.abs().sum(1) != 1).any()):
            return None
        entry = weight.abs().argmax(1)
        return cls(last.inputs[0], entry, weight.gather(1, entry[:, None])[:, 0] > 0)

    def lower(self, held: Interval) -> Tensor:
        """Lower bounds (B, M) of the atoms."""
        low, high = (end.flatten(1)[:, self.entry] for end in held)
        return torch.where(self.positive, low, -high)


def absolute(call: Call, xs: list[Tensor], *, only_offset: bool = False) -> Tensor:
    """The absolute linear part of an affine op on sizes (1, *N), or the absolute value of its offset."""
    xs = [torch.zeros_like(x) for x in xs] if only_offset else xs
    if call.node.op in ("sub", "neg"):
        return xs[0] + xs[1] if call.node.op == "sub" else xs[0]
    changed = {name: p.abs() for name, p in call.params.items() if p.is_floating_point()}
    for name in changed:
        if _is_offset(call, name):
            changed[name] = changed[name] if only_offset else torch.zeros_like(changed[name])
    value = {"value": abs(call.attrs["value"]) if only_offset else 0.0} if "value" in call.attrs else {}
    return call.forward(*xs, **changed, **value)


def products(call: Call) -> int:
    """As many as any coefficient or number of a node is made of, or more."""
    weight = call.params.get("weight")
    return 64 + call.node.size + (0 if weight is None else weight.numel())


def linear_part(call: Call, xs: list[Tensor]) -> Tensor:
    """An affine op without its offset."""
    zeroed = {name: torch.zeros_like(p) for name, p in call.params.items() if _is_offset(call, name)}
    return call.forward(*xs, **zeroed, **({"value": 0.0} if "value" in call.attrs else {}))


def _is_offset(call: Call, name: str) -> bool:
    return name in ("bias", "offset") or (call.node.op == "concat" and call.params[name].is_floating_point())


def terms(call: Call, xs: list[Tensor]) -> int:
    """The most products that one number of an affine op's value, or of its transpose, is the sum of, and a few more."""
    op, size = call.node.op, max(x[0].numel() for x in xs)
    if op in COMBINED:
        shape = call.params["weight"].shape
        count = shape[-1] + shape[-2] if op in ("linear", "matmul_right", "matmul_left") else 0
        return int(16 + (count or (shape[0] + shape[1]) * math.prod(shape[2:])))
    if op == "avg_pool":
        return int(16 + 2 * math.prod(call.attrs["kernel"]))
    return 16 + (0 if size == call.node.size and op not in ("gather", "pick", "cumsum") else max(size, call.node.size))
