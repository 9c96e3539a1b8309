"""Random graphs of the ops that tile sweeps know, and what a sweep over them must be near to."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from graphs.ir import INPUT
from relaxations import RULES, Call, Interval, Relaxation
from relaxations.affine import AffineRelaxation
from relaxations.scalar.lines import ScalarLines
from relaxations.sets import Ball, Box, InputSet, Meet
from verif.bounds.sweep import Sweep

SCALARS = ("relu", "relu", "relu", "leaky_relu", "prelu", "abs", "sigmoid", "tanh", "sin", "clip", "softplus", "step")
REGIONS = ("box", "box", "ball 1", "ball 2", "ball inf", "meet")
Relaxations = dict[str, Relaxation]


class Random:
    """A random graph, node by node; everything follows from the seed and the scalar ops to choose from."""

    def __init__(self, seed: int, scalars: Sequence[str] = SCALARS) -> None:
        self.scalars = scalars
        self.draw = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.builder = GraphBuilder()
        self.values = [self.builder.input("x", (self.draw.randint(1, 30),))]

    def graph(self, steps: int) -> Graph:
        """A graph of that many random steps; its output is the last value."""
        makers = (self.linear, self.conv, self.conv, self.pool, self.scalar, self.scalar, self.join, self.entrywise)
        makers += (self.reshape, self.transposed, self.gathered)
        for _ in range(steps):
            made = self.draw.choice(makers)()
            if made is not None:
                self.values.append(made)
        return self.builder.build([self.values[-1]])

    def normal(self, *shape: int, fan_in: int = 1) -> Tensor:
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return drawn / math.sqrt(fan_in)

    def pick(self) -> str:
        """A value to go on from, most often a late one."""
        return self.draw.choice(self.values[-3:] if self.draw.random() < 0.7 else self.values)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.builder.nodes[name].shape

    def reshaped(self, name: str, shape: tuple[int, ...]) -> str:
        return name if self.shape(name) == shape else self.builder.add("reshape", [name], attrs={"shape": shape})

    def linear(self) -> str:
        source = self.pick()
        columns, rows = self.builder.nodes[source].size, self.draw.randint(1, 19)
        params = {"weight": self.normal(rows, columns, fan_in=columns)}
        if self.draw.random() < 0.7:
            params["bias"] = self.normal(rows)
        shape = (1, columns) if self.draw.random() < 0.2 else (columns,)
        return self.builder.add("linear", [self.reshaped(source, shape)], params)

    def reshape(self) -> str:
        return self.as_map(self.pick(), self.draw.choice((0, 1, 2)))

    def as_map(self, source: str, axes: int) -> str:
        """The value as a flat one or as a map of one or two axes, of random factors."""
        size = self.builder.nodes[source].size
        channels = self.draw.choice([c for c in range(1, size + 1) if size % c == 0 and c <= 5])
        area = size // channels
        height = self.draw.choice([h for h in range(1, area + 1) if area % h == 0])
        return self.reshaped(source, ((size,), (1, channels, area), (1, channels, height, area // height))[axes])

    def conv(self) -> str | None:
        """A convolution in one or two dimensions, of any stride, padding and dilation that fit."""
        source = self.pick()
        if len(self.shape(source)) < 3 or self.shape(source)[0] != 1:
            source = self.as_map(source, self.draw.choice((1, 2, 2)))
        _, channels, *space = self.shape(source)

        def each(*choices: int) -> tuple[int, ...]:
            return tuple(self.draw.choice(choices) for _ in space)

        kernel, stride, padding, dilation = each(1, 2, 3, 4), each(1, 1, 2, 3), each(0, 1, 2, 3), each(1, 1, 2)
        spans = zip(space, padding, dilation, kernel, strict=True)
        if any(n + 2 * p < d * (k - 1) + 1 for n, p, d, k in spans):
            return None
        rows = self.draw.randint(1, 6)
        params = {"weight": self.normal(rows, channels, *kernel, fan_in=channels * math.prod(kernel))}
        if self.draw.random() < 0.7:
            params["bias"] = self.normal(rows)
        attrs = {"stride": stride, "padding": padding, "dilation": dilation}
        made = self.builder.add("conv", [source], params, attrs)
        return made if self.builder.nodes[made].size <= 400 else None

    def transposed(self) -> str | None:
        """A transposed convolution, of any stride, padding and dilation; nothing reaches some of its rows."""
        source = self.as_map(self.pick(), self.draw.choice((1, 2, 2)))
        _, channels, *space = self.shape(source)

        def each(*choices: int) -> tuple[int, ...]:
            return tuple(self.draw.choice(choices) for _ in space)

        kernel, stride, padding, dilation = each(1, 2, 3, 4), each(1, 1, 2, 3), each(0, 0, 1, 2), each(1, 1, 2)
        more = tuple(self.draw.randint(0, s - 1) for s in stride)
        spans = zip(space, stride, padding, dilation, kernel, more, strict=True)
        if any(s * (n - 1) - 2 * p + d * (k - 1) + 1 + m < 1 for n, s, p, d, k, m in spans):
            return None
        rows = self.draw.randint(1, 6)
        params = {"weight": self.normal(channels, rows, *kernel, fan_in=channels * math.prod(kernel))}
        if self.draw.random() < 0.7:
            params["bias"] = self.normal(rows)
        attrs = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": more}
        made = self.builder.add("conv_transpose", [source], params, attrs)
        return made if self.builder.nodes[made].size <= 400 else None

    def gathered(self) -> str:
        """Positions along an axis of a map, in any order, some more than once: nearest up-sampling is of the kind."""
        source = self.as_map(self.pick(), self.draw.choice((1, 2, 2)))
        axis = self.draw.randrange(2, len(self.shape(source)))
        index = torch.randint(self.shape(source)[axis], (self.draw.randint(1, 6),), generator=self.generator)
        return self.builder.add("gather", [source], {"index": index}, {"axis": axis})

    def pool(self) -> str | None:
        """Average pooling of a map, of any window, stride and padding that fit."""
        maps = [name for name in self.values if len(self.shape(name)) > 2 and self.shape(name)[0] == 1]
        if not maps:
            return None
        source = self.draw.choice(maps)
        kernel = tuple(self.draw.randint(1, min(3, size)) for size in self.shape(source)[2:])
        stride = tuple(self.draw.randint(1, 3) for _ in kernel)
        padding = tuple(self.draw.randint(0, size // 2) for size in kernel)
        return self.builder.add("avg_pool", [source], attrs={"kernel": kernel, "stride": stride, "padding": padding})

    def scalar(self) -> str:
        op, source = self.draw.choice(self.scalars), self.pick()
        params, attrs = {}, {}
        if op == "leaky_relu":
            attrs = {"slope": self.draw.choice((0.1, -0.5, 2.0))}
        elif op == "prelu":
            params = {"slope": self.normal(*self.shape(source))}
        elif op == "clip":
            attrs = {"lower": -0.5, "upper": self.draw.choice((0.7, math.inf))}
        return self.builder.add(op, [source], params, attrs)

    def join(self) -> str:
        """A sum or difference of two values of one shape: of a value with itself, where there is no other."""
        first = self.pick()
        same = [name for name in self.values if self.shape(name) == self.shape(first)]
        return self.builder.add(self.draw.choice(("add", "add", "sub")), [first, self.draw.choice(same)])

    def entrywise(self) -> str:
        op, source = self.draw.choice(("scale", "shift", "neg")), self.pick()
        shape = self.shape(source)
        aligned = tuple(n if self.draw.random() < 0.6 else 1 for n in shape)
        shape = self.draw.choice((shape, aligned, ()))
        role = {"scale": "factor", "shift": "offset"}.get(op)
        return self.builder.add(op, [source], {role: self.normal(*shape)} if role else {})


def random_region(kind: str, size: int, boxes: int, seed: int) -> InputSet:
    """`boxes` random sets of points of `size` numbers, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    center = 2 * draw(boxes, size) - 1
    box = Box(center - draw(boxes, size), center + draw(boxes, size))
    name, _, norm = kind.partition(" ")
    ball = Ball(center, 0.1 + draw(boxes), {"1": 1, "2": 2}.get(norm, math.inf))
    made: dict[str, InputSet] = {"box": box, "ball": ball, "meet": Meet(box, Ball(center, 0.1 + draw(boxes), 2))}
    return made[name]


def relax(graph: Graph, region: InputSet) -> Relaxations:
    """The relaxation of every node over intervals from end to end, without any sweep."""
    box = region.box()
    values = {graph.inputs[0]: Interval(box.lower, box.upper)}
    found: Relaxations = {}
    for node in graph:
        if node.op != INPUT:
            call, inputs = Call.of(graph, node), [values[name] for name in node.inputs]
            found[node.name] = RULES[node.op].relax(call, inputs)
            values[node.name] = RULES[node.op].interval(call, inputs)
    return found


def with_shared_lines(relaxations: Relaxations) -> Relaxations:
    """Lines of the first box for all: a batch axis of one, for some of the fields only where a value is even."""
    found = dict(relaxations)
    for number, (name, lines) in enumerate(relaxations.items()):
        if isinstance(lines, ScalarLines):
            fields = (lines.lower_slope, lines.lower_bias, lines.upper_slope, lines.upper_bias)
            first = [None if x is None else x[:1] for x in fields]
            if number % 2 == 0 and first[3] is not None:
                first[3] = first[3].expand_as(lines.upper_slope)
            found[name] = ScalarLines(*first)  # type: ignore[arg-type]
    return found


def plain(graph: Graph, relaxations: Relaxations, at: str, rows: Tensor, boxes: int) -> tuple[Tensor, Tensor]:
    """Dense rows (B or 1, S, *N) on `at`, pulled back by plain torch: (B, S, n) and (B, S)."""
    like = rows.new_zeros(boxes, 1)
    slopes, bias = Sweep(graph, relaxations, None, like).run(at, rows)
    assert isinstance(slopes, Tensor)
    return slopes.flatten(2).expand(boxes, -1, -1), bias.expand(boxes, -1)


def units(graph: Graph, at: str, like: Tensor) -> Tensor:
    """Every unit row on a node, (1, N, *shape)."""
    node = graph[at]
    return torch.eye(node.size, dtype=like.dtype).reshape(1, node.size, *node.shape)


def sizes(graph: Graph, relaxations: Relaxations, at: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the absolute terms of each coefficient on the input, (B or 1, S, n), and of the bias, (B or 1, S)."""
    terms, bias = {at: rows.abs()}, rows.new_zeros(rows.shape[:2])
    for node in reversed(list(graph)):
        if node.name not in terms or node.op == INPUT:
            continue
        part = terms.pop(node.name)
        pulled, share = _absolute(relaxations[node.name], part)
        bias = bias + share
        for source, back in zip(node.inputs, pulled, strict=True):
            terms[source] = terms[source] + back if source in terms else back
    (source,) = graph.inputs
    return terms[source] if source in terms else rows.new_zeros(*rows.shape[:2], graph[source].size), bias


def _absolute(relaxation: Relaxation, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    if isinstance(relaxation, AffineRelaxation):
        params = {role: value.abs() for role, value in relaxation.call.params.items()}
        pulled, bias = AffineRelaxation(Call(relaxation.call.node, params), relaxation.shapes).pull(rows)
        return tuple(part.abs() for part in pulled), bias
    assert isinstance(relaxation, ScalarLines)
    slope = relaxation.lower_slope.abs().maximum(relaxation.upper_slope.abs()).unsqueeze(1)
    biases = [b.abs().unsqueeze(1) for b in (relaxation.lower_bias, relaxation.upper_bias) if b is not None]
    share = (rows * sum(biases)).reshape(len(rows * slope), rows.shape[1], -1).sum(2) if biases else rows.new_zeros(1)
    return (rows * slope,), share


def reach(region: InputSet) -> Tensor:
    """The largest absolute value of each input, (B, n)."""
    box: Box = region.box()
    return box.lower.abs().maximum(box.upper.abs())


def tolerance(graph: Graph, relaxations: Mapping[str, Relaxation], at: str, rows: Tensor, region: InputSet) -> Tensor:
    """The sum of the absolute terms of each row's bound, (B, S)."""
    slopes, bias = sizes(graph, dict(relaxations), at, rows)
    return (slopes.flatten(2) * reach(region).unsqueeze(1)).sum(2) + bias
