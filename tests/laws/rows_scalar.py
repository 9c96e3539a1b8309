"""Rows of the scalar ops."""

from __future__ import annotations

import torch

from tests.laws.table import Input, Row

_0 = Input((2,), kinks=(0.0,))

ROWS = [
    Row("relu", (_0,)),
    Row("leaky_relu", (_0,), attrs={"slope": 0.1}),
    Row("leaky_relu", (_0,), attrs={"slope": 2.5}, note="steep"),
    Row("leaky_relu", (_0,), attrs={"slope": -0.5}, note="falling"),
    Row("prelu", (_0,), params={"slope": torch.tensor([0.25, -1.5])}),
    Row("sigmoid", (_0,)),
    Row("tanh", (_0,)),
]
