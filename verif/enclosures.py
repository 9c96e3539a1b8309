"""Values at points in float64, and a bound on how far the real ones are from each.

By induction over nodes, u the unit roundoff, x and y as computed and E what they are off by:

    y = W x + b           E_y = |W| E_x + gamma(n) (|W| (|x| + E_x) + |b|)
    y = bent(x), max      E_y = E_x times the steepest slope, and the rounding of a slope; 0 where x < -E_x becomes 0
    y = x1 x2, x1 / x2    E_y from the steepest slopes over all x within E, and gamma of the sizes
    other ops             the interval of f over [x - E_x, x + E_x], rounding of the math library included

Integers without error stay so in sums and products of two, so that comparisons of counts and positions are exact. A
jump within E of a value makes an interval of it that holds both sides. Values are float64, errors float32, which is
faster: sums of sizes lose a share of themselves, gamma in float32, which is given back, and what underflows.
Shape letters: P points, n inputs, N one node's shape, M outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT, Node
from graphs.ops import OPS, Kind
from relaxations import RULES, Call, Interval
from relaxations.scalar.rule import ScalarRule
from verif.carries import LARGER, PRODUCTS, Carry, carry
from verif.deployed import EXACT, OWN, products
from verif.roundoff import BENT, LEAST, UNIT, absolute, gamma

FINE, COARSE = torch.float64, torch.float32
U = UNIT[FINE]
SUMS = {"add", "sub", "neg", "shift", "scale", "mul"}
LARGEST = 2.0**26  # integers up to which products of two are exact
TINY = 2.0**10 * LEAST[COARSE]  # more than a few results that underflow
MORE = 1 + 2.0**-18  # a few roundings of float32


def unknown_ops(graph: Graph) -> tuple[str, ...]:
    """Ops that nothing is known of here, each once."""
    return tuple(dict.fromkeys(node.op for node in graph if node.op != INPUT and not _known(node)))


def _known(node: Node) -> bool:
    affine = OPS[node.op].kind is Kind.AFFINE and node.op != "transposed"
    return affine or node.op in BENT | LARGER | PRODUCTS | {"arg_max"} or isinstance(RULES.get(node.op), ScalarRule)


def enclosed(graphs: tuple[Graph, Graph], points: Tensor, within: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (P, M) of a graph without unknown ops at points (P, n), float64, and what the real ones are off by at
    most, where the real inputs are by `within` (P, n); inf where nothing is known. `graphs`: in float32 and in float64.
    """
    single, double = graphs
    values, errors = {double.inputs[0]: points}, {double.inputs[0]: _up(within)}
    left = {name: len(nodes) for name, nodes in double.consumers().items()}
    for node in double:
        if node.op == INPUT:
            continue
        held, before = [values[name] for name in node.inputs], [errors[name] for name in node.inputs]
        at = _At(Call.of(double, node), Call.of(single, node), held, before)
        values[node.name], errors[node.name] = at.result()
        for name in set(node.inputs):
            left[name] -= 1
            if not left[name] and name not in double.outputs:
                del values[name], errors[name]
    value, error = (of[double.outputs[0]].reshape(len(points), -1) for of in (values, errors))
    return value, error.double().nan_to_num(nan=math.inf)


def _up(error: Tensor) -> Tensor:
    """To float32, no less than it is."""
    return torch.where(error == 0, 0.0, MORE * error + TINY).float()


@dataclass(frozen=True)
class _At:
    """One node: its op in float64, and in float32 for errors; values and errors (P, *N) of its inputs."""

    call: Call
    coarse: Call
    held: list[Tensor]
    before: list[Tensor]

    def result(self) -> tuple[Tensor, Tensor]:
        """Value and error, float64 and float32."""
        op = self.call.node.op
        if OPS[op].kind is not Kind.AFFINE and op not in BENT | LARGER | PRODUCTS:
            return self.between()
        value = self.call.forward(*self.held)
        if op in SUMS and self.integers():
            return value, torch.zeros_like(value, dtype=COARSE)
        if OPS[op].kind is Kind.AFFINE:
            return value, self.affine()
        return value, self.bent() if op in BENT else self.steep()

    def affine(self) -> Tensor:
        """Of W x + b."""
        if self.call.node.op in EXACT:
            return absolute(self.coarse, self.before)
        count = products(self.call, self.held)
        share, again = gamma(count, U), 1 + gamma(2 * count + 64, UNIT[COARSE])
        inner = [e + share * (x.float().abs() + e) + TINY for x, e in zip(self.held, self.before, strict=True)]
        offset = absolute(self.coarse, [x[:1] for x in self.before], only_offset=True)
        under = count * LEAST[COARSE] * (1 + sum(float(x.max()) for x in inner))
        return again * (absolute(self.coarse, inner) + share * offset) + under

    def bent(self) -> Tensor:
        """Of max(x, a x) or |x|."""
        (x,), (error,), call = self.held, self.before, self.call
        low = abs(-1.0 if call.node.op == "abs" else float({**call.attrs, **call.params}.get("slope", 0.0)))
        if not low:
            return torch.where(x < -MORE * error.double(), 0.0, error)
        return MORE * max(1.0, low) * (error + gamma(4, U) * (x.float().abs() + error) + TINY)

    def steep(self) -> Tensor:
        """Of products, quotients and maxima."""
        op = self.call.node.op
        if op in LARGER:
            return Carry(self.coarse, (), torch.zeros(())).through(self.before)
        if op == "mul":
            (x1, x2), (e1, e2) = (MORE * (x.float().abs() + TINY) for x in self.held), self.before
            return MORE * ((x1 + e1) * e2 + x2 * e1 + gamma(4, U) * (x1 * x2) + TINY * (1 + x1 + x2 + e1 + e2))
        wide = [error.double() for error in self.before]
        found = carry(self.call, [Interval(x - e, x + e) for x, e in zip(self.held, wide, strict=True)], 0.0)
        assert found is not None
        sizes = found.through([x.abs() + e for x, e in zip(self.held, wide, strict=True)])
        count = 16 + (self.held[0].shape[-1] if op == "matmul" else 0)
        return _up((1 + OWN) * (found.through(wide) + gamma(count, U) * sizes))

    def between(self) -> tuple[Tensor, Tensor]:
        """The middle and half the width of all that an op may be near to values."""
        x, error = self.held[0], self.before[0].double()
        outward = torch.where(error == 0, 0.0, MORE * error + 2 * U * x.abs())
        low, high = RULES[self.call.node.op].interval(self.call, [Interval(x - outward, x + outward)])
        value = (low + high) / 2
        return value, _up((high - value).maximum(value - low))

    def integers(self) -> bool:
        """Whether all numbers are integers without error, so small that sums and products of two are exact."""
        if any(bool(error.any()) for error in self.before):
            return False
        numbers = (*self.held, *self.call.params.values())
        return all(bool(((x == x.round()) & (x.abs() < LARGEST)).all()) for x in numbers)
