"""Handwritten digits (8x8, scikit-learn): a transformer under five normalisers, experts, a Gumbel selector.

All are trained alike, as the convnet of `cases/digits`, and written by torch's exporter.

    python -m cases.attention.recipe           # writes the models, *.vnnlib and case.toml here, in about a minute
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import nn

from cases.attention.networks import NETWORKS
from cases.digits.recipe import CLASSES, SIDE, fit, flat, robustness
from cases.tools import Claim, case_toml, check_replay, entry, write

SEED, STEPS = 0, 800
ROOT = "one pass of linear bounds proves it; sampling and descent see no other class"
GAPS = "bounds of the differences of the gate's entries prove it; sampling and descent see no other class"
VIOLATED = "descent from the image finds another class; replayed"
CLAIMS: Mapping[str, tuple[tuple[int, float, str], ...]] = {
    "softmax": ((0, 0.03, ROOT), (3, 0.05, ROOT), (1, 0.15, VIOLATED)),
    "stablemax": ((0, 0.03, ROOT), (3, 0.05, ROOT), (1, 0.15, VIOLATED)),
    "softplus": ((0, 0.03, ROOT), (1, 0.15, VIOLATED)),
    "gaussian": ((0, 0.02, ROOT), (1, 0.15, VIOLATED)),
    "sigmoid": ((0, 0.03, ROOT), (3, 0.05, ROOT), (1, 0.15, VIOLATED)),
    "experts": ((0, 0.03, ROOT), (6, 0.07, GAPS), (1, 0.15, VIOLATED)),
    "selector": ((0, 0.03, ROOT), (1, 0.15, VIOLATED)),
}


def network(name: str) -> nn.Module:
    """One of the networks, untrained."""
    torch.manual_seed(SEED)
    return NETWORKS[name]()


def trained(name: str) -> nn.Module:
    """The same after training."""
    net = network(name)
    fit(net, STEPS)
    return net.eval()


def model(net: nn.Module) -> onnx.ModelProto:
    """What torch's exporter makes of it."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is an old one
        names = {"input_names": ["x"], "output_names": ["y"]}
        torch.onnx.export(net, (torch.zeros(1, 1, SIDE, SIDE),), stream, dynamo=False, opset_version=17, **names)
    return onnx.load_from_string(stream.getvalue())


def claims_by_network() -> dict[str, list[Claim]]:
    """What is asked about each network."""
    return {
        name: [robustness(image, radius, because != VIOLATED, because) for image, radius, because in rows]
        for name, rows in CLAIMS.items()
    }


def claims() -> list[Claim]:
    """All of them."""
    return [claim for rows in claims_by_network().values() for claim in rows]


def build(folder: Path = Path(__file__).parent) -> None:
    """Train, check and write the case."""
    rows, files = [], dict[str, str | onnx.ModelProto]()
    for name, asked in claims_by_network().items():
        net = trained(name)
        proto, evaluate = model(net), flat(net)
        check_replay(proto, evaluate, asked[0].lower, asked[0].upper, CLASSES)
        rows += [entry(claim, evaluate) | {"networks": {"f": f"{name}.onnx"}} for claim in asked]
        files |= {f"{name}.onnx": proto, **{claim.file: claim.vnnlib(CLASSES) for claim in asked}}
    about = (
        "Scikit-learn's 8x8 digits: one transformer block (8 tokens, width 16, 2 heads) with weights from softmax, "
        "StableMax, softplus shares (LSSA), a Gaussian kernel with landmarks and Newton's iteration (SOFT), sigmoids; "
        "two of four experts chosen by a sparse gate; three rows picked by Gumbel selectors. The largest output is the "
        "digit."
    )
    write(folder, {**files, "case.toml": case_toml("Attention", about, {}, rows)})


if __name__ == "__main__":
    build()
