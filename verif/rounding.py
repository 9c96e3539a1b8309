"""What floating-point arithmetic may add to bounds: rounded terms of the last sum, and noise from inside the network.

Shape letters: B boxes, S = M atoms, P points, n inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from verif.bounds import Pass

TERMS = 128.0  # a float bound counts only beyond this many units in the last place of its terms
LANES = 8  # that sums are taken in at least: a long one is off by up to a unit for each term of a lane
NOISE = 64.0  # and beyond this many times the largest error of the network's own values
EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}
JUMPS = {"sign", "floor", "ceil", "round", "trunc", "step", "is_zero", "arg_max", "clarke", "top_k_softmax", "codebook"}


@dataclass(frozen=True)
class Allowance:
    """What bounds of the atoms, (M,), must exceed their thresholds by in float32 and in float64.

    Where `unproved` is empty the allowance of float64 is a bound, and with `trusted` that of float32 is one too; else
    it says why both are only measured, and without `trusted` float32 is too coarse to say anything. `nodes` are the
    errors of values inside the network, `crossing` what float64 may be off by there as far as anything is known of it.
    `beside`, where there is such, is what programs may return beside the real atoms, and allowed for too.
    """

    single: Tensor
    double: Tensor
    unproved: str
    trusted: bool = False
    nodes: Mapping[torch.dtype, Mapping[str, Tensor]] = field(default_factory=dict)
    beside: Tensor | None = None
    crossing: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def measured(
        cls,
        noise: Tensor,
        unproved: str,
        nodes: Mapping[torch.dtype, Mapping[str, Tensor]] | None = None,
        *,
        trusted: bool = True,
    ) -> Allowance:
        """From noise in float32; where float32 overflows, float64 has none that is known."""
        double = noise.nan_to_num(posinf=0.0) * (EPS[torch.float64] / EPS[torch.float32])
        return cls(noise, double, unproved, trusted, nodes or {})

    def inside(self, dtype: torch.dtype) -> Mapping[str, Tensor]:
        """By how much intervals of values are moved outward, by node; none where float32 proves nothing."""
        return self.nodes.get(dtype, {})

    def of(self, dtype: torch.dtype) -> Tensor:
        """In one precision."""
        held = self.single if dtype == torch.float32 else self.double
        return held if self.beside is None else held + self.beside

    def counts(self, dtype: torch.dtype) -> bool:
        """Whether a bound beyond the allowance refutes without another look."""
        return self.trusted or dtype == torch.float64


def jumps(graph: Graph) -> bool:
    """Whether a value may jump: then a rounding error of any size may decide it wrongly."""
    return any(node.op in JUMPS for node in graph)


def of_terms(result: Pass, lower: Tensor, upper: Tensor) -> Tensor:
    """What the last sum may have added to the bounds of boxes (B, n), (B, S)."""
    size = torch.maximum(lower.abs(), upper.abs()).to(result.slopes.dtype)
    count = max(TERMS, size.shape[1] / LANES)
    terms = (result.slopes.abs() @ size[..., None]).squeeze(-1) + result.bias.abs() + result.lower.abs()
    return torch.nan_to_num(count * EPS[terms.dtype] / 2 * terms, nan=math.inf, posinf=math.inf)


def noise(single: Graph, double: Graph, points: Tensor) -> Tensor:
    """What rounding inside the network may add to float32 bounds of the atoms, (M,) float64; inf where unknown.

    Measured at points (P, n): terms that cancel on their way (1e4 a - 1e4 b) leave no trace in the last sum. A bound
    that is wrong by rounding alone is tight, and a tight bound has the network's own slopes, hence its errors.
    """
    with torch.no_grad():
        return beyond(single(points.float())[0], double(points.float().double())[0])


def beyond(changed: Tensor, values: Tensor) -> Tensor:
    """What atoms (P, M) that rounding has changed say that bounds may be off by, (M,) float64; inf where unknown."""
    return torch.nan_to_num(NOISE * (changed.double() - values).abs().amax(0), nan=math.inf, posinf=math.inf)


def shaken(double: Graph, points: Tensor) -> Tensor:
    """Atoms at points (P, n) with each value changed by up to half a unit of float32 at random; jumps stay as they are.

    Where float32 and float64 agree by chance, as on a set of one point, `noise` sees nothing.
    """
    generator = torch.Generator(points.device).manual_seed(0)
    near = {double.inputs[0]: points.float().double()}
    left = {name: len(nodes) for name, nodes in double.consumers().items()}
    with torch.no_grad():
        held = _before_jumps(double, near[double.inputs[0]])
        for node in double:
            if node.op == INPUT:
                continue
            jumps = node.op in JUMPS
            moved = near[node.name] = double.apply(node, [(held if jumps else near)[name] for name in node.inputs])
            change = torch.rand(moved.shape, generator=generator, dtype=moved.dtype, device=moved.device) - 0.5
            if not jumps:
                near[node.name] = moved * (1 + EPS[torch.float32] * change)
            for name in set(node.inputs):
                left[name] -= 1
                if not left[name] and name not in double.outputs:
                    del near[name]
    return near[double.outputs[0]]


def _before_jumps(double: Graph, points: Tensor) -> Mapping[str, Tensor]:
    """Values in front of the ops that jump, unchanged."""
    wanted = {name for node in double if node.op in JUMPS for name in node.inputs}
    return double.evaluate({double.inputs[0]: points}, wanted) if wanted else {}
