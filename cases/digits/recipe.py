"""Handwritten digits (8x8, scikit-learn): a small ReLU convnet and how far its decisions reach.

Trained with noise of the fast gradient sign kind, which gives it margins that linear bounds can prove.

    python -m cases.digits.recipe           # writes model.onnx, *.vnnlib and case.toml here, in about 10 s
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cases.onnx_writer import OnnxWriter
from cases.tools import Claim, not_largest, train, write_case

CLASSES, SIDE = 10, 8
SEED, STEPS, NOISE = 0, 800, 0.12
HOLDS = "one pass of linear bounds proves it, also with auto_LiRPA's; sampling and descent see no other class"
VIOLATED = "descent from the image finds another class; replayed"


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (N, 1, 8, 8) in [0, 1] and labels, test images and labels; the split is by position."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    return images[:1400], labels[:1400], images[1400:], labels[1400:]


def network() -> nn.Sequential:
    """The untrained convnet."""
    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 32),
        nn.ReLU(),
        nn.Linear(32, CLASSES),
    )


def fit(net: nn.Module, steps: int = STEPS) -> None:
    """Train on images moved by NOISE in the direction that hurts most."""
    images, labels, _, _ = digits()

    def loss(step: int) -> Tensor:
        pick = torch.randint(len(images), (128,))
        x = (images[pick] + NOISE * (2 * torch.rand(128, 1, SIDE, SIDE) - 1)).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), labels[pick]), x)
        worst = torch.clamp(x + NOISE * gradient.sign(), images[pick] - NOISE, images[pick] + NOISE).clamp(0, 1)
        return F.cross_entropy(net(worst.detach()), labels[pick])

    train(net, loss, steps, 5e-3)


def robustness(image: int, radius: float, holds: bool, because: str) -> Claim:
    """Every image within `radius` per pixel of a test image keeps its label."""
    _, _, images, labels = digits()
    center, label = images[image].double(), int(labels[image])
    return Claim(
        f"image{image}_eps{radius}.vnnlib",
        f"every image within {radius} per pixel of test image {image} (a {label}) is a {label}",
        (center - radius).clamp(0, 1).flatten(),
        (center + radius).clamp(0, 1).flatten(),
        not_largest(label, CLASSES),
        holds,
        because,
    )


def write_digits(folder: Path, title: str, about: str, net: nn.Sequential, claims: Sequence[Claim]) -> None:
    """Check and write a case of a network of digits."""
    writer = OnnxWriter()
    model = writer.model("digits", (1, 1, SIDE, SIDE), writer.sequential("x", net), (1, CLASSES))
    write_case(folder, title, about, model, claims, flat(net))


def flat(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network on flat images (B, 64)."""
    return lambda x: net(x.reshape(-1, 1, SIDE, SIDE))


def claims() -> list[Claim]:
    """What is asked about the network."""
    return [
        robustness(0, 0.04, True, HOLDS),
        robustness(3, 0.06, True, HOLDS),
        robustness(7, 0.08, True, HOLDS),
        robustness(1, 0.1, False, VIOLATED),
        robustness(4, 0.2, False, VIOLATED),
    ]


def build(folder: Path = Path(__file__).parent) -> None:
    """Train, check and write the case."""
    net = network()
    fit(net)
    about = "A convnet (8 4x4/2, 16 3x3, 32, 10; ReLU) on scikit-learn's 8x8 digits; the largest output is the digit."
    write_digits(folder, "Digits", about, net, claims())


if __name__ == "__main__":
    build()
