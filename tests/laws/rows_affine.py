"""Rows of the affine ops."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.laws.table import Input, Row


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _values(*shape: int) -> Input:
    return Input(shape)


_PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
_UNEVEN = {"stride": (2, 3), "padding": (1, 0), "dilation": (1, 2)}

ROWS = [
    Row("linear", (_values(1, 3),), {"weight": _random(4, 3), "bias": _random(4)}),
    Row("linear", (_values(2, 3),), {"weight": _random(2, 3)}, note="rows"),
    Row("matmul_right", (_values(2, 3),), {"weight": _random(3, 2)}),
    Row("matmul_left", (_values(2, 3),), {"weight": _random(4, 2)}),
    Row("conv", (_values(1, 2, 3, 3),), {"weight": _random(2, 2, 2, 2), "bias": _random(2)}, _PLAIN),
    Row("conv", (_values(1, 2, 6, 7),), {"weight": _random(3, 2, 3, 2)}, _UNEVEN, note="uneven"),
    Row("conv", (_values(1, 1, 7, 7),), {"weight": _random(2, 1, 1, 1)}, {**_PLAIN, "stride": (3, 3)}, note="gaps"),
    Row("conv", (_values(1, 2, 4, 4),), {"weight": _random(2, 1, 2, 2)}, {**_PLAIN, "groups": 2}, note="groups"),
    Row(
        "conv",
        (_values(1, 2, 5),),
        {"weight": _random(2, 2, 3), "bias": _random(2)},
        {"stride": (2,), "padding": (1,), "dilation": (1,)},
        note="one-dimensional",
    ),
    Row(
        "conv_transpose",
        (_values(1, 2, 3, 3),),
        {"weight": _random(2, 2, 3, 2), "bias": _random(2)},
        {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0), "dilation": (1, 1)},
    ),
    Row("avg_pool", (_values(1, 1, 4, 4),), {}, {"kernel": (2, 2), "stride": (2, 2), "padding": (1, 1)}),
    Row("add", (_values(2, 3), _values(2, 3))),
    Row("add", (_values(2, 3), _values(2, 1)), note="broadcast"),
    Row("sub", (_values(1, 3), _values(2, 3))),
    Row("neg", (_values(3),)),
    Row("scale", (_values(2, 3),), {"factor": _random(3)}),
    Row("scale", (_values(2, 1),), {"factor": _random(2, 3)}, note="growing"),
    Row("shift", (_values(2, 3),), {"offset": _random(1, 3)}),
    Row("sum", (_values(2, 3, 2),), {}, {"axes": (0, 2)}),
    Row("sum", (_values(2, 3),), {}, {"axes": (1,), "keepdims": True}, note="kept"),
    Row("mean", (_values(2, 3, 2),), {}, {"axes": (1,)}),
    Row("cumsum", (_values(2, 3),), {}, {"axis": 1}),
    Row("reshape", (_values(2, 3),), {}, {"shape": (3, 2)}),
    Row("reshape", (_values(),), {}, {"shape": (1, 1)}, note="scalar"),
    Row("shift", (_values(),), {"offset": _random(1)[0]}, note="scalar"),
    Row("transpose", (_values(2, 3, 2),), {}, {"perm": (2, 0, 1)}),
    Row("slice", (_values(2, 5),), {}, {"axis": 1, "start": 1, "stop": 5, "step": 2}),
    Row("gather", (_values(2, 4),), {"index": torch.tensor([[0, 1], [3, 3]])}, {"axis": 1}),
    Row("gather", (_values(3, 4),), {"index": torch.arange(3).repeat_interleave(2)}, {"axis": 0}, note="up-sampling"),
    Row("pick", (_values(2, 3),), {"index": torch.tensor([[0, 1], [5, 5]])}),
    Row("concat", (_values(2, 2), _values(2, 1)), {}, {"axis": 1}),
    Row(
        "concat",
        (_values(2, 2), _values(2, 1)),
        {"c": _random(2, 2)},
        {"axis": 1, "layout": (1, "c", 0)},
        note="constant",
    ),
    Row("pad", (_values(2, 3),), {}, {"before": (1, 0), "after": (0, 2), "value": 3.0}),
    Row("pad", (_values(2, 3),), {}, {"before": (0, -1), "after": (0, 1)}, note="crop"),
    Row("expand", (_values(2, 1),), {}, {"shape": (2, 3)}),
    Row("tile", (_values(2, 2),), {}, {"repeats": (2, 2)}),
    Row("select", (_values(2, 2), _values(2, 2)), {"mask": torch.tensor([[True, False], [False, True]])}),
    Row("scatter", (_values(2, 3), _values(2)), {"index": torch.tensor([1, 4])}),
]
