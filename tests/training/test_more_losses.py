"""Losses with attacks inside the network, losses other than cross-entropy, regularisers, the perpendicular gradient."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import verif
from relaxations.sets import Box
from tests.training.test_losses import batch, network
from verif.losses import comp_sum
from verif.nn import StableMaxCrossEntropy
from verif.operator_norms import OperatorNorm
from verif.penalties import lipschitz_bound, monotonicity_violation
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
    Drift,
    ExpIBP,
    FusedCrownIBP,
    LatentAttack,
    Logits,
    SmoothCompSum,
    Spherical,
    StableMax,
    WarmUp,
    ZLoss,
    perpendicular,
)
from verif.training.latent import connected, cut, tail

HEADS = [CrossEntropy(), CompSum(0.5, 2.0), CompSum(1.7), StableMax(), Spherical(), ZLoss(), Drift()]
EVERYWHERE = [TAPS(), TAPS(small=SABR(0.3)), TAPS(2), LatentAttack(9), SmoothCompSum()]
EVERYWHERE += [
    make(head=head)
    for head in HEADS[1:]
    for make in (IBP, CrownIBP, SABR, CCIBP, MTLIBP, ExpIBP, TAPS, partial(LatentAttack, 9))
]


def named(loss: Any) -> str:
    return " ".join(type(part).__name__ for part in (loss, getattr(loss, "head", None)) if part is not None)


@pytest.fixture(scope="module")
def traced() -> tuple[nn.Module, verif.Compiled]:
    module = network()
    return module, verif.compile(module, batch()[0])


@pytest.mark.parametrize("loss", EVERYWHERE, ids=named)
def test_losses_have_gradients_of_all_parameters(loss, traced: tuple[nn.Module, verif.Compiled]) -> None:  # type: ignore[no-untyped-def]
    (x, labels), (module, compiled) = batch(), traced
    for radius in (0.0, 0.05):
        module.zero_grad()
        torch.manual_seed(3)
        loss(compiled.step(x), verif.around(x, radius), labels).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() and bool(p.grad.any()) for p in module.parameters())


def test_latent_attack_trains_what_lies_behind() -> None:
    x, labels = batch()
    module = network()
    LatentAttack(1)(verif.compile(module, x).step(x), verif.around(x, 0.05), labels).backward()
    trained = {name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert trained == {"3.weight", "3.bias", "5.weight", "5.bias"}


def test_cut_is_passed_by_everything() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.a(x))
            return self.c(torch.relu(self.b(x) + torch.relu(x - 0.1)))

    x = torch.rand(2, 4)
    step = verif.compile(Residual(), x).step(x)
    ops = {bends: step.graph[cut(step.graph, bends)].op for bends in (0, 1, 2, 3)}
    assert ops == {0: "relu", 1: "add", 2: "relu", 3: "input"}
    for bends in (0, 1, 2, 3):
        behind, box = tail(step, Box(x.flatten(1), x.flatten(1)), bends)
        torch.testing.assert_close(behind.at(box.center), step.outputs)


def test_connector_moves_points_with_the_ends() -> None:
    lower, upper = (torch.full((1, 5), v, requires_grad=True) for v in (0.0, 1.0))
    points = torch.tensor([[0.0, 0.125, 0.5, 0.75, 1.0]])
    found = connected(points, Box(lower, upper), 0.5)
    torch.testing.assert_close(found.detach(), points)
    to_lower, to_upper = torch.autograd.grad(found.sum(), [lower, upper])
    assert to_lower.tolist() == [[1.0, 0.75, 0.0, 0.0, 0.0]] and to_upper.tolist() == [[0.0, 0.0, 0.0, 0.5, 1.0]]


def test_taps_lies_between_the_attacked_and_the_certified() -> None:
    """The product of both losses; without an attack inside, in a region of width 0, the square of the clean one."""
    x, labels = batch(8)
    step = verif.compile(network(), x).step(x)
    still = F.cross_entropy(step.outputs, labels, reduction="none").square().mean()
    assert TAPS()(step, verif.around(x, 0.0), labels).item() == pytest.approx(still.item())
    region = verif.around(x, 0.1)
    torch.manual_seed(0)
    bounded = CrossEntropy()(Logits.bounded(step, region, labels))
    found = TAPS(attack=Attack(20))(step, region, labels)
    attacked = F.cross_entropy(step.at(Attack(20)(step, region, labels)), labels, reduction="none")
    assert (attacked * bounded).mean() - 1e-9 <= found <= bounded.square().mean() + 1e-9


def test_gradients_of_the_product_are_weighed() -> None:
    x, labels = batch()
    module, region = network(), verif.around(x, 0.05)
    compiled = verif.compile(module, x)
    norms = []
    for weight in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        loss = TAPS(weight=weight)(compiled.step(x), region, labels)
        norms.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))]))
    torch.testing.assert_close(norms[1], (norms[0] + norms[2]) / 2)
    assert not torch.allclose(norms[0], norms[2])


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.7, 2.0])
def test_comp_sum_agrees_with_its_formula(tau: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 5, generator=random, dtype=torch.float64)
    labels = torch.randint(5, (20,), generator=random)
    gaps = (verif.margins(labels, 5).double() @ logits[..., None])[..., 0]
    total, share = (-gaps).exp().sum(1), logits.softmax(1).gather(1, labels[:, None])[:, 0]
    found = CompSum(tau)(Logits.at(logits, labels))
    if tau == 1:
        torch.testing.assert_close(found, -share.log())
    else:
        torch.testing.assert_close(found, ((1 + total) ** (1 - tau) - 1) / (1 - tau))
    if tau > 1:
        torch.testing.assert_close(found, (1 - share ** (tau - 1)) / (tau - 1))
    torch.testing.assert_close(CompSum(tau, 2.0)(Logits.at(logits, labels)), comp_sum(gaps / 2, tau))
    wide = torch.tensor([[-500.0, 3.0], [500.0, 500.0]])
    assert bool(comp_sum(wide, max(tau, 1.0)).isfinite().all())


@pytest.mark.parametrize("method", ["ibp", "crown-ibp"])
@pytest.mark.parametrize("radius", [0.0, 0.03, 0.2])
def test_certified_losses_lie_above_what_an_attack_finds(method: str, radius: float) -> None:
    x, labels = batch(8)
    step = verif.compile(network(), x).step(x)
    region, rows = verif.around(x, radius, least=0.0, most=1.0), verif.margins(labels, 4).double()
    clean = (rows @ step.outputs[..., None])[..., 0]
    smooth = SmoothCompSum(CompSum(1.2), 0.7, method)(step, region, labels).item()
    losses = [(head, Logits.bounded(step, region, labels, method)) for head in HEADS]  # type: ignore[arg-type]
    fused = [(head, FusedCrownIBP(head)(step, region, labels).item()) for head in HEADS if isinstance(head, CompSum)]
    torch.manual_seed(0)
    for points in (Attack(20)(step, region, labels), *region.sample(4).unbind(1)):
        found = Logits.at(step.at(points), labels)
        for head, worst in losses:
            assert bool((head(found) <= head(worst) + 1e-9).all())
        for head, whole in fused:
            assert head(found).mean().item() <= whole + 1e-9
        move = torch.linalg.vector_norm(found.margins - clean, dim=1)
        reached = (CompSum(1.2)(Logits.at(step.outputs, labels)) + 0.7 * move).mean()
        assert reached.item() <= smooth + 1e-9
    if radius == 0:
        for head, worst in losses:
            torch.testing.assert_close(head(worst), head(Logits.at(step.outputs, labels)), rtol=1e-5, atol=1e-7)


def test_heads_are_the_modules_losses() -> None:
    random = torch.Generator().manual_seed(0)
    z, labels = torch.randn(20, 5, generator=random, dtype=torch.float64), torch.arange(20) % 5
    found = Logits.at(z, labels)
    torch.testing.assert_close(CrossEntropy()(found).mean(), F.cross_entropy(z, labels))
    torch.testing.assert_close(StableMax()(found).mean(), StableMaxCrossEntropy()(z, labels))
    torch.testing.assert_close(Drift()(found), z.logsumexp(1).square())
    share = (z.square() + 1e-6) / (z.square() + 1e-6).sum(1, keepdim=True)
    torch.testing.assert_close(Spherical()(found), -share.gather(1, labels[:, None])[:, 0].log())


def test_margins_of_intervals_need_no_rows() -> None:
    x, labels = batch()
    for module in (network(), nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU()).double()):
        step, region = verif.compile(module, x).step(x), verif.around(x, 0.05, 2.0)
        rows = verif.margins(labels, 4)
        torch.testing.assert_close(Logits.bounded(step, region, labels).margins, step.lower(region, rows, "ibp"))


def test_mixed_logits() -> None:
    x, labels = batch()
    step = verif.compile(network(), x).step(x)
    region = verif.around(x, 0.05)
    for share, loss in ((0.0, F.cross_entropy(step.outputs, labels)), (1.0, IBP()(step, region, labels))):
        found = CCIBP(share, Attack(0, 0.0))
        mixed = Logits.at(step.outputs, labels).mixed(Logits.bounded(step, region, labels), share)
        torch.testing.assert_close(found.head(mixed).mean(), loss)


def test_warm_up_agrees_with_its_formula() -> None:
    """One neuron each active, inactive and unstable behind a layer that widens intervals fourfold."""
    module = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        module[0].weight.fill_(4.0)
        module[0].bias.copy_(torch.tensor([3.0, -1.0, 0.0]))
    x = torch.zeros(1, 1, dtype=torch.float64)
    found = WarmUp(0.5)(verif.compile(module, x).step(x), verif.around(x, 0.1))
    mean = 2 / 3  # of the centers 3, -1, 0
    ratios = 1 / 4, 1 / 3, ((1 + mean) / (3 - mean)) ** 2
    expected = sum(max(0.5 - ratio, 0) / 0.5 for ratio in ratios)
    assert found.item() == pytest.approx(expected)
    found.backward()
    assert bool(module[0].weight.grad.isfinite().all()) and bool(module[0].weight.grad.any())
    assert WarmUp()(verif.compile(nn.Linear(1, 2).double(), x).step(x), verif.around(x, 0.1)).item() == 0
    module.zero_grad()
    WarmUp()(verif.compile(module, x).step(x), verif.around(x, 0.0)).backward()
    assert bool(module[0].weight.grad.isfinite().all())


def test_perpendicular_gradients() -> None:
    random = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.randn(4, 3, generator=random))
    kept, along, none = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    g = torch.randn(4, 3, generator=random)
    w.grad, kept.grad, along.grad = g.clone(), torch.ones(3), torch.full((3,), 2.0)
    perpendicular([w, kept, along, none])
    assert float((w.grad * w).sum().detach()) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(w.grad.norm(), g.norm())
    assert torch.linalg.matrix_rank(torch.stack([w.grad.flatten(), g.flatten(), w.detach().flatten()]), rtol=1e-5) == 2
    assert kept.grad.tolist() == [1.0] * 3 and along.grad.tolist() == [0.0] * 3 and none.grad is None


def test_penalties_of_derivatives_beside_a_loss() -> None:
    x, labels = batch(3)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    step, region = verif.compile(module, x).step(x), verif.around(x, 0.05)
    flat = lipschitz_bound(step.graph, region.box(), OperatorNorm(math.inf, math.inf))
    (IBP()(step, region, labels) + 0.1 * flat.mean()).backward()
    assert flat.shape == (3,) and all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())
    risk = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    fall = monotonicity_violation(verif.compile(risk, x).step(x).graph, region.box(), {0: 1, 3: -1}, 0.5)
    fall.mean().backward()
    assert bool((fall > 0).any()) and all(bool(p.grad.isfinite().all()) for p in list(risk.parameters())[:3])


@pytest.mark.parametrize("loss", [TAPS(), IBP(), *(IBP(head=head) for head in HEADS)], ids=named)
def test_a_loss_that_is_none_is_an_error(loss) -> None:  # type: ignore[no-untyped-def]
    x, labels = batch()
    module = network()
    with torch.no_grad():
        list(module.parameters())[-1].fill_(math.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        loss(verif.compile(module, x).step(x), verif.around(x, 0.1), labels)


def test_bad_input_is_named() -> None:
    x, labels = batch()
    step = verif.compile(network(), x).step(x)
    for loss in (IBP(), TAPS(), IBP(head=CompSum()), IBP(head=StableMax())):
        with pytest.raises(verif.VerifError, match="labels must lie between 0 and 3"):
            loss(step, verif.around(x, 0.1), labels + 4)
    for radius in (-0.1, math.nan, torch.tensor([0.1, 0.1, -1e-9, 0.1, 0.1])):
        with pytest.raises(verif.VerifError, match="at least 0"):
            verif.around(x, radius)
    with pytest.raises(ValueError, match="tau lies"):
        CompSum(2.5)
