"""Accuracy by radius: natural, under attack, and certified. Shape letters: B samples, K classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verif.errors import PropertyError
from verif.rounding import TERMS
from verif.training.attacks import Attack
from verif.training.compiled import Method, Step
from verif.training.regions import around, margins


@dataclass(frozen=True)
class Accuracy:
    """Of `count` samples: the shares whose label is right, stays right under attack, and is proved to stay right within
    `radius`. What lies between the last two is undecided.
    """

    radius: float
    count: int
    natural: float
    attacked: float
    certified: float


@dataclass(frozen=True)
class Judge:
    """How samples are judged: the norm, the ends of the data's range, the bound and the attack."""

    norm: float = math.inf
    least: float | None = None
    most: float | None = None
    method: Method = "alpha-crown"
    attack: Attack = field(default_factory=lambda: Attack(20))


def evaluate(
    step: Callable[[Tensor], Step],
    batches: Sequence[tuple[Tensor, Tensor]],
    radii: Sequence[float],
    judge: Judge = Judge(),
) -> Iterator[Accuracy]:
    """For each radius, in order. `step` is `Compiled.step` of a module in evaluation mode, or makes a network's step of
    a batch (B, *shape); batches are samples and labels (B,). Raises PropertyError for labels that do not fit.
    """
    for radius in radii:
        found = torch.zeros(3, dtype=torch.int64)
        for x, labels in batches:
            found += _judged(step(x), x, labels, radius, judge)
        count = sum(len(labels) for _, labels in batches)
        natural, attacked, certified = (float(part) / max(count, 1) for part in found)
        yield Accuracy(radius, count, natural, attacked, certified)


@torch.no_grad()
def _judged(step: Step, x: Tensor, labels: Tensor, radius: float, judge: Judge) -> Tensor:
    """How many of a batch are right, right under attack, and certified, (3,)."""
    if len(labels) != len(x):
        raise PropertyError("P116", f"there are {len(x)} samples and {len(labels)} labels")
    rows = margins(labels, step.count).to(x)
    region = around(x, radius, judge.norm, judge.least, judge.most)
    right = step.outputs.argmax(1) == labels
    found = step.at(judge.attack(step, region, labels))
    stays = right & ((rows @ found[..., None])[..., 0] > 0).all(1)
    noise = TERMS * torch.finfo(x.dtype).eps * (1 + step.outputs.abs().amax(1, keepdim=True))
    proved = right & (step.lower(region, rows, judge.method) > noise).all(1)
    return torch.stack([right.sum(), (stays | proved).sum(), proved.sum()])
