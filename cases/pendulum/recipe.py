"""An inverted pendulum held up by a tanh controller, and an energy that falls, learnt together.

    angle' = rate,  rate' = sin(angle) + u(angle, rate)

The loss wants grad V . f(x) <= -RATE |x|^2 at random points, for V = |x|^2 / 10 + |g(x) - g(0)|^2.

    python -m cases.pendulum.recipe         # writes controller.onnx and energy.onnx here, in about 10 s
"""

from __future__ import annotations

from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor, nn

from cases.onnx_writer import OnnxWriter
from cases.pendulum.property import RANGE
from cases.tools import train, write

SEED, EPOCHS, POINTS, RATE = 0, 1500, 256, 0.1


def networks() -> tuple[nn.Sequential, nn.Sequential]:
    """The controller, and g of the energy."""
    torch.manual_seed(SEED)
    controller = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    g = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))

    def loss(step: int) -> Tensor:
        x = (1.2 * RANGE * (2 * torch.rand(POINTS, 2) - 1) * torch.rand(POINTS, 1)).requires_grad_()
        energy = 0.1 * x.square().sum(1) + (g(x) - g(torch.zeros(2))).square().sum(1)
        (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
        u = controller(x)[:, 0]
        change = slope[:, 0] * x[:, 1] + slope[:, 1] * (x[:, 0].sin() + u)
        size = x.square().sum(1)
        return (change / size + RATE).clamp(min=0).mean() + 1e-3 * u.square().mean()

    train(nn.ModuleList([controller, g]), loss, EPOCHS, 1e-2)
    return controller, g


def model(net: nn.Sequential, name: str) -> ModelProto:
    """A network in ONNX."""
    writer = OnnxWriter()
    return writer.model(name, (1, 2), writer.sequential("x", net), (1, net[-1].out_features))


def build(folder: Path = Path(__file__).parent) -> None:
    """Train and write the models."""
    controller, g = networks()
    write(folder, {"controller.onnx": model(controller, "controller"), "energy.onnx": model(g, "energy")})


if __name__ == "__main__":
    build()
