"""A car that keeps its lane: a tanh controller in a loop with unicycle dynamics, unrolled into one graph.

State: lateral offset y (m), heading psi (rad), speed v (m/s), and distance s (m) gone along the lane. The controller
sees (y, psi, v) and gives a turn rate and an acceleration, which the actuators limit by a tanh. One step of DT seconds:

    s += DT v cos(psi)    y += DT v sin(psi)    psi += DT turn    v += DT accel

The graph's input is the first (y, psi, v); its output is y after each of the STEPS steps, then the distance gone.
The controller is trained through the dynamics themselves to bring y and psi to 0 and v to TARGET.

    python -m cases.lane.recipe             # writes model.onnx, *.vnnlib and case.toml here, in about 10 s
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor, nn

from cases.onnx_writer import OnnxWriter
from cases.tools import Claim, Clause, outside, train, write_case

STEPS, DT, TARGET = 10, 0.1, 5.0
LIMITS = torch.tensor([1.5, 2.0])  # rad/s, m/s^2
SCALE = torch.tensor([1.0, 0.5, 5.0])  # what the controller divides y, psi and v - TARGET by
SEED, BATCH, EPOCHS = 0, 256, 300


def network() -> nn.Sequential:
    """Train the controller by gradients through a loop of 30 steps."""
    torch.manual_seed(SEED)
    net = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 2), nn.Tanh())

    def loss(step: int) -> Tensor:
        state = (2 * torch.rand(BATCH, 3) - 1) * torch.tensor([1.5, 0.6, 2.0]) + torch.tensor([0.0, 0.0, TARGET])
        cost = torch.zeros(())
        for _ in range(30):
            _, state = advance(net, state)
            cost = cost + (state - torch.tensor([0.0, 0.0, TARGET])).square().mul(torch.tensor([1.0, 0.3, 0.3])).mean()
        return cost

    train(net, loss, EPOCHS, 1e-2)
    return net


def advance(net: nn.Sequential, state: Tensor) -> tuple[Tensor, Tensor]:
    """One step from states (B, 3): the distance gone (B, 1) and the next states."""
    y, psi, v = state.split(1, 1)
    turn, accel = (net((state - torch.tensor([0.0, 0.0, TARGET])) / SCALE) * LIMITS).split(1, 1)
    return DT * v * psi.cos(), torch.cat([y + DT * v * psi.sin(), psi + DT * turn, v + DT * accel], 1)


def evaluate(net: nn.Sequential, state: Tensor) -> Tensor:
    """Lateral offsets after each step, then the distance gone, (B, STEPS + 1), from first states (B, 3)."""
    distance, offsets = torch.zeros(len(state), 1), []
    for _ in range(STEPS):
        gone, state = advance(net, state)
        distance, offsets = distance + gone, [*offsets, state[:, :1]]
    return torch.cat([*offsets, distance], 1)


def model(net: nn.Sequential) -> ModelProto:
    """The whole loop as one graph."""
    writer = OnnxWriter()
    dt = writer.constant(DT, "dt")
    scale = [writer.constant(a, name) for name, a in (("target", [0, 0, TARGET]), ("scale", SCALE), ("limits", LIMITS))]
    layers = [writer.constant(p, name) for name, p in net.named_parameters()]
    y, psi, v = (_column(writer, "x", i, f"first_{name}") for i, name in enumerate(("y", "psi", "v")))
    offsets, gone = [], []
    for step in range(STEPS):
        add = partial(_add, writer, f"step{step}")
        controls = _controller(add, add("Concat", y, psi, v, name="state", axis=1), layers, scale)
        turn, accel = (_column(writer, controls, i, f"step{step}.{name}") for i, name in enumerate(("turn", "accel")))
        gone.append(add("Mul", dt, add("Mul", v, add("Cos", psi)), name="gone"))
        y = add("Add", y, add("Mul", dt, add("Mul", v, add("Sin", psi))), name="y")
        psi = add("Add", psi, add("Mul", dt, turn), name="psi")
        v = add("Add", v, add("Mul", dt, accel), name="v")
        offsets.append(y)
    distance = writer.add("Sum", *gone, name="distance")
    output = writer.add("Concat", *offsets, distance, name="trajectory", axis=1)
    return writer.model("lane", (1, 3), output, (1, STEPS + 1))


def _add(writer: OnnxWriter, prefix: str, op: str, *inputs: str, name: str = "", **attrs: int) -> str:
    return writer.add(op, *inputs, name=f"{prefix}.{name or f'{op.lower()}_{len(writer.nodes)}'}", **attrs)


def _column(writer: OnnxWriter, x: str, index: int, name: str) -> str:
    """x[:, index : index + 1]."""
    bounds = [writer.constant([i], dtype=int) for i in (index, index + 1, 1)]
    return writer.add("Slice", x, *bounds, name=name)


def _controller(add: partial[str], state: str, layers: list[str], scale: list[str]) -> str:
    """Turn rate and acceleration, (1, 2); the same weights at every step."""
    target, unit, limits = scale
    x = add("Div", add("Sub", state, target), unit, name="scaled")
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        x = add("Tanh", add("Gemm", x, weight, bias, transB=1))
    return add("Mul", x, limits, name="controls")


def claims() -> list[Claim]:
    """What is asked about the loop."""
    box = partial(torch.tensor, dtype=torch.float64)

    def leaves(limit: float) -> list[Clause]:
        return [clause for step in range(STEPS) for clause in outside(step, -limit, limit)]

    return [
        Claim(
            "stays_in_lane.vnnlib",
            "from up to 0.5 m off the centre, the car stays within 0.65 m of it at every step",
            box([-0.5, -0.1, 4.5]),
            box([0.5, 0.1, 5.5]),
            leaves(0.65),
            True,
            "linear bounds prove it for every step, also auto_LiRPA's without a split; the dense trial leaves a margin",
        ),
        Claim(
            "makes_progress.vnnlib",
            "within one second the car goes more than 4 m along the lane",
            box([-0.5, -0.1, 4.5]),
            box([0.5, 0.1, 5.5]),
            [[("<=", STEPS, 4.0)]],
            True,
            "linear bounds prove it, also auto_LiRPA's without a split; the dense trial leaves a wide margin",
        ),
        Claim(
            "comes_back.vnnlib",
            "from 0.2 to 0.5 m on the left, the car is less than 0.3 m to the left after the last step",
            box([0.2, -0.1, 4.5]),
            box([0.5, 0.1, 5.5]),
            [[(">=", STEPS - 1, 0.3)]],
            True,
            "linear bounds prove it, also auto_LiRPA's without a split; the dense trial leaves a wide margin",
        ),
        Claim(
            "stays_in_lane_wide.vnnlib",
            "the same lane with first headings of up to 0.6 rad",
            box([-0.5, -0.6, 4.5]),
            box([0.5, 0.6, 5.5]),
            leaves(0.8),
            False,
            "a car that starts at 0.5 m and points outwards by 0.6 rad cannot turn fast enough; replayed",
        ),
    ]


def build(folder: Path = Path(__file__).parent) -> None:
    """Train, check and write the case."""
    net = network()
    about = "A tanh controller and unicycle dynamics (sin, cos, products of variables), ten steps as one graph."
    write_case(folder, "Lane keeping", about, model(net), claims(), partial(evaluate, net))


if __name__ == "__main__":
    build()
