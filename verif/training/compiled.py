"""A torch module whose bounds are tensors. Shape letters: B samples, S rows, M outputs, n input numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs import Graph
from graphs.exported import BatchNorm, Dropout, Imported, folded, import_module, read_program
from graphs.ir import INPUT
from graphs.ops import OPS, Kind
from relaxations import RULES, Call, Interval
from relaxations.sets import Box, InputSet
from verif.agreement import require_agreement
from verif.bounds import ROUNDS, Engine
from verif.errors import PropertyError
from verif.query import Network
from verif.training.parameters import Moving, Radii, of_layer
from verif.training.regions import check_labels

if TYPE_CHECKING:
    from torch.export import ExportedProgram

P = ParamSpec("P")
R = TypeVar("R")


def _precise(method: Callable[P, R]) -> Callable[P, R]:
    """Outside of automatic mixed precision, in which bounds would be rounded to three digits."""

    @wraps(method)
    def run(*args: P.args, **named: P.kwargs) -> R:
        like = args[0].clean if isinstance(args[0], Step) else args[1]
        assert isinstance(like, Tensor)
        with torch.autocast(like.device.type, enabled=False):
            return method(*args, **named)

    return run


Method = Literal["ibp", "crown-ibp", "crown", "alpha-crown"]


def compile(module: nn.Module | ExportedProgram | str | Path, example: Tensor | None = None) -> Compiled:
    """The module, ready for bounds: it shares the parameters, so that what an optimiser does shows in the next step.

    `example` is a batch (B, *shape) of inputs like those to come. Instead of a module it takes what torch.export made
    of one (of one sample, or with a dynamic batch), or its `.pt2` file; these need no example and stay in the mode in
    which they were exported. Torch unpickles such files: read none that you would not run.
    Raises GraphError where the module cannot be traced, the file cannot be read, or the graph's numbers are not the
    module's (G211), UnsupportedError (G210) where an operator has no bounds.
    """
    if not isinstance(module, nn.Module):
        return Compiled(*read_program(module, example))
    if example is None:
        raise TypeError("verif.compile needs an example of the module's input")
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    found = Compiled(module, import_module(module, example))
    require_agreement(module, found.graph(), example)
    return found


@dataclass(frozen=True)
class Compiled:
    """A module and its graph; `step` says what it is today."""

    module: nn.Module
    imported: Imported

    @_precise
    def step(self, x: Tensor, *, statistics: bool = True, radii: Radii | None = None) -> Step:
        """The network of this step, with the outputs at a clean batch x (B, *shape).

        In training mode batch normalisation takes the statistics of x, and (with `statistics`) moves its running ones
        once; dropout draws one mask for the batch. Parts in evaluation mode inside of a module in training stay so.

        `radii` by parameter: bounds then hold for all weights within them too (those of linear layers, convolutions and
        batch normalisation, whose statistics stay what they are). Raises PropertyError for others.
        """
        if tuple(x.shape[1:]) != self.imported.shape:
            raise PropertyError("P116", f"samples have the shape {list(x.shape[1:])}, not {list(self.imported.shape)}")
        graph, training = self.imported.graph, self.module.training
        constants = {**graph.constants, **{name: live.now() for name, live in self.imported.live.items()}}
        for node in graph:
            if node.op == "conv" and len(node.attrs["stride"]) == 2:  # oneDNN is up to twice as fast with this layout
                name = node.params["weight"]
                constants[name] = constants[name].contiguous(memory_format=torch.channels_last)
        if not (training and self.imported.today):
            return Step(self._evaluated(constants, radii), x)
        values = self._clean(x, constants, statistics=statistics)
        step = Step(self._with(constants, radii), x)
        step.__dict__["outputs"] = values[graph.outputs[0]]
        return step

    def _clean(self, x: Tensor, constants: dict[str, Tensor], *, statistics: bool) -> dict[str, Tensor]:
        """Values at the clean batch, and into `constants` those that it decides."""
        graph, today = self.imported.graph, dict[str, BatchNorm | Dropout]()
        for part in self.imported.today:
            if self.module.get_submodule(part.path).training:
                today[part.factor] = part
            else:
                constants |= part.constants()
        done = {part.offset for part in today.values() if isinstance(part, BatchNorm)}
        values = {graph.inputs[0]: x.flatten(1)}
        for node in graph:
            if node.op == INPUT:
                continue
            inputs = [values[name] for name in node.inputs]
            fresh = next((today[name] for name in node.params.values() if name in today), None)
            if isinstance(fresh, BatchNorm):  # the whole of it, though its shift is a node of its own
                values[node.name], made = fresh.normalised(inputs[0], move=statistics)
                constants |= made
                continue
            if node.params.get("offset") in done:
                values[node.name] = inputs[0]
                continue
            if fresh is not None:
                constants |= fresh.drawn(inputs[0])
            params = {role: constants[name] for role, name in node.params.items()}
            values[node.name] = OPS[node.op].forward(*inputs, **params, **node.attrs)
        return values

    def graph(self) -> Graph:
        """The network in evaluation mode, as a graph for every other engine."""
        constants = {**self.imported.graph.constants, **{name: x.now() for name, x in self.imported.live.items()}}
        return self._evaluated(constants)

    def network(self) -> Network:
        """The network in evaluation mode for a query; a module in that mode replays counterexamples itself."""
        graph, module = self.graph(), self.module
        graph = replace(graph, constants={name: constant.detach() for name, constant in graph.constants.items()})
        by_module = None if module.training else lambda *arrays: module(*(array[None] for array in arrays))
        return Network("", graph, by_module)

    def _evaluated(self, constants: dict[str, Tensor], radii: Radii | None = None) -> Graph:
        for part in self.imported.today:
            constants |= part.constants()
        return self._with(constants, radii)

    def _with(self, constants: dict[str, Tensor], radii: Radii | None) -> Graph:
        graph = replace(self.imported.graph, constants=constants)
        if radii:
            graph = Moving.of(self.module, self.imported, radii).widened(graph)
        return folded(graph, self.imported.today)


@dataclass(frozen=True)
class Step:
    """The network of one step and its clean batch (B, *shape); everything is differentiable."""

    graph: Graph
    clean: Tensor

    @cached_property
    def outputs(self) -> Tensor:
        """Outputs (B, M) at the clean batch."""
        return self.at(self.clean)

    @property
    def count(self) -> int:
        """M."""
        return self.graph[self.graph.outputs[0]].size

    @cached_property
    def engine(self) -> Engine:
        """The bounds of this network."""
        return Engine(self.graph)

    @_precise
    def at(self, points: Tensor) -> Tensor:
        """Outputs (B, M) at other points (B, *shape), with the constants of this step."""
        return self.graph(points.flatten(1))[0]

    @_precise
    def lower(self, region: InputSet, rows: Tensor, method: Method = "crown-ibp") -> Tensor:
        """Lower bounds (B, S) of rows . output over sets, rows (S, M) or (B, S, M).

        "ibp": intervals, but for the last affine layers, which the rows go through (Gowal et al. 2018). "crown-ibp":
        linear bounds of the rows over intervals inside (Zhang et al. 2020). "crown": linear bounds of everything.
        "alpha-crown": with optimised slopes, for evaluation: it has no gradient.
        """
        if method not in get_args(Method):
            raise ValueError(f"method is one of {', '.join(get_args(Method))}, not '{method}'")
        rows = rows.to(self.clean.dtype)
        if method == "ibp":
            return self._ibp(region, rows)
        if method == "alpha-crown":
            with torch.no_grad():
                return self.engine.bound(region, rows, rounds=ROUNDS).lower
        if method == "crown":
            return self.engine.bound(region, rows).lower
        return self.engine.bound(region, rows, backward=False, known=self.intervals(region)).lower

    @_precise
    def intervals(self, region: InputSet) -> Mapping[str, Interval]:
        """Interval bounds of every node; those of the last region are kept, for losses that ask for several bounds."""
        key = region, torch.is_grad_enabled()
        if not self._held or self._held[0][0] is not region or self._held[0][1] != key[1]:
            self._held[:] = [(*key, self.engine.interval(region))]
        found: Mapping[str, Interval] = self._held[0][2]
        return found

    @cached_property
    def _held(self) -> list[tuple[InputSet, bool, Mapping[str, Interval]]]:
        return []

    @torch.no_grad()
    def lost(self, region: InputSet) -> str:
        """What is not finite first, by the module's path: a parameter, or interval bounds."""
        for node, found in ((self.graph[name], found) for name, found in self.engine.interval(region).items()):
            place = f"{node.op} '{node.origin}'" if node.origin else f"'{node.name}'"
            for role, name in node.params.items():
                if not self.graph.constants[name].isfinite().all():
                    return f"the {role} of {place} is not finite"
            if not (found.lower.isfinite() & found.upper.isfinite()).all():
                return f"bounds are infinite from {place} on"
        return "every interval bound is finite"

    def outer(self, region: InputSet) -> tuple[Tensor, Tensor]:
        """Interval bounds (B, M) of the outputs."""
        found = self.intervals(region)[self.graph.outputs[0]]
        return found.lower, found.upper

    @_precise
    def margins(self, region: InputSet, labels: Tensor) -> Interval:
        """Interval bounds (B, M) of the label's logit minus each one (0 for its own), the last linear layer elided.

        The sums over |w_label - w_k| need no row for each class: less than half of the work of `lower`.
        """
        check_labels(labels, self.count, len(region))
        node = self.graph[self.graph.outputs[0]]
        while node.op == "reshape":
            node = self.graph[node.inputs[0]]
        if node.op != "linear" or node.size != self.graph.constants[node.params["weight"]].shape[0]:
            rows = F.one_hot(labels, self.count)[:, None] - torch.eye(self.count).to(labels.device)
            low, high = self._ibp(region, torch.cat([rows, -rows], 1).to(self.clean.dtype)).chunk(2, 1)
            return Interval(low, -high)
        params = self.graph.params(node)
        weight, bias = params["weight"], params.get("bias")
        lower, upper = (end.flatten(1) for end in self.intervals(region)[node.inputs[0]])
        middle = lower.lerp(upper, 0.5)
        center = F.linear(middle, weight, bias)
        center = center.gather(1, labels[:, None]) - center
        reach = ((weight[labels][:, None] - weight).abs() @ (upper - middle)[..., None])[..., 0]
        return Interval(center - reach, center + reach)

    def _ibp(self, region: InputSet, rows: Tensor) -> Tensor:
        found = self.intervals(region)
        name, shape = self.graph.outputs[0], self.graph[self.graph.outputs[0]].shape
        boxes = len(region)
        rows = rows if rows.dim() == 3 else rows.expand(boxes, *rows.shape)
        bias = rows.new_zeros(rows.shape[:2])
        rows = rows.reshape(*rows.shape[:2], *shape)
        while (node := self.graph[name]).op != INPUT:
            if OPS[node.op].kind is Kind.AFFINE and len(node.inputs) == 1:
                rows, more = self._pulled([name], found, rows)
            elif (likeness := of_layer(self.graph, node)) is not None:
                own, more = self._pulled([node.inputs[0]], found, rows)
                moved, least = self._pulled(likeness, found, rows)
                rows, more, node = own + moved, more + least, self.graph[likeness[-1]]
            else:
                break
            bias, name = bias + more, node.inputs[0]
        if self.graph[name].op == INPUT:
            return bias + region.minimize(rows.flatten(2))
        lower, upper = (end.flatten(1) for end in found[name])
        return bias + Box(lower, upper).minimize(rows.flatten(2))

    def _pulled(self, chain: Sequence[str], found: Mapping[str, Interval], rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows on the first of nodes, each the only input of the one before, as rows on what the last one reads."""
        bias = rows.new_zeros(rows.shape[:2])
        for node in (self.graph[name] for name in chain):
            (rows,), more = RULES[node.op].relax(Call.of(self.graph, node), [found[node.inputs[0]]]).pull(rows)
            bias = bias + more
        return rows, bias
