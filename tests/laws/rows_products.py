"""Rows of products, maxima, normalisers and selections."""

from __future__ import annotations

import torch

from tests.laws.table import Input, Row

_TRUTH = Input((2, 3), lower=0, upper=1, integers=True, kinks=(0.0, 1.0))
_ANY = Input((2, 3))
_TABLE = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
_MASK = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0]])
_POSITIVE = Input((2, 3), lower=0.05, scale=2.0)

ROWS = [
    Row("mul", (_ANY, _ANY)),
    Row("mul", (Input((2, 1)), Input((1, 3))), note="broadcast"),
    Row("div", (_ANY, _POSITIVE)),
    Row("div", (_POSITIVE, _POSITIVE), note="positive"),
    Row("div", (_ANY, Input((1, 3), upper=-0.05, scale=2.0)), note="negative"),
    Row("matmul", (_ANY, Input((3, 2)))),
    Row("matmul", (Input((2, 3, 2)), Input((1, 2, 4))), note="broadcast"),
    Row("matmul", (Input((2, 3, 4), lower=0, upper=1), Input((2, 4, 2))), note="attention"),
    Row("maximum", (_ANY, _ANY)),
    Row("maximum", (Input((2, 1)), Input((1, 3))), note="broadcast"),
    Row("minimum", (_ANY, _ANY)),
    Row("minimum", (Input((2, 1)), _ANY), note="broadcast"),
    Row("reduce_max", (Input((2, 3, 4)),), attrs={"axes": (0, 2), "keepdims": True}),
    Row("reduce_max", (Input((2, 1)),), attrs={"axes": (1,)}, note="one"),
    Row("reduce_min", (Input((5,)),), attrs={"axes": (0,), "keepdims": True}),
    Row("reduce_min", (Input((2, 3, 4)),), attrs={"axes": (1,)}, note="middle"),
    Row(
        "max_pool",
        (Input((1, 2, 5, 6)),),
        attrs={"kernel": (3, 2), "stride": (2, 2), "padding": (1, 0), "dilation": (1, 1)},
    ),
    Row(
        "max_pool",
        (Input((2, 1, 7)),),
        attrs={"kernel": (2,), "stride": (2,), "padding": (0, 1), "dilation": (2,)},
        note="dilated",
    ),
    Row("softmax", (Input((2, 5)),), attrs={"axis": 1}),
    Row("softmax", (Input((4, 3, 2)),), attrs={"axis": 0}, note="first-axis"),
    Row("softmax", (Input((3, 2)),), attrs={"axis": 1}, note="two"),
    Row("softmax", (Input((3, 1)),), attrs={"axis": 1}, note="one"),
    Row("softmax", (Input((6,), scale=10.0),), attrs={"axis": 0}, note="saturated"),
    Row("log_softmax", (Input((2, 5)),), attrs={"axis": 1}),
    Row("log_softmax", (Input((4, 2)),), attrs={"axis": 0}, note="first-axis"),
    Row("log_softmax", (Input((3, 1)),), attrs={"axis": 1}, note="one"),
    Row("softmax", (Input((2, 5)),), {"mask": _MASK}, {"axis": 1}, "masked"),
    Row("top_k", (Input((2, 5)),), attrs={"axis": 1, "k": 3}),
    Row("top_k", (Input((4, 2, 2)),), attrs={"axis": 0, "k": 2}, note="first-axis"),
    Row("top_k_softmax", (Input((2, 5)),), attrs={"axis": 1, "k": 2}),
    Row("top_k_softmax", (Input((6, 2)),), attrs={"axis": 0, "k": 4}, note="first-axis"),
    Row("top_k_softmax", (Input((2, 5)),), attrs={"axis": 1, "k": 1}, note="one"),
    Row("top_k_softmax", (Input((8,), scale=1.0),), attrs={"axis": 0, "k": 3}, note="close"),
    Row("shares", (Input((2, 5), lower=0.0, kinks=(0.0,)),), attrs={"axis": 1, "eps": 1e-6}),
    Row("shares", (Input((6, 2), lower=0.0, scale=1.0),), attrs={"axis": 0, "eps": 0.1}, note="first-axis"),
    Row("shares", (Input((3, 1), lower=0.0, kinks=(0.0,)),), attrs={"axis": 1, "eps": 1e-3}, note="one"),
    Row("codebook", (Input((2, 5)),), {"table": _TABLE}),
    Row("codebook", (Input((5,), scale=0.1),), {"table": _TABLE}, note="close"),
    Row("stablemax", (Input((2, 5)),), attrs={"axis": 1}),
    Row("stablemax", (Input((4, 3, 2)),), attrs={"axis": 0}, note="first-axis"),
    Row("stablemax", (Input((3, 2)),), attrs={"axis": 1}, note="two"),
    Row("stablemax", (Input((3, 1)),), attrs={"axis": 1}, note="one"),
    Row("stablemax", (Input((6,), scale=10.0),), attrs={"axis": 0}, note="far"),
    Row("log_stablemax", (Input((2, 5)),), attrs={"axis": 1}),
    Row("log_stablemax", (Input((4, 2)),), attrs={"axis": 0}, note="first-axis"),
    Row("log_stablemax", (Input((3, 1)),), attrs={"axis": 1}, note="one"),
    Row("logsumexp", (Input((2, 3, 4)),), attrs={"axes": (0, 2), "keepdims": True}),
    Row("logsumexp", (Input((5,), scale=40.0),), attrs={"axes": (0,), "keepdims": True}, note="saturated"),
    Row("logsumexp", (Input((3, 1)),), attrs={"axes": (1,)}, note="one"),
    Row("layer_norm", (Input((2, 5)),), attrs={"axes": (1,), "eps": 1e-5}),
    Row("layer_norm", (Input((3, 2, 2)),), attrs={"axes": (1, 2), "eps": 1e-3}, note="two-axes"),
    Row("layer_norm", (Input((3, 2)),), attrs={"axes": (1,), "eps": 1e-5}, note="two"),
    Row("layer_norm", (Input((3, 1)),), attrs={"axes": (1,), "eps": 1e-5}, note="one"),
    Row("rms_norm", (Input((2, 5)),), attrs={"axes": (1,), "eps": 1e-5}),
    Row("rms_norm", (Input((4, 3)),), attrs={"axes": (0,), "eps": 1e-2}, note="first-axis"),
    Row("arg_max", (Input((2, 5)),), attrs={"axis": 1}),
    Row("arg_max", (Input((5, 2)),), attrs={"axis": 0, "keepdims": True, "last": True}, note="last"),
    Row("arg_max", (Input((2, 5), lower=0, upper=1, integers=True),), attrs={"axis": 1}, note="ties"),
    Row("arg_max", (Input((2, 5), lower=0, upper=1, integers=True),), attrs={"axis": 1, "last": True}, note="last-tie"),
    Row("spread", (Input((3,), lower=0, upper=0),), note="at 0"),  # elsewhere many values: test_parameters.py
    Row("where", (_TRUTH, _ANY, _ANY)),
    Row("where", (Input((2, 1), lower=0, upper=1, integers=True), Input((1, 3)), _ANY), note="broadcast"),
    Row("gather_at", (Input((3, 4)), Input((2,), lower=-4, upper=3, integers=True)), attrs={"axis": 1}),
    Row("gather_at", (Input((5, 2)), Input((), lower=0, upper=4, integers=True)), attrs={"axis": 0}, note="scalar"),
    Row("scatter_at", (Input((3, 4)), Input((1, 2), lower=-3, upper=2, integers=True), Input((1,)))),
    Row("scatter_at", (Input((5, 2)), Input((1, 1), lower=0, upper=4, integers=True), Input((1, 2))), note="slices"),
]
