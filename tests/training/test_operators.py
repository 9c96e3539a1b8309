"""Operators of torch modules, one row each: the graph's numbers are the module's, and samples lie inside its bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import verif
from graphs.errors import GraphError, UnsupportedError

Function = Callable[[Tensor], Tensor]
VECTOR, MATRIX, IMAGE, STEPS = (4,), (3, 4), (2, 4, 4), (5, 4)


def written(x: Tensor) -> Tensor:
    """Parts of a value that are changed in place."""
    y = x * 2
    y[:, :2].sub_(1).relu_()
    y[:, 2:] += 3
    y[:, 3] = 0.5
    return y


def twice(x: Tensor) -> Tensor:
    """A value that is changed in place, under both of its names."""
    y = x * 2
    z = y
    y += 1
    return z * y


def causal(x: Tensor) -> Tensor:
    """Attention whose scores are masked by hand."""
    scores = (x @ x.mT).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
    return scores.softmax(-1) @ x


def attended(x: Tensor) -> Tensor:
    """Attention with a mask that is added."""
    return F.scaled_dot_product_attention(x, x, x, attn_mask=torch.full((3, 3), -torch.inf).triu(1))


POINTWISE: dict[str, tuple[Function, tuple[int, ...]]] = {
    "rare": (lambda x: torch.atan(x) + torch.sinh(x) - torch.cosh(x) + torch.tan(x) + torch.asin(x), VECTOR),
    "powers": (lambda x: 2.0**x + x**-1 + x**0.5 + x**3 + torch.rsqrt(x) + torch.exp2(x), VECTOR),
    "logarithms": (lambda x: torch.log1p(x) + torch.log2(x) + torch.log10(x) + torch.expm1(x) + torch.acos(x), VECTOR),
    "units": (lambda x: F.celu(x - 0.5) + F.selu(x - 0.5) + F.hardswish(x) + F.hardsigmoid(x) + F.softsign(x), VECTOR),
    "shrunk": (lambda x: F.softshrink(x) + F.hardshrink(x, 0.3) + F.tanhshrink(x) + F.threshold(x, 0.5, 0.1), VECTOR),
    "logistic": (lambda x: F.logsigmoid(x) + F.softplus(x, 2.0) + torch.erfc(x) + torch.logit(x), VECTOR),
    "one end": (lambda x: torch.clamp(5 * x, min=0.5) - torch.clamp(x, max=0.4) + F.relu6(9 * x), VECTOR),
    "ends by entry": (lambda x: torch.clamp(x, torch.tensor(0.2), torch.tensor([0.6, 0.5, 0.4, 0.3])), VECTOR),
    "a larger constant": (lambda x: torch.maximum(x, torch.tensor(0.5)) + torch.minimum(torch.tensor(0.4), x), VECTOR),
    "lerp": (lambda x: torch.lerp(x, x * x, 0.3), VECTOR),
    "remainders": (lambda x: x.fmod(0.3) + (x - 0.5) % 0.3 + x // 0.3 + x.div(0.3, rounding_mode="trunc"), VECTOR),
    "rounded": (lambda x: torch.round(x, decimals=1) + torch.trunc(3 * x), VECTOR),
    "whole numbers": (lambda x: (x * 3).int().float() + (x * 3).round().long() * x + x.bool(), VECTOR),
    "gates": (lambda x: F.glu(x) + F.glu(x, -1), VECTOR),
}  # fmt: skip
CHOICES: dict[str, tuple[Function, tuple[int, ...]]] = {
    "logic": (lambda x: ((x > 0.3) & (x < 0.7) | ~(x <= 0.9) ^ (x > 0.5)).float() + (x != 0.4).float(), VECTOR),
    "where": (lambda x: torch.where(x > 0.5, x, torch.zeros_like(x)) + torch.where(x > 0.5, 1.0, x), VECTOR),
    "a constant choice": (lambda x: torch.where(torch.tensor([True, False, True, False]), x, -x), VECTOR),
    "filled": (lambda x: x.masked_fill(x > 0.5, 0.1) + x.masked_fill(torch.eye(4)[1].bool(), 2.0), VECTOR),
    "heaviside": (lambda x: torch.heaviside(x - 0.5, x.new_full((), 0.5)), VECTOR),
    "sorted": (lambda x: x.sort(1).values + x.sort(1, descending=True)[0] ** 2, VECTOR),
    "smallest": (lambda x: x.topk(2, largest=False).values + x.min(1, keepdim=True).values, VECTOR),
    "places": (lambda x: x.argmax(1, keepdim=True) + x + x.argmin(1, keepdim=True), VECTOR),
    "extremes": (lambda x: x.view(-1, 2, 2).max(1).values - x.max() + x.min(), VECTOR),
    "causal attention": (causal, MATRIX),
    "an added mask": (attended, MATRIX),
    "changed in part": (written, VECTOR),
    "changed under two names": (twice, VECTOR),
}
REDUCTIONS: dict[str, tuple[Function, tuple[int, ...]]] = {
    "all": (lambda x: x.mean().reshape(1, 1) + x.sum() + x.prod(1, keepdim=True), VECTOR),
    "spread": (lambda x: x.var(1, keepdim=True) + x.std((1,), correction=0, keepdim=True) + x.var(), VECTOR),
    "norms": (lambda x: x.norm(dim=1, keepdim=True) + x.norm(1, 1, True) + x.norm(torch.inf, 1, True), VECTOR),
    "directions": (lambda x: F.normalize(x) + F.cosine_similarity(x, x**2)[:, None], VECTOR),
    "running": (lambda x: x.cumsum(1) + F.lp_pool1d(x[:, None], 2, 2).flatten(1).sum(1, keepdim=True), VECTOR),
    "distances": (lambda x: torch.cdist(x, x.new_ones(1, 2, 4) / 3), MATRIX),
    "products": (lambda x: torch.einsum("bij,bkj->bik", x, x.softmax(-1)) + x @ x.mT, MATRIX),
    "outer": (lambda x: torch.outer(x[0], x[0])[None], VECTOR),
    "scaled sums": (lambda x: torch.addmm(x.new_ones(4), x, torch.eye(4).to(x), beta=2, alpha=3), VECTOR),
}
MOVES: dict[str, tuple[Function, tuple[int, ...]]] = {
    "places by lists": (lambda x: x[:, [2, 0]] + x[..., ::2], VECTOR),
    "turned": (lambda x: x.flip(3).roll(1, 2).rot90(1, (2, 3)), IMAGE),
    "repeated": (lambda x: x.repeat(1, 2) + x.tile((2,)) + x.repeat_interleave(2, 1), VECTOR),
    "windows": (lambda x: F.unfold(x, 2, padding=1), IMAGE),
    "reflected": (lambda x: F.pad(F.pad(x, (1, 1, 1, 1), mode="reflect"), (1, 0, 0, 1), mode="replicate"), IMAGE),
    "around": (lambda x: F.pad(x, (1, 1, 0, 0), mode="circular"), IMAGE),
    "shuffled": (lambda x: F.pixel_shuffle(x.repeat(1, 2, 1, 1), 2) + F.pixel_unshuffle(x, 2).sum(), IMAGE),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), IMAGE),
    "bicubic": (lambda x: F.interpolate(x, size=(3, 6), mode="bicubic"), IMAGE),
    "pooled unevenly": (lambda x: F.adaptive_avg_pool2d(x, 3) + F.avg_pool2d(x, 3, ceil_mode=True).sum(), IMAGE),
    "pooled in three": (lambda x: F.avg_pool3d(x[:, None], 2), IMAGE),
    "taken apart": (lambda x: torch.stack(x.unbind(1)[::-1], 1) + (x[:, None] * x[..., None]).diagonal(dim1=2), VECTOR),
}  # fmt: skip


with torch.random.fork_rng():
    torch.manual_seed(0)
    LAYERS: dict[str, tuple[nn.Module | Function, tuple[int, ...]]] = {
        "parametric slope": (nn.Sequential(nn.Conv2d(2, 3, 3), nn.PReLU(3), nn.Flatten()), IMAGE),
        "instance norm": (nn.Sequential(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True), nn.ELU()), IMAGE),
        "bilinear layer": (nn.Bilinear(2, 2, 3), VECTOR),
        "both directions": (nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), STEPS),
        "first layer's state": (nn.LSTM(4, 3, 2, batch_first=True), STEPS),
        "backward state": (nn.GRU(4, 3, batch_first=True, bidirectional=True), STEPS),
    }


class Wrapped(nn.Module):
    """A function (of a layer) as a module."""

    def __init__(self, function: Callable[..., Tensor], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.layer is None else self.function(self.layer, x)


READS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "bilinear layer": lambda layer, x: layer(x[:, :2], x[:, 2:]),
    "both directions": lambda layer, x: layer(x)[0],
    "first layer's state": lambda layer, x: layer(x)[1][0][0],
    "backward state": lambda layer, x: layer(x)[1][1],
}
ROWS = {**POINTWISE, **CHOICES, **REDUCTIONS, **MOVES}


def _check(module: nn.Module, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    module = module.double().eval()
    x = 0.15 + 0.7 * torch.rand(1, *shape, generator=generator, dtype=torch.float64)
    step = verif.compile(module, x).step(x)
    with torch.no_grad():
        torch.testing.assert_close(step.outputs, module(x).double().reshape(1, -1))
        eye = torch.eye(step.count, dtype=torch.float64)
        bounds = step.lower(verif.around(x, 0.05), torch.cat([eye, -eye]), "crown")[0]
        low, high = bounds[: step.count] - 1e-9, 1e-9 - bounds[step.count :]
        for _ in range(20):
            y = module(x + 0.1 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 0.05).reshape(-1)
            assert bool(((low <= y) & (y <= high)).all())


@pytest.mark.parametrize("name", ROWS)
def test_functions(name: str) -> None:
    function, shape = ROWS[name]
    _check(Wrapped(function), shape)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    layer, shape = LAYERS[name]
    assert isinstance(layer, nn.Module)
    _check(Wrapped(READS[name], layer) if name in READS else layer, shape)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: F.softplus(x, 2.0, 3.0), "a jump at 3"),
        (lambda x: torch.linalg.svdvals(x[:, None] * x[..., None]), "has no converter"),
        (lambda x: x[:, x.argmax(1)], "places that depend on the input"),
        (lambda x: ~(x * 3).int() + 0.0, "truth values"),
        (lambda x: x.masked_fill(torch.eye(4)[0].bool(), -torch.inf) + 1, "read by softmax only"),
    ],
)
def test_what_is_refused(function: Function, why: str) -> None:
    with pytest.raises((GraphError, UnsupportedError), match=why):
        verif.compile(Wrapped(function), torch.rand(1, 4))


def test_dropout_and_changes_in_place() -> None:
    """The functional form of a module has no masks that a step could draw."""
    module = nn.Sequential(nn.Dropout(0.5), Wrapped(written)).train()
    with pytest.raises(UnsupportedError, match="changed in place"):
        verif.compile(module, torch.rand(2, 4))
    x = torch.rand(2, 4)
    torch.testing.assert_close(verif.compile(module.eval(), x).step(x).outputs, written(x))
