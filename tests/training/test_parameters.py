"""Parameters that move within radii, beside the inputs: bounds hold for samples of both, and have gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import verif
from verif.errors import PropertyError
from verif.training import IBP, Compiled, CrownIBP

METHODS = ["ibp", "crown-ibp", "crown"]


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 2, 2), nn.Tanh()]
    module = nn.Sequential(*body, nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for part in (module[1], module[7]):
            assert isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_mean is not None
            part.running_mean.normal_()
            part.weight.normal_()
            part.bias.normal_()
    return module.eval()


def batch() -> Tensor:
    return torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


ALL = [name for name, _ in conv_net().named_parameters()]
CHOICES = {
    "all": ALL,
    "convolutions": ["0.weight", "3.weight", "3.bias"],
    "norms": ["1.weight", "7.bias"],
    "last": ["9.weight"],
}


def moved(module: nn.Module, radii: Mapping[str, float], random: torch.Generator) -> dict[str, Tensor]:
    """Parameters within radii, half of them at an end."""
    held = dict(module.named_parameters())
    found = {}
    for name, radius in radii.items():
        unit = 2 * torch.rand(held[name].shape, generator=random, dtype=torch.float64) - 1
        corner = torch.rand(held[name].shape, generator=random) < 0.5
        found[name] = held[name].detach() + radius * torch.where(corner, unit.sign(), unit)
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("names", CHOICES.values(), ids=CHOICES)
def test_bounds_lie_below_samples_of_parameters_and_inputs(method: str, names: list[str]) -> None:
    module, x, random = conv_net(), batch(), torch.Generator().manual_seed(2)
    compiled, region, rows = verif.compile(module, x), verif.around(x, 0.05), torch.eye(3, dtype=torch.float64)
    radii = {name: 0.03 * (number + 1) / len(names) for number, name in enumerate(names)}
    lower = compiled.step(x, radii=radii).lower(region, torch.cat([rows, -rows]), method)  # type: ignore[arg-type]
    held = compiled.step(x).lower(region, torch.cat([rows, -rows]), method)  # type: ignore[arg-type]
    assert bool((lower < held).all()) and lower.isfinite().all()
    for points in region.sample(60, random).unbind(1):
        found = functional_call(module, moved(module, radii, random), (points.reshape(x.shape),))
        assert bool((lower <= torch.cat([found, -found], 1) + 1e-9).all())


@pytest.mark.parametrize("method", METHODS)
def test_one_layer_is_exact(method: str) -> None:
    layer, random = nn.Linear(5, 3).double(), torch.Generator().manual_seed(3)
    x, rows = torch.randn(2, 5, generator=random, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    step = verif.compile(layer, x).step(x, radii={"weight": 0.1, "bias": torch.tensor([0.1, 0.2, 0.3])})
    reach = 0.1 * x.abs().sum(1, keepdim=True) + torch.tensor([0.1, 0.2, 0.3])
    lower = step.lower(verif.around(x, 0.0), rows, method)  # type: ignore[arg-type]
    torch.testing.assert_close(lower, layer(x) - reach, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_radii_and_parameters_have_gradients(method: str) -> None:
    module, x = conv_net().train(), batch()
    module.register_module("4", nn.ReLU())  # the points of contact of tanh's lines are held fixed
    compiled, weight = verif.compile(module, x), module.get_parameter("3.weight")

    def total(radius: Tensor, shift: Tensor) -> Tensor:
        held = weight.data.clone()
        weight.data += shift
        step = compiled.step(x, statistics=False, radii={name: radius for name in ALL})
        found = step.lower(verif.around(x, 0.02), torch.eye(3), method).square().sum()  # type: ignore[arg-type]
        gradients = torch.autograd.grad(found, [radius, weight], retain_graph=True)
        weight.data = held
        return torch.stack([found.detach(), gradients[0], (gradients[1] * direction).sum()])

    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    radius, size = torch.tensor(0.01, dtype=torch.float64, requires_grad=True), 1e-6
    none, (_, by_radius, by_weight) = torch.zeros_like(weight), total(radius, torch.zeros_like(weight))
    more, less = (total((radius + sign * size).detach().requires_grad_(), none)[0] for sign in (1, -1))
    assert float(more - less) / (2 * size) == pytest.approx(float(by_radius), rel=1e-4)
    ahead, behind = (total(radius, sign * size * direction)[0] for sign in (1, -1))
    assert float(ahead - behind) / (2 * size) == pytest.approx(float(by_weight), rel=1e-4)


def test_training_with_radii_flattens_the_landscape() -> None:
    """The loss over all parameters within a radius falls; every parameter has a gradient."""
    module, x, labels = conv_net().train(), batch(), torch.tensor([0, 1, 2])
    compiled, optimiser = verif.compile(module, x), torch.optim.Adam(module.parameters(), 0.01)
    for loss in (IBP(), CrownIBP()):
        found = []
        for _ in range(8):
            step = compiled.step(x, radii=dict.fromkeys(ALL, 0.01))
            optimiser.zero_grad()
            found.append(loss(step, verif.around(x, 0.0), labels))
            found[-1].backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
            optimiser.step()
        assert found[-1].item() < found[0].item()


def test_radii_of_0_change_nothing() -> None:
    module, x = conv_net(), batch()
    compiled, region, rows = verif.compile(module, x), verif.around(x, 0.05), torch.eye(3)
    for method in METHODS:
        still = compiled.step(x, radii=dict.fromkeys(ALL, 0.0)).lower(region, rows, method)  # type: ignore[arg-type]
        torch.testing.assert_close(still, compiled.step(x).lower(region, rows, method))  # type: ignore[arg-type]


class Tied(nn.Module):
    """A weight used as it is and in another form; one that scales; one that nothing but a recurrent layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gain = nn.Linear(3, 3), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.relu(self.layer(x)) @ self.layer.weight.exp() * self.gain
        return found


@pytest.mark.parametrize(
    ("radii", "message"),
    [
        ({"layer.wait": 0.1}, "no parameter 'layer.wait'"),
        ({"layer.bias": -0.1}, "radius of 'layer.bias' must be at least 0, not -0.1"),
        ({"layer.bias": math.nan}, "radius of 'layer.bias' must be at least 0"),
        ({"layer.weight": 0.1}, "'layer.weight' cannot move: it is not just"),
        ({"gain": 0.1}, "'gain' cannot move: it is not just"),
    ],
)
def test_what_cannot_move_is_named(radii: dict[str, float], message: str) -> None:
    x = torch.ones(1, 3)
    compiled: Compiled = verif.compile(copy.deepcopy(Tied()), x)
    with pytest.raises(PropertyError, match=f"(?s)P116.*{message}"):
        compiled.step(x, radii=radii)
    assert compiled.step(x, radii={"layer.bias": 0.1}).lower(verif.around(x, 0.1), torch.eye(3), "ibp").isfinite().all()
