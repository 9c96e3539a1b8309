"""Rows of the ops that derivatives are made of."""

from __future__ import annotations

import math

import torch

from tests.laws.table import Input, Row

_ANY = Input((2, 3))
_BELL = (Input((2,), kinks=(-1.3169578969248166, -0.7071067811865476, 0.0, 0.5773502691896258)),)
_GATE = (Input((2,), kinks=(-3.4358409935351113, -2.0, -math.sqrt(2), 0.0, math.sqrt(2), 2.0, 2.3993572805154677)),)

ROWS = [
    Row("clarke", (Input((2,), kinks=(0.0,)),), attrs={"at": (0.0,), "slopes": (0.0, 1.0)}),
    Row("clarke", (Input((2,), kinks=(-1.0, 2.0)),), attrs={"at": (-1.0, 2.0), "slopes": (0.0, 1.0, -0.5)}, note="two"),
    Row("clarke", (Input((2,)),), attrs={"at": (), "slopes": (1.0,)}, note="line"),
    Row("chain", (_ANY, Input((2, 3), lower=0, upper=1, kinks=(0.0, 1.0), scale=0.5))),
    Row("chain", (_ANY, Input((1, 3), lower=-1, upper=1, kinks=(-1.0, 1.0))), note="broadcast"),
    Row("smooth_chain", (_ANY, Input((2, 3), lower=0, upper=1, scale=0.5))),
    Row("smooth_chain", (_ANY, Input((1, 3), lower=-1, upper=1)), note="broadcast"),
    Row(
        "transposed",
        (Input((2, 2)),),
        params={"index": torch.tensor([2, 0])},
        attrs={"base": "gather", "shapes": ((3,),), "place": 0, "attrs": {"axis": 0}},
    ),
    Row(
        "transposed",
        (Input((2, 3)),),
        params={"constant": torch.tensor([1.0], dtype=torch.float64)},
        attrs={
            "base": "concat",
            "shapes": ((1,), (1,)),
            "place": 1,
            "attrs": {"axis": 0, "layout": (0, "constant", 1)},
        },
        note="concat",
    ),
    Row("sigmoid_slope", _BELL),
    Row("gauss", _BELL),
    Row("lorentz", _BELL),
    Row("gelu_slope", _GATE),
    Row("silu_slope", _GATE),
]
