"""Collision avoidance: a ReLU network learns a geometric policy for an aircraft that meets another one.

Inputs: distance (km), bearing of the intruder (rad, left is positive), its heading relative to ours (rad), our speed
and its speed (km/min). Outputs: scores of five advisories; the largest is the advice.

The policy looks at the point of closest approach if nobody turns. Far apart in space or time: clear of conflict. Else
turn to the side away from the intruder's pass, strongly if the miss distance is small.

    python -m cases.collision.recipe        # writes model.onnx, *.vnnlib and case.toml here, in about 10 s
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional as F

from cases.onnx_writer import OnnxWriter
from cases.tools import Claim, largest, not_largest, train, write_case

CLEAR, WEAK_LEFT, WEAK_RIGHT, STRONG_LEFT, STRONG_RIGHT = range(5)
LOWER = torch.tensor([0.5, -3.1416, -3.1416, 4.0, 4.0])
UPPER = torch.tensor([20.0, 3.1416, 3.1416, 12.0, 12.0])
HORIZON, NEAR, CLOSE = 1.5, 4.0, 2.0  # minutes, km, km
SEED, BATCH, STEPS = 1, 2048, 4000


def policy(x: Tensor) -> Tensor:
    """The advisory, (B,) int64, for encounters x (B, 5)."""
    distance, bearing, heading, ours, theirs = x.unbind(1)
    position = distance[:, None] * torch.stack([bearing.cos(), bearing.sin()], 1)
    velocity = theirs[:, None] * torch.stack([heading.cos(), heading.sin()], 1)
    velocity = velocity - torch.stack([ours, torch.zeros_like(ours)], 1)
    time = (-(position * velocity).sum(1) / velocity.square().sum(1).clamp_min(1e-6)).clamp(0, HORIZON)
    miss = position + time[:, None] * velocity
    away = torch.where(miss[:, 1] > 0, 1, 0)  # 1: it passes on our left, so turn right
    strong = torch.where(miss.norm(dim=1) < CLOSE, STRONG_LEFT, WEAK_LEFT)
    return torch.where(miss.norm(dim=1) < NEAR, strong + away, CLEAR)


def network() -> nn.Sequential:
    """Train on random encounters, scaled to [-1, 1]."""
    torch.manual_seed(SEED)
    sizes = [5, 32, 32, 32, 5]
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    net = nn.Sequential(*layers[:-1])

    def loss(step: int) -> Tensor:
        unit = torch.rand(BATCH, 5)
        return F.cross_entropy(net(2 * unit - 1), policy(LOWER + unit * (UPPER - LOWER)))

    train(net, loss, STEPS, 5e-3)
    return net


def model(net: nn.Sequential) -> ModelProto:
    """The network with its scaling in front, so that its inputs are in km, rad and km/min."""
    writer = OnnxWriter()
    centered = writer.add("Sub", "x", writer.constant((LOWER + UPPER) / 2, "center"), name="center_inputs")
    scaled = writer.add("Div", centered, writer.constant((UPPER - LOWER) / 2, "half_range"), name="scale_inputs")
    return writer.model("collision", (1, 5), writer.sequential(scaled, net), (1, 5))


def evaluate(net: nn.Sequential, x: Tensor) -> Tensor:
    """Scores of encounters x (B, 5) in km, rad and km/min."""
    return net((x - (LOWER + UPPER) / 2) / ((UPPER - LOWER) / 2))


def claims() -> list[Claim]:
    """What is asked about the network."""
    left = [largest(WEAK_LEFT, 5), largest(STRONG_LEFT, 5)]
    box = partial(torch.tensor, dtype=torch.float64)
    return [
        Claim(
            "behind_is_clear.vnnlib",
            "an intruder far behind on our left that is not faster than we are: clear of conflict",
            box([12.0, 1.8, -1.0, 6.0, 4.0]),
            box([20.0, 3.1416, 1.0, 12.0, 8.0]),
            not_largest(CLEAR, 5),
            True,
            "proved by input splitting in tens of boxes, also with auto_LiRPA's bounds; the trial agrees",
        ),
        Claim(
            "head_on_is_never_clear.vnnlib",
            "nearly head-on within 8 km: some turn scores more than clear of conflict",
            box([3.0, 0.0, 2.9, 6.0, 6.0]),
            box([8.0, 0.2, 3.1416, 12.0, 12.0]),
            [largest(CLEAR, 5)],
            True,
            "even STRONG_RIGHT > CLEAR is proved by input splitting, also with auto_LiRPA's bounds (125 boxes)",
        ),
        Claim(
            "passing_left_never_left.vnnlib",
            "an oncoming intruder that passes on our left: a left turn is never the advice",
            box([3.0, 0.2, 2.6, 5.0, 5.0]),
            box([8.0, 0.7, 3.1416, 10.0, 10.0]),
            left,
            True,
            "proved clause by clause by input splitting, also with auto_LiRPA's bounds (64 boxes)",
        ),
        Claim(
            "dead_ahead_never_left.vnnlib",
            "the same from dead ahead",
            box([3.0, 0.0, 2.6, 5.0, 5.0]),
            box([8.0, 0.7, 3.1416, 10.0, 10.0]),
            left,
            False,
            "dead ahead (bearing 0) the policy changes sides, and the network's border is not exactly there; replayed",
        ),
        Claim(
            "head_on_is_strong_right.vnnlib",
            "an intruder dead ahead, up to a small bearing to either side: always strong right",
            box([4.0, -0.02, 3.0, 7.0, 7.0]),
            box([6.0, 0.02, 3.1416, 9.0, 9.0]),
            not_largest(STRONG_RIGHT, 5),
            False,
            "the policy turns left when the intruder passes on our right, and the network has learned so; replayed",
        ),
    ]


def build(folder: Path = Path(__file__).parent) -> None:
    """Train, check and write the case."""
    net = network()
    about = "A 5-32-32-32-5 ReLU network that has learned a geometric policy; the largest score is the advice."
    write_case(folder, "Collision avoidance", about, model(net), claims(), lambda x: evaluate(net, x))


if __name__ == "__main__":
    build()
