"""One small transformer of digits under several normalisers, a mixture of experts and a Gumbel selector.

An image (B, 1, 8, 8) is eight tokens, its rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from verif.attention import Attention, Landmarks, Scores, SoftplusScores
from verif.nn import SigmoidShares, StableMax, TemperatureGate, TopKGate, gumbel_noise

TOKENS, WIDTH, HEADS, HIDDEN, CLASSES = 8, 16, 2, 32, 10
EXPERTS, CHOSEN, PICKED = 4, 2, 3

WEIGHTS: dict[str, Callable[[], nn.Module]] = {
    "softmax": lambda: Scores(nn.Softmax(-1)),
    "stablemax": lambda: Scores(StableMax()),
    "softplus": SoftplusScores,
    "gaussian": lambda: Landmarks(4, 4),
    "sigmoid": lambda: Scores(SigmoidShares()),
}


class Transformer(nn.Module):
    """One block: attention and a perceptron, both beside a skip; logits from all tokens."""

    def __init__(self, weights: nn.Module) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(8, WIDTH), nn.Parameter(0.1 * torch.randn(TOKENS, WIDTH))
        self.attention = Attention(WIDTH, HEADS, weights)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))
        self.head = nn.Linear(TOKENS * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10)."""
        x = self.embed(x.squeeze(1)) + self.place
        x = x + self.attention(x)
        x = x + self.perceptron(x)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class Experts(nn.Module):
    """Of four small perceptrons a sparse gate chooses two and weighs them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Flatten(), nn.Linear(64, EXPERTS), TopKGate(CHOSEN))
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(64, EXPERTS * 16), nn.ReLU())
        self.second = nn.Parameter(torch.randn(EXPERTS, 16, CLASSES) / 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10)."""
        said = self.first(x).reshape(-1, EXPERTS, 1, 16) @ self.second
        return (self.gate(x).unsqueeze(1) @ said.squeeze(2)).squeeze(1)  # type: ignore[no-any-return]


class Selector(nn.Module):
    """Three Gumbel selectors, whose noise is fixed, each pick a row of the image; a perceptron reads the three."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Sequential(nn.Flatten(), nn.Linear(64, PICKED * TOKENS))
        self.gate = TemperatureGate(1.0, gumbel_noise(PICKED, TOKENS, seed=1))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(PICKED * 8, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10)."""
        picked = self.gate(self.scores(x).reshape(-1, PICKED, TOKENS)) @ x.squeeze(1)
        return self.head(picked)  # type: ignore[no-any-return]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda make=make: Transformer(make()) for name, make in WEIGHTS.items()},  # type: ignore[misc]
    "experts": Experts,
    "selector": Selector,
}
