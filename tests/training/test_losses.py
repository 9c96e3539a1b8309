"""Certified losses: sound, differentiable, and worth their training."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import verif
from graphs.exported.today import Normalise
from relaxations.sets import Box
from verif.errors import PropertyError
from verif.training import (
    CCIBP,
    IBP,
    MTLIBP,
    SABR,
    TAPS,
    CompSum,
    CrownIBP,
    ExpIBP,
    FusedCrownIBP,
    LatentAttack,
    Ramp,
    initialise,
)
from verif.training.attacks import Attack

LOSSES = [IBP(), IBP(0.5), CrownIBP(), CrownIBP(0.5), FusedCrownIBP(), SABR(0.2), CCIBP(), MTLIBP(), ExpIBP()]
CERTIFIED = [IBP(), CrownIBP(), CrownIBP(0.5), FusedCrownIBP()]


def network(classes: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 12),
        nn.Tanh(),
        nn.Linear(12, classes),
    ]
    return nn.Sequential(*layers).double()


def batch(size: int = 5, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.rand(size, 1, 4, 4, generator=random, dtype=torch.float64)
    return x, torch.randint(classes, (size,), generator=random)


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "alpha-crown"])
def test_bounds_lie_below_what_is_sampled(method: str, norm: float) -> None:
    x, labels = batch()
    step = verif.compile(network(), x).step(x)
    region = verif.around(x, torch.linspace(0.02, 0.1, len(x)), norm, 0.0, 1.0)
    rows = verif.margins(labels, 4).double()
    lower = step.lower(region, rows, method)  # type: ignore[arg-type]
    for points in region.sample(40, torch.Generator().manual_seed(2)).unbind(1):
        assert bool((lower <= (rows @ step.at(points)[..., None])[..., 0] + 1e-9).all())


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_losses_have_gradients_of_all_parameters(loss) -> None:  # type: ignore[no-untyped-def]
    x, labels = batch()
    module = network()
    torch.manual_seed(3)
    loss(verif.compile(module, x).step(x), verif.around(x, 0.05), labels).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and bool(p.grad.any()) for p in module.parameters())


@pytest.mark.parametrize("loss", CERTIFIED, ids=lambda loss: f"{type(loss).__name__}{getattr(loss, 'beta', '')}")
def test_certified_losses_lie_above_what_an_attack_finds(loss) -> None:  # type: ignore[no-untyped-def]
    x, labels = batch(8)
    for seed, radius in ((0, 0.02), (1, 0.1), (2, 0.5)):
        step = verif.compile(network(seed=seed), x).step(x)
        region = verif.around(x, radius, least=0.0, most=1.0)
        torch.manual_seed(seed)
        found = F.cross_entropy(step.at(Attack(20)(step, region, labels)), labels)
        assert loss(step, region, labels).item() >= found.item() - 1e-9


@pytest.mark.parametrize("head", [CompSum(), CompSum(0.5), CompSum(1.7, 2.0)])
def test_fused_loss_is_one_row_and_close_to_the_rows_apart(head: CompSum) -> None:
    x, labels = batch(6)
    step = verif.compile(network(), x).step(x)
    for radius in (0.0, 1e-3, 0.02):
        region = verif.around(x, radius)
        fused, apart = (loss(step, region, labels).item() for loss in (FusedCrownIBP(head), CrownIBP(head=head)))
        assert fused == pytest.approx(apart, rel=0.05)


@pytest.mark.parametrize("last", [nn.Identity(), nn.Softplus()], ids=["linear", "bent"])
def test_margins_are_those_of_rows(last: nn.Module) -> None:
    x, labels = batch()
    step = verif.compile(nn.Sequential(network(), last), x).step(x)
    region, rows = verif.around(x, 0.1), verif.margins(labels, 4).double()
    low, high = step.margins(region, labels)
    others = F.one_hot(labels, 4) == 0
    torch.testing.assert_close(low[others].reshape(5, 3), step.lower(region, rows, "ibp"))
    torch.testing.assert_close(high[others].reshape(5, 3), -step.lower(region, -rows, "ibp"))
    assert not low[~others].any() and not high[~others].any()


@pytest.mark.parametrize("shape", [(5, 1, 3), (4, 1, 2, 3, 2)], ids=["vectors", "images"])
@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
def test_normalisation_has_gradients_of_all_it_gives(shape: tuple[int, ...], affine: bool) -> None:
    random = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(s, generator=random).double().requires_grad_() for s in (shape, shape[2], shape[2]))
    given = (x, weight, bias) if affine else (x,)

    def outputs(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return Normalise.apply(x, *(rest or (None, None)), (None, None), (0.1, 1e-3))  # type: ignore[no-untyped-call,no-any-return]

    assert torch.autograd.gradcheck(outputs, given)


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown"])
def test_gradients_agree_with_differences(method: str) -> None:
    x, labels = batch(2)
    module = network()
    compiled = verif.compile(module, x)
    rows = verif.margins(labels, 4).double()
    weight = module.get_submodule("3").weight

    def total(radius: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            weight.copy_(value)
        step = compiled.step(x)
        lower = step.lower(verif.around(x, radius), rows, method)  # type: ignore[arg-type]
        return lower.square().sum()

    held, radius = weight.detach().clone(), torch.tensor([0.05, 0.03], dtype=torch.float64, requires_grad=True)
    loss = total(radius, held)
    by_radius, by_weight = torch.autograd.grad(loss, [radius, weight])
    direction, step = torch.randn_like(held), 1e-6
    ahead, behind = (total(radius, held + sign * step * direction).item() for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(float((by_weight * direction).sum()), rel=1e-4, abs=1e-6)
    more, less = (total((radius + sign * step).detach(), held).item() for sign in (1, -1))
    assert (more - less) / (2 * step) == pytest.approx(float(by_radius.sum()), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss", [*LOSSES, TAPS(), LatentAttack()], ids=lambda loss: type(loss).__name__)
def test_labels_that_do_not_fit_are_named(loss) -> None:  # type: ignore[no-untyped-def]
    x, labels = batch()
    step, region = verif.compile(network(), x).step(x), verif.around(x, 0.1)
    for wrong in (labels + 3, labels - 100, labels.int(), labels.double(), labels[:4], labels[:, None]):
        with pytest.raises(
            PropertyError, match=r"P116.*(labels must lie between 0 and 3|labels are int64|5 samples and 4)"
        ):
            loss(step, region, wrong)


def test_a_loss_that_is_none_names_the_module() -> None:
    x, labels = batch()
    body = network()
    module = nn.Sequential(OrderedDict(layer3=nn.Sequential(body)))
    weight = body.get_submodule("5").weight.detach()
    weight.fill_(-1e308)
    weight[::2] = 1e308
    with pytest.raises(FloatingPointError, match=r"bounds are infinite from linear 'layer3\.0\.5' on; the radius"):
        IBP()(verif.compile(module, x).step(x), verif.around(x, 9.0), labels)
    weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match=r"not finite: the weight of linear 'layer3\.0\.5' is not finite"):
        FusedCrownIBP()(verif.compile(module, x).step(x), verif.around(x, 0.1), labels)


def test_ramps_and_initial_weights() -> None:
    ramp = Ramp(0.0, 2.0, 10, 20)
    assert [ramp(step) for step in (0, 10, 15, 20, 99)] == [0.0, 0.0, 1.0, 2.0, 2.0]
    assert Ramp(1.0, 0.0, 0, 4, smooth=False)(1) == 0.75
    wide = nn.Sequential(nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))
    initialise(wide, torch.Generator().manual_seed(0))
    x = torch.zeros(1, 400)
    lower, upper = verif.compile(wide, x).step(x).outer(Box(x - 0.1, x + 0.1))
    assert 0.02 < (upper - lower).mean().item() < 2.0  # neither vanished nor grown by layers


def test_certified_training_certifies_more() -> None:
    """Two clusters: plain training leaves points uncertified that interval training certifies."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 2
    x = 0.35 * torch.randn(120, 8, generator=random) + (labels[:, None] * 2.0 - 1.0) * 0.6
    region, rows = verif.around(x, 0.5), verif.margins(labels, 2)
    share = []
    for certified in (False, True):
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2))
        compiled, optimiser = verif.compile(module, x), torch.optim.Adam(module.parameters(), 0.01)
        for turn in range(60):
            step = compiled.step(x)
            loss = F.cross_entropy(step.outputs, labels)
            if certified:
                loss = IBP(0.3)(step, verif.around(x, Ramp(0.0, 0.5, 0, 40)(turn)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            share.append(float((compiled.step(x).lower(region, rows, "ibp") > 0).all(1).float().mean()))
    assert share[1] > 0.6
    assert share[1] > 1.5 * share[0]
