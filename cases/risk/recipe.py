"""Two risk models on scikit-learn's diabetes data: trained plainly, and to rise with body mass and blood pressure.

The second has a penalty on its loss: the bounds by which a proof of monotonicity fails (`verif.penalties`).

    python -m cases.risk.recipe             # writes plain.onnx, monotone.onnx and box.csv here, in about 10 s
"""

from __future__ import annotations

from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor, nn

from cases.onnx_writer import OnnxWriter
from cases.tools import train, write
from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from verif.penalties import monotonicity_violation

SEED, EPOCHS, MARGIN = 0, 500, 0.01
RISING = ("bmi", "bp")  # body mass index and average blood pressure are held to raise the risk


def data() -> tuple[Tensor, Tensor, list[str]]:
    """Features (442, 10) in [0, 1], the progression of the disease (442,), standardised, and the features' names."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes()
    x, y = (torch.as_tensor(part).float() for part in (found.data, found.target))
    return (x - x.amin(0)) / (x.amax(0) - x.amin(0)), (y - y.mean()) / y.std(), list(found.feature_names)


def network(penalty: float) -> nn.Sequential:
    """Train with so much weight on the violation of monotonicity over the whole box."""
    torch.manual_seed(SEED)
    x, y, names = data()
    net = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1))
    box, signs = Box(torch.zeros(1, 10), torch.ones(1, 10)), {names.index(name): 1 for name in RISING}

    def loss(step: int) -> Tensor:
        error = (net(x)[:, 0] - y).square().mean()
        if not penalty:
            return error
        return error + penalty * monotonicity_violation(graph(net), box, signs, MARGIN).sum()

    train(net, loss, EPOCHS, 1e-2)
    return net


def graph(net: nn.Sequential) -> Graph:
    """The network with its parameters as constants, so that bounds have gradients in them."""
    builder = GraphBuilder()
    value = builder.input("x", (10,))
    for layer in net:
        if isinstance(layer, nn.Linear):
            value = builder.add("linear", [value], {"weight": layer.weight, "bias": layer.bias})
        else:
            value = builder.add("relu", [value])
    return builder.build([value])


def model(net: nn.Sequential) -> ModelProto:
    """The network in ONNX."""
    writer = OnnxWriter()
    return writer.model("risk", (1, 10), writer.sequential("x", net), (1, 1))


def build(folder: Path = Path(__file__).parent) -> None:
    """Train and write the models and the box."""
    names = data()[2]
    box = "\n".join(["name,lower,upper", *(f"{name},0,1" for name in names), ""])
    write(folder, {"plain.onnx": model(network(0.0)), "monotone.onnx": model(network(1.0)), "box.csv": box})


if __name__ == "__main__":
    build()
