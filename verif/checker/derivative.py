"""The slopes of one output as a network of their own: the chain rule, backwards, on the checker's steps.

A ReLU's slope at 0 is anything in [0, 1] (Clarke's generalised derivative): what is shown of all such slopes holds for
every difference quotient along one input, because a network of such steps is Lipschitz.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verif.checker.errors import Refused
from verif.checker.network import Builder, Network, Step
from verif.checker.values import count


def slopes(network: Network, output: int) -> Network:
    """From the input to the slopes of output number `output` in each of the input's numbers."""
    if not 0 <= output < network.outputs:
        raise Refused("slopes of an output that the model does not have")
    builder = Builder(list(network.steps))
    row = np.zeros(network.outputs)
    row[output] = 1.0
    some = builder.pick(0, np.zeros(len(row), np.int64))
    held = {network.output: builder.scale(some, np.zeros(len(row)), row)}
    for place in range(network.output, 0, -1):
        if place in held:
            for source, sent in _pulled(builder, place, held.pop(place)):
                held[source] = builder.add(held[source], sent) if source in held else sent
    if 0 not in held:
        raise Refused("the output does not depend on the input")
    return Network.of(builder.steps, held[0])


def _pulled(builder: Builder, place: int, held: int) -> Iterator[tuple[int, int]]:
    """What a step sends to each of its sources."""
    step = builder.steps[place]
    first = step.sources[0]
    size = builder.steps[first].size
    if step.op == "dense":
        yield first, builder.dense(held, step.matrix.T, np.zeros(size), step.loose)
    elif step.op == "scale":
        yield first, builder.scale(held, step.factors, np.zeros(size), step.loose)
    elif step.op == "pick":
        count((size, step.size))
        matrix = np.zeros((size, step.size))
        matrix[step.index, np.arange(step.size)] = 1.0
        yield first, builder.dense(held, matrix, np.zeros(size))
    elif step.op == "join":
        start = 0
        for source in step.sources:
            stop = start + builder.steps[source].size
            yield source, builder.pick(held, np.arange(start, stop))
            start = stop
    elif step.op == "add":
        yield from ((source, held) for source in step.sources)
    elif step.op == "mul":
        yield first, builder.mul(held, step.sources[1])
        yield step.sources[1], builder.mul(held, first)
    elif step.op == "max":  # x + relu(y - x), as far as slopes are concerned
        later = builder.bent("jump", builder.add(step.sources[1], builder.negated(first)))
        sent = builder.mul(held, later)
        yield first, builder.add(held, builder.negated(sent))
        yield step.sources[1], sent
    else:
        yield first, builder.mul(held, _slope(builder, place, step))


def _slope(builder: Builder, place: int, step: Step) -> int:
    """The slope of a bent step, from its input and its own value."""
    ones, none = np.ones(step.size), np.zeros(step.size)
    if step.op == "relu":
        return builder.bent("jump", step.sources[0])
    if step.op == "exp":
        return place
    if step.op == "sin":
        return builder.bent("cos", step.sources[0])
    if step.op == "cos":
        return builder.negated(builder.bent("sin", step.sources[0]))
    if step.op == "sigmoid":
        return builder.mul(place, builder.scale(place, -ones, ones))
    square = builder.mul(place, place)
    if step.op == "tanh":
        return builder.scale(square, -ones, ones)
    if step.op == "reciprocal":
        return builder.scale(square, -ones, none)
    raise Refused(f"the slope of {step.op} is beyond the checker")
