"""Train one small convolutional network with every method of certified training, and compare what each can prove.

    python examples/certified.py                                # the digits of scikit-learn, every method
    python examples/certified.py --methods plain IBP SABR --models out
    python examples/certified.py --data ~/data --radius 0.008 --radii 0.004,0.008       # MNIST or CIFAR-10

All have the same network, seed, steps and learning rate; the radius grows from 0 to the last one. With --models each
network is exported as ONNX beside the samples (data.npz), for `verify accuracy` and every other command.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from images import Images, load
from torch import Tensor, nn

import verif
from relaxations.sets import InputSet
from verif.training import (
    CCIBP,
    IBP,
    MTLIBP,
    SABR,
    TAPS,
    Attack,
    CompSum,
    CrossEntropy,
    CrownIBP,
    ExpIBP,
    FusedCrownIBP,
    Judge,
    LatentAttack,
    Ramp,
    SmoothCompSum,
    Spherical,
    StableMax,
    Step,
    WarmUp,
    ZLoss,
    initialise,
)

Loss = Callable[[Step, InputSet, Tensor], Tensor]
Method = Callable[[float], Loss]  # the loss after a share of the training
ATTACK = Attack(3, 0.5)


def plain(step: Step, region: InputSet, labels: Tensor) -> Tensor:
    """Cross-entropy at the clean batch."""
    return F.cross_entropy(step.outputs, labels)


def adversarial(step: Step, region: InputSet, labels: Tensor) -> Tensor:
    """Cross-entropy at what an attack finds (Madry et al. 2018)."""
    return F.cross_entropy(step.at(ATTACK(step, region, labels)), labels)


def clean(share: float) -> float:
    """The weight of the clean loss: 1 at first, 0.3 from the middle on."""
    return Ramp(1.0, 0.3, 10, 50)(100 * share)


def latent(share: float) -> Loss:
    """Attacks at the input, then behind the first ReLU, the layers before it fixed."""
    return adversarial if share < 0.6 else LatentAttack(1, ATTACK)


# The spherical loss does not start by itself: squares of intervals around 0 have no slope.
METHODS: dict[str, Method] = {
    "plain": lambda share: plain,
    "adversarial": lambda share: adversarial,
    "IBP": lambda share: IBP(clean(share)),
    "CROWN-IBP": lambda share: CrownIBP(1 - share, clean(share)),
    "CROWN-IBP, fused": lambda share: FusedCrownIBP(),
    "SABR": lambda share: SABR(0.4, ATTACK),
    "TAPS": lambda share: TAPS(attack=ATTACK),
    "STAPS": lambda share: TAPS(small=SABR(0.6, ATTACK), attack=ATTACK),
    "CC-IBP": lambda share: CCIBP(0.5, ATTACK),
    "MTL-IBP": lambda share: MTLIBP(0.5, ATTACK),
    "Exp-IBP": lambda share: ExpIBP(0.5, ATTACK),
    "latent attack": latent,
    "smooth comp-sum": lambda share: SmoothCompSum(nu=0.3),
    "IBP, generalised cross-entropy": lambda share: IBP(clean(share), CompSum(1.3)),
    "IBP, StableMax": lambda share: IBP(clean(share), StableMax()),
    "IBP, spherical": lambda share: IBP(clean(share), Spherical(0.1) if share > 0.4 else CrossEntropy()),
    "IBP, Z-loss": lambda share: IBP(clean(share), ZLoss()),
}


@dataclass(frozen=True)
class Recipe:
    """What all methods share."""

    radius: float
    steps: int = 800
    batch: int = 128
    rate: float = 5e-3
    width: int = 16
    seed: int = 0

    def network(self, shape: tuple[int, ...], classes: int) -> nn.Sequential:
        """Two strided convolutions (one for images as small as digits) and two linear layers."""
        torch.manual_seed(self.seed)
        layers: list[nn.Module] = [nn.Conv2d(shape[0], self.width, 3, 2, 1), nn.ReLU()]
        if shape[1] > 8:
            layers += [nn.Conv2d(self.width, 2 * self.width, 3, 2, 1), nn.ReLU()]
        size = nn.Sequential(*layers)(torch.zeros(1, *shape)).numel()
        layers += [nn.Flatten(), nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, classes)]
        return nn.Sequential(*layers)

    def train(self, method: Method, images: Images) -> nn.Sequential:
        """The network after the last step, in evaluation mode."""
        x, labels = images.train
        network = self.network(tuple(x.shape[1:]), int(labels.max()) + 1)
        certified = method not in (METHODS["plain"], METHODS["adversarial"])
        if certified:
            initialise(network, torch.Generator().manual_seed(self.seed))
        compiled = verif.compile(network, x[: self.batch])
        optimiser = torch.optim.Adam(network.parameters(), self.rate)
        rate = torch.optim.lr_scheduler.MultiStepLR(optimiser, [int(0.7 * self.steps), int(0.9 * self.steps)], 0.2)
        grown = Ramp(0.0, self.radius, int(0.1 * self.steps), int(0.6 * self.steps))
        for turn, chosen in enumerate(self._batches(len(x))):
            step, radius = compiled.step(x[chosen]), grown(turn)
            region = verif.around(x[chosen], radius, least=0.0, most=1.0)
            loss = method(turn / self.steps)(step, region, labels[chosen])
            if certified and radius < self.radius:
                loss = loss + 0.5 * (1 - radius / self.radius) * WarmUp()(step, region)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimiser.step()
            rate.step()
        return network.eval()

    def _batches(self, count: int) -> Iterator[Tensor]:
        random = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(count, generator=random)
        for _ in range(self.steps):
            if len(order) < min(self.batch, count):
                order = torch.randperm(count, generator=random)
            yield order[: self.batch]
            order = order[self.batch :]


def judged(network: nn.Module, images: Images, radii: list[float], timeout: float = 0.0) -> list[dict[str, Any]]:
    """Natural, attacked and certified accuracy at each radius."""
    judge = Judge(least=0.0, most=1.0, timeout=timeout)
    return [asdict(one) for one in verif.evaluate(network, [images.test], radii, judge)]


def export(network: nn.Module, path: Path, x: Tensor) -> None:
    """The network as ONNX, for one sample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(network, (x[:1],), path, dynamo=False, opset_version=17, input_names=["x"])


def main() -> None:
    """Train with each method in turn; a line for each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, or a torchvision folder")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD")
    parser.add_argument("--radius", type=float, default=0.1, help="the last radius of the training")
    parser.add_argument("--radii", default="0.05,0.1", help="those of the table")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--width", type=int, default=16, help="channels of the first layer")
    parser.add_argument("--train", type=int, default=60000, help="use at most so many samples")
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--timeout", type=float, default=0.0, help="seconds of search for each undecided sample")
    parser.add_argument("--json", type=Path, help="write the table here")
    parser.add_argument("--models", type=Path, help="export the networks and the test samples into this folder")
    options = parser.parse_args()
    images, recipe = load(options.data), Recipe(options.radius, options.steps, width=options.width)
    images = images.first(options.train, options.test)
    radii = [float(part) for part in options.radii.split(",")]
    if options.models:
        options.models.mkdir(parents=True, exist_ok=True)
        np.savez(options.models / "data.npz", x=images.test[0].numpy(), y=images.test[1].numpy())
    print(f"{'':32}natural" + "".join(f"{f'attacked / certified at {radius:g}':>32}" for radius in radii))
    rows = []
    for name in options.methods:
        started = time.perf_counter()
        network = recipe.train(METHODS[name], images)
        seconds = time.perf_counter() - started
        found = judged(network, images, radii, options.timeout)
        rows.append({"method": name, "accuracy": found})
        shares = "".join(f"{100 * one['attacked']:21.1f} / {100 * one['certified']:5.1f} %" for one in found)
        print(f"{name:32}{100 * found[0]['natural']:5.1f} %{shares}   trained in {seconds:.0f} s", flush=True)
        if options.models:
            export(network, options.models / f"{name.replace(', ', ' ').replace(' ', '_')}.onnx", images.test[0])
    if options.json:
        options.json.write_text(json.dumps({"recipe": asdict(recipe), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
