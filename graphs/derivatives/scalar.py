"""Derivatives of the scalar ops: for each the node that holds f'(x), made of ops of the table.

A kink becomes the Clarke op, whose interval over a box that holds it is [f'-, f'+] (Shi et al. 2022, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from graphs.derivatives.tape import Tape
from graphs.ir import Node

Slope = Callable[[Tape, Node, str], str]
KINKED = {"relu", "leaky_relu", "prelu", "abs", "clip"}  # their slope is an affine function of a Clarke op


def _clarke(tape: Tape, x: str, at: tuple[float, ...], slopes: tuple[float, ...]) -> str:
    return tape.node("clarke", x, at=at, slopes=slopes)


def _prelu(tape: Tape, node: Node, x: str) -> str:
    """a + (1 - a) [x > 0]."""
    a = tape.graph.params(node)["slope"]
    right = tape.node("scale", _clarke(tape, x, (0.0,), (0.0, 1.0)), params={"factor": 1 - a})
    return tape.node("shift", right, params={"offset": a})


def _clip(tape: Tape, node: Node, x: str) -> str:
    low, high = node.attrs["lower"], node.attrs["upper"]
    at = tuple(end for end in (low, high) if math.isfinite(end))
    slopes = (*([0.0] if math.isfinite(low) else []), 1.0, *([0.0] if math.isfinite(high) else []))
    return _clarke(tape, x, at, slopes)


def _tanh(tape: Tape, node: Node, x: str) -> str:
    """4 s'(2 x)."""
    return tape.scaled(tape.node("sigmoid_slope", tape.scaled(x, 2.0)), 4.0)


def _power(tape: Tape, node: Node, x: str) -> str:
    p = float(node.attrs["exponent"])
    if p in (0.0, 1.0):
        return tape.constant(torch.full(node.shape, p, dtype=tape.dtype), x)
    if p == 2.0:
        return tape.scaled(x, 2.0)
    return tape.scaled(tape.node("power", x, exponent=p - 1), p)


def _asin(tape: Tape, node: Node, x: str) -> str:
    inner = tape.shifted(tape.node("neg", tape.node("square", x)), 1.0)
    return tape.node("power", inner, exponent=-0.5)


def _exponential(tape: Tape, node: Node, x: str) -> str:
    """1 right of the origin, left of it scale e^(rate x)."""
    alpha = float(node.attrs.get("alpha", 1.0))
    rate = 1.0 if node.op == "elu" else 1 / alpha
    left = tape.node("exp", tape.scaled(tape.node("clip", x, lower=-math.inf, upper=0.0), rate))
    if node.op == "celu" or alpha == 1:
        return left
    ends = _clarke(tape, x, (0.0,), (1.0, 0.0)), _clarke(tape, x, (0.0,), (0.0, 1.0))
    return tape.node("add", tape.node("mul", tape.scaled(left, alpha), ends[0]), ends[1])


def _stable_exp(tape: Tape, node: Node, x: str) -> str:
    """1 / (1 - min(x, 0))^2."""
    left = tape.node("neg", tape.node("clip", x, lower=-math.inf, upper=0.0))
    return tape.node("power", tape.shifted(left, 1.0), exponent=-2.0)


def _log_softplus(tape: Tape, node: Node, x: str) -> str:
    """s(x) / softplus(x), the latter from its logarithm."""
    inverse = tape.node("exp", tape.node("neg", node.name))
    return tape.node("mul", tape.node("sigmoid", x), inverse)


def _hard_swish(tape: Tape, node: Node, x: str) -> str:
    """x / 3 + 1/2 between the kinks -3 and 3, 1 right of them."""
    middle = tape.shifted(tape.scaled(x, 1 / 3), 0.5)
    window = _clarke(tape, x, (-3.0, 3.0), (0.0, 1.0, 0.0))
    return tape.node("add", tape.node("mul", middle, window), _clarke(tape, x, (3.0,), (0.0, 1.0)))


def _gelu_tanh(tape: Tape, node: Node, x: str) -> str:
    """s(v) + x s'(v) v' with v = sqrt(8 / pi) (x + 0.044715 x^3)."""
    scale = 2 * math.sqrt(2 / math.pi)
    cube = tape.scaled(tape.node("power", x, exponent=3.0), 0.044715 * scale)
    v = tape.node("add", tape.scaled(x, scale), cube)
    rate = tape.shifted(tape.scaled(tape.node("square", x), 3 * 0.044715 * scale), scale)
    steep = tape.node("mul", tape.node("mul", x, tape.node("sigmoid_slope", v)), rate)
    return tape.node("add", tape.node("sigmoid", v), steep)


def _mish(tape: Tape, node: Node, x: str) -> str:
    """t + x s(x) (1 - t^2), t = tanh(softplus(x))."""
    p = tape.node("softplus", x)
    rate = tape.node("mul", _tanh(tape, node, p), tape.node("sigmoid", x))
    return tape.node("add", tape.node("tanh", p), tape.node("mul", x, rate))


def _sigmoid_slope(tape: Tape, node: Node, x: str) -> str:
    """s' (1 - 2 s)."""
    return tape.node("mul", node.name, tape.shifted(tape.scaled(tape.node("sigmoid", x), -2.0), 1.0))


def _lorentz(tape: Tape, node: Node, x: str) -> str:
    return tape.node("mul", tape.scaled(x, -2.0), tape.node("square", node.name))


def _gelu_slope(tape: Tape, node: Node, x: str) -> str:
    """phi(x) (2 - x^2)."""
    bell = tape.scaled(tape.node("gauss", tape.scaled(x, math.sqrt(0.5))), 1 / math.sqrt(2 * math.pi))
    return tape.node("mul", bell, tape.shifted(tape.node("neg", tape.node("square", x)), 2.0))


def _silu_slope(tape: Tape, node: Node, x: str) -> str:
    """s'(x) (2 + x (1 - 2 s(x)))."""
    turn = tape.shifted(tape.scaled(tape.node("sigmoid", x), -2.0), 1.0)
    return tape.node("mul", tape.node("sigmoid_slope", x), tape.shifted(tape.node("mul", x, turn), 2.0))


def _op(name: str, factor: float = 1.0, **attrs: Any) -> Slope:
    """Another op of x, times a number."""

    def slope(tape: Tape, node: Node, x: str) -> str:
        value = tape.node(name, x, **attrs)
        return value if factor == 1.0 else tape.scaled(value, factor)

    return slope


SLOPES: dict[str, Slope] = {
    "relu": _op("clarke", at=(0.0,), slopes=(0.0, 1.0)),
    "leaky_relu": lambda tape, node, x: _clarke(tape, x, (0.0,), (float(node.attrs["slope"]), 1.0)),
    "prelu": _prelu,
    "abs": _op("clarke", at=(0.0,), slopes=(-1.0, 1.0)),
    "clip": _clip,
    "sigmoid": _op("sigmoid_slope"),
    "tanh": _tanh,
    "softplus": _op("sigmoid"),
    "exp": lambda tape, node, x: node.name,
    "log": _op("reciprocal"),
    "sqrt": _op("power", 0.5, exponent=-0.5),
    "reciprocal": _op("power", -1.0, exponent=-2.0),
    "power": _power,
    "square": lambda tape, node, x: tape.scaled(x, 2.0),
    "sin": _op("cos"),
    "cos": _op("sin", -1.0),
    "tan": lambda tape, node, x: tape.shifted(tape.node("square", node.name), 1.0),
    "asin": _asin,
    "atan": _op("lorentz"),
    "erf": _op("gauss", 2 / math.sqrt(math.pi)),
    "gelu": _op("gelu_slope"),
    "gelu_tanh": _gelu_tanh,
    "silu": _op("silu_slope"),
    "elu": _exponential,
    "celu": _exponential,
    "hard_swish": _hard_swish,
    "mish": _mish,
    "softsign": lambda tape, node, x: tape.node("power", tape.shifted(tape.node("abs", x), 1.0), exponent=-2.0),
    "stable_exp": _stable_exp,
    "signed_log": lambda tape, node, x: tape.node("reciprocal", tape.shifted(tape.node("abs", x), 1.0)),
    "log_softplus": _log_softplus,
    "sigmoid_slope": _sigmoid_slope,
    "gauss": lambda tape, node, x: tape.node("mul", tape.scaled(x, -2.0), node.name),
    "lorentz": _lorentz,
    "gelu_slope": _gelu_slope,
    "silu_slope": _silu_slope,
}
