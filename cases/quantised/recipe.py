"""Two networks at once, in VNN-LIB 2.0: the lane controller against copies of itself.

`quantised` has its weights rounded to 6 bits per layer; `permuted` has its hidden units in another order.

    python -m cases.quantised.recipe        # writes the models, *.vnnlib and case.toml here, in about 10 s
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor, nn

from cases.lane import recipe as lane
from cases.onnx_writer import OnnxWriter
from cases.tools import Claim, Evaluate, case_toml, check_replay, decimal, entry, outside, write

BITS, SEED = 6, 3
LOWER = torch.tensor([-0.5, -0.4, -0.2], dtype=torch.float64)  # y, psi, v in the controller's own units
UPPER = -LOWER
PROVED = "proved by input splitting on the difference, also with auto_LiRPA's bounds (297 boxes); the trial agrees"
FOUND = "the trial finds an input where they differ by more; replayed"
EXACT = "the copies compute the same function by construction, up to rounding"


def quantise(net: nn.Sequential) -> nn.Sequential:
    """A copy whose weights are multiples of the largest of their layer over 2^(BITS - 1) - 1."""
    copy = deepcopy(net)
    with torch.no_grad():
        for parameter in copy.parameters():
            step = parameter.abs().max() / (2 ** (BITS - 1) - 1)
            parameter.copy_((parameter / step).round() * step)
    return copy


def permute(net: nn.Sequential) -> nn.Sequential:
    """A copy with the units of every hidden layer in another order."""
    torch.manual_seed(SEED)
    copy = deepcopy(net)
    layers = [layer for layer in copy if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, after in pairwise(layers):
            order = torch.randperm(layer.out_features)
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])
            after.weight.copy_(after.weight[:, order])
    return copy


def model(net: nn.Sequential) -> ModelProto:
    """One controller: (1, 3) to (1, 2)."""
    writer = OnnxWriter()
    return writer.model("controller", (1, 3), writer.sequential("x", net), (1, 2))


def differ(file: str, what: str, limit: float, holds: bool, because: str) -> Claim:
    """The claim that both outputs of two networks differ by less than `limit`, stated on the differences."""
    unsafe = [*outside(0, -limit, limit), *outside(1, -limit, limit)]
    return Claim(file, f"{what} differs from the controller by less than {limit}", LOWER, UPPER, unsafe, holds, because)


def vnnlib2(claim: Claim, limit: float) -> str:
    """The claim in VNN-LIB 2.0: both networks get the same input."""
    lines = [f"; {claim.title}", "(vnnlib-version <2.0>)"]
    lines += ["(declare-network f", "  (declare-input X_f real [1,3])", "  (declare-output Y_f real [1,2])", ")"]
    lines += ["(declare-network g", "  (isomorphic-to f)", "  (declare-input X_g real [1,3])"]
    lines += ["  (declare-output Y_g real [1,2])", ")"]
    for i in range(3):
        low, high = decimal(claim.lower[i]), decimal(claim.upper[i])
        lines += [f"(assert (and (>= X_f[0,{i}] {low}) (<= X_f[0,{i}] {high}) (== X_f[0,{i}] X_g[0,{i}])))"]
    atoms = [f"(>= (- Y_g[0,{i}] Y_f[0,{i}]) {decimal(limit)})" for i in range(2)]
    atoms += [f"(<= (- Y_g[0,{i}] Y_f[0,{i}]) {decimal(-limit)})" for i in range(2)]
    return "\n".join([*lines, "(assert (or", *(f"  {atom}" for atom in atoms), "))", ""])


def difference(f: nn.Sequential, g: nn.Sequential) -> Evaluate:
    """g - f on inputs (B, 3)."""

    def evaluate(x: Tensor) -> Tensor:
        return g(x) - f(x)

    return evaluate


def build(folder: Path = Path(__file__).parent) -> None:
    """Train, check and write the case."""
    f = lane.network()
    copies = {"quantised": quantise(f), "permuted": permute(f)}
    claims = [
        ("quantised", 0.06, differ("quantised_close.vnnlib", "the copy of 6 bits", 0.06, True, PROVED)),
        ("quantised", 0.02, differ("quantised_closer.vnnlib", "the copy of 6 bits", 0.02, False, FOUND)),
        ("permuted", 0.05, differ("permuted_close.vnnlib", "the copy in another order", 0.05, True, EXACT)),
    ]
    models = {name: model(net) for name, net in {"controller": f, **copies}.items()}
    rows, texts = [], {}
    for name, limit, claim in claims:
        check_replay(models[name], copies[name], LOWER, UPPER, 2)
        networks = {"f": "controller.onnx", "g": f"{name}.onnx"}
        rows.append({"networks": networks, **entry(claim, difference(f, copies[name]))})
        texts[claim.file] = vnnlib2(claim, limit)
    about = (
        "The lane controller (3-12-12-2, tanh) against copies of itself; both networks of a query get the same input."
    )
    toml = case_toml("Quantised and permuted copies", about, {}, rows)
    write(folder, {**{f"{name}.onnx": proto for name, proto in models.items()}, **texts, "case.toml": toml})


if __name__ == "__main__":
    build()
