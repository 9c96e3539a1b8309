"""Verdicts of tiny networks under every normaliser, beside values on a dense grid of their two inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from verif import Verdict, compile, verify
from verif.attention import Attention, Landmarks, Scores, SoftplusScores
from verif.nn import SigmoidShares, StableMax, TemperatureGate, TopKGate, gumbel_noise
from verif.properties import linear

SHARES: dict[str, Callable[[], nn.Module]] = {
    "softmax": lambda: Scores(nn.Softmax(-1)),
    "stablemax": lambda: Scores(StableMax()),
    "softplus": SoftplusScores,
    "gaussian": lambda: Landmarks(2, 2),
    "sigmoid": lambda: Scores(SigmoidShares()),
    "top-k": lambda: Scores(TopKGate(1)),
    "gumbel": lambda: Scores(TemperatureGate(0.5, gumbel_noise(2, 2, seed=1))),
}


class Tiny(nn.Module):
    """Two tokens of width 2 from two inputs, attention, a sum of what it says."""

    def __init__(self, weights: nn.Module) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(2, 4), Attention(2, 1, weights)

    def forward(self, x: Tensor) -> Tensor:
        """One number (B, 1)."""
        return self.attention(2 * self.embed(x).reshape(-1, 2, 2)).flatten(1).sum(1, keepdim=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", SHARES)
def test_no_verdict_contradicts_a_dense_grid(name: str) -> None:
    torch.manual_seed(3)
    net = Tiny(SHARES[name]()).double().eval().requires_grad_(False)
    graph = compile(net, torch.zeros(1, 2).double()).graph()
    low, high = torch.tensor([-0.5, -0.5]).double(), torch.tensor([0.5, 0.5]).double()
    grid = torch.cartesian_prod(
        *(torch.linspace(float(a), float(b), 301).double() for a, b in zip(low, high, strict=True))
    )
    values = net(grid)
    least, spread = float(values.min()), float(values.max() - values.min())
    for limit, expected in ((least + 0.02 * spread, Verdict.VIOLATED), (least - 0.05 * spread, Verdict.HOLDS)):
        found = verify(graph, linear(graph, low, high, [[1.0]], [limit]), timeout=20)
        assert found.verdict is expected
        if found.counterexample is not None:
            assert float(net(found.counterexample.point.reshape(1, 2))) <= limit + 1e-6
