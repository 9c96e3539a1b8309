"""Handwritten digits again, through tanh, max pooling and sigmoid: no layer is piecewise linear but the pooling.

python -m cases.smooth.recipe           # writes model.onnx, *.vnnlib and case.toml here, in about 10 s
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cases.digits.recipe import CLASSES, HOLDS, VIOLATED, fit, robustness, write_digits
from cases.tools import Claim

SEED = 0


def network() -> nn.Sequential:
    """The untrained convnet."""
    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 32),
        nn.Sigmoid(),
        nn.Linear(32, CLASSES),
    )


def claims() -> list[Claim]:
    """What is asked about the network."""
    return [
        robustness(0, 0.03, True, HOLDS),
        robustness(3, 0.04, True, HOLDS),
        robustness(1, 0.15, False, VIOLATED),
    ]


def build(folder: Path = Path(__file__).parent) -> None:
    """Train, check and write the case."""
    net = network()
    fit(net)
    about = "A convnet (8 3x3, tanh, max pool 2x2, 32, sigmoid, 10) on scikit-learn's 8x8 digits."
    write_digits(folder, "Digits, smooth and pooled", about, net, claims())


if __name__ == "__main__":
    build()
