"""Rows of the scalar ops."""

from __future__ import annotations

import math

import torch

from tests.laws.table import Input, Row

_ANY = (Input((2,), kinks=(0.0,)),)
_POSITIVE = (Input((2,), lower=1e-3),)
_NEGATIVE = (Input((2,), upper=-1e-3),)
_NOT_NEGATIVE = (Input((2,), lower=0.0, kinks=(0.0,)),)
_GATE = (Input((2,), kinks=(-2.4, -1.4142135623730951, -0.75, 0.0, 1.4142135623730951, 2.4)),)
_INTEGERS = (Input((2,), kinks=(-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 2.5)),)

ROWS = [
    Row("relu", _ANY),
    Row("leaky_relu", _ANY, attrs={"slope": 0.1}),
    Row("leaky_relu", _ANY, attrs={"slope": 2.5}, note="steep"),
    Row("leaky_relu", _ANY, attrs={"slope": -0.5}, note="falling"),
    Row("prelu", _ANY, params={"slope": torch.tensor([0.25, 1.5], dtype=torch.float64)}),
    Row("prelu", _ANY, params={"slope": torch.tensor([-2.0], dtype=torch.float64)}, note="shared"),
    Row("abs", _ANY),
    Row("clip", (Input((2,), kinks=(-1.0, 2.0)),), attrs={"lower": -1.0, "upper": 2.0}),
    Row("clip", (Input((2,), kinks=(0.5,)),), attrs={"lower": -math.inf, "upper": 0.5}, note="one-sided"),
    Row("sign", _ANY),
    Row("floor", _INTEGERS),
    Row("ceil", _INTEGERS),
    Row("round", _INTEGERS),
    Row("trunc", _INTEGERS),
    Row("step", _ANY),
    Row("step", _ANY, attrs={"closed": True}, note="closed"),
    Row("is_zero", _ANY),
    Row("sigmoid", _ANY),
    Row("tanh", _ANY),
    Row("softplus", _ANY),
    Row("exp", (Input((2,), upper=300.0),), max_width=100),
    Row("log", _POSITIVE),
    Row("sqrt", _NOT_NEGATIVE),
    Row("reciprocal", _POSITIVE),
    Row("reciprocal", _NEGATIVE, note="negative"),
    Row("power", _ANY, attrs={"exponent": 3.0}, note="3"),
    Row("power", _ANY, attrs={"exponent": 4.0}, note="4"),
    Row("power", _ANY, attrs={"exponent": 1.0}, note="1"),
    Row("power", _NOT_NEGATIVE, attrs={"exponent": 1.5}, note="1.5"),
    Row("power", _NOT_NEGATIVE, attrs={"exponent": 0.3}, note="0.3"),
    Row("power", _POSITIVE, attrs={"exponent": -0.5}, note="-0.5"),
    Row("power", _NEGATIVE, attrs={"exponent": -2.0}, note="-2"),
    Row("power", _NEGATIVE, attrs={"exponent": -3.0}, note="-3"),
    Row("square", _ANY),
    Row("sin", (Input((2,), kinks=(-math.pi / 2, 0.0, math.pi / 2, math.pi), scale=6.0),)),
    Row("cos", (Input((2,), kinks=(-math.pi, -math.pi / 2, 0.0, math.pi), scale=6.0),)),
    Row("tan", (Input((2,), lower=-1.57, upper=1.57, kinks=(0.0,)),)),
    Row("tan", (Input((2,), lower=1.58, upper=4.7, kinks=(math.pi,)),), note="shifted"),
    Row("asin", (Input((2,), lower=-1.0, upper=1.0, kinks=(-1.0, 0.0, 1.0), scale=0.5),)),
    Row("atan", _ANY),
    Row("erf", _ANY),
    Row("gelu", _GATE),
    Row("gelu_tanh", _GATE),
    Row("silu", _GATE),
    Row("elu", _ANY, attrs={"alpha": 1.0}),
    Row("elu", _ANY, attrs={"alpha": 0.3}, note="convex"),
    Row("elu", _ANY, attrs={"alpha": 1.7}, note="kinked"),
    Row("celu", _ANY, attrs={"alpha": 0.5}),
    Row("hard_swish", (Input((2,), kinks=(-3.0, -1.5, 0.0, 3.0)),)),
    Row("mish", _GATE),
    Row("softsign", _ANY),
    Row("stable_exp", _ANY),
    Row("signed_log", _ANY),
    Row("log_softplus", (Input((2,), kinks=(-12.0, 0.0)),)),
]
