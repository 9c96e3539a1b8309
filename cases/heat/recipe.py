"""A physics-informed network: a tanh network u(t, x) that was trained to solve the heat equation on a rod.

    u_t = ALPHA u_xx,  0 <= t <= 1,  0 <= x <= 1,  u(0, x) = sin(pi x),  u(t, 0) = u(t, 1) = 0

The boundary conditions hold by construction only where the loss makes them; the claim is about the equation itself.

    python -m cases.heat.recipe             # writes model.onnx here, in about 15 s
    python -m cases.heat.recipe picture     # draws residual.svg
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor, nn

from cases.heat.property import ALPHA, bounds_on_cells
from cases.onnx_writer import OnnxWriter
from cases.tools import train, write

SEED, EPOCHS, POINTS = 0, 3000, 256
HIDDEN = 16


def network() -> nn.Sequential:
    """Train on the residual, the first state and the ends of the rod."""
    torch.manual_seed(SEED)
    net = nn.Sequential(nn.Linear(2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))

    def loss(step: int) -> Tensor:
        z = torch.rand(POINTS, 2)
        first = torch.stack([torch.zeros(POINTS), z[:, 1]], 1)
        ends = torch.stack([z[:, 0], (z[:, 1] > 0.5).float()], 1)
        start = net(first)[:, 0] - (math.pi * z[:, 1]).sin()
        return residual(net, z).square().mean() + 10 * start.square().mean() + 10 * net(ends).square().mean()

    train(net, loss, EPOCHS, 1e-2)
    return net


def residual(net: nn.Module, z: Tensor) -> Tensor:
    """u_t - ALPHA u_xx at points (B, 2), (B,), by autograd."""
    z = z.requires_grad_()
    (first,) = torch.autograd.grad(net(z).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first[:, 1].sum(), z, create_graph=True)
    return first[:, 0] - ALPHA * second[:, 1]


def model(net: nn.Sequential) -> ModelProto:
    """The network in ONNX."""
    writer = OnnxWriter()
    return writer.model("heat", (1, 2), writer.sequential("x", net), (1, 1))


def picture(cells: int = 24) -> str:
    """The certified bound of |u_t - ALPHA u_xx| over each cell of a grid, darker where it is larger (SVG)."""
    bounds, side = bounds_on_cells(cells, 4).tolist(), 480 // cells
    top = max(map(max, bounds))
    squares = [
        f'<rect x="{60 + side * column}" y="{20 + side * (cells - 1 - row)}" width="{side}" height="{side}" '
        f'fill="#0550ae" fill-opacity="{bound / top:.3f}"><title>at most {bound:.4f}</title></rect>'
        for column, line in enumerate(bounds)
        for row, bound in enumerate(line)
    ]
    label = '<text x="{}" y="{}" text-anchor="middle">{}</text>'.format
    size = side * cells
    texts = [label(60 + size / 2, size + 52, "t"), label(30, 20 + size / 2, "x")]
    texts += [label(60 + size * k, size + 36, k) + label(48, 24 + size * (1 - k), k) for k in (0, 1)]
    texts.append(label(60 + size / 2, 14, f"certified |u_t - {ALPHA} u_xx|: at most {top:.4f} (darkest)"))
    frame = f'<rect x="60" y="20" width="{size}" height="{size}" fill="none" stroke="#1f2328"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size + 80} {size + 60}" font-family="sans-serif"'
    white = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head + ' font-size="13">', white, *squares, frame, *texts, "</svg>"]) + "\n"


def build(folder: Path = Path(__file__).parent) -> None:
    """Train and write the model."""
    write(folder, {"model.onnx": model(network())})


if __name__ == "__main__":
    if sys.argv[1:] == ["picture"]:
        (Path(__file__).parent / "residual.svg").write_text(picture(), encoding="utf-8")
    else:
        build()
