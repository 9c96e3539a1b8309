"""Certified losses: never under what sampled logits give, attained over boxes, differentiable."""

import torch
import torch.nn.functional as F

from graphs.ops.scalar import signed_log
from verif import losses


def boxes(count=200, classes=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    centre = 3 * torch.randn(count, classes, generator=random, dtype=torch.float64)
    radius = 4 * torch.rand(count, classes, generator=random, dtype=torch.float64)
    label = torch.randint(classes, (count,), generator=random)
    return centre - radius, centre + radius, label, random


def points(lower, upper, random):
    t = torch.rand(lower.shape, generator=random, dtype=torch.float64)
    return lower + torch.where(torch.rand(lower.shape, generator=random) < 0.5, t.round(), t) * (upper - lower)


def test_losses_over_boxes_are_upper_bounds_that_are_attained():
    lower, upper, label, random = boxes()
    worst = losses.worst_logits(lower, upper, label)
    soft, stable = losses.cross_entropy(lower, upper, label), losses.stablemax_cross_entropy(lower, upper, label)
    torch.testing.assert_close(soft, F.cross_entropy(worst, label, reduction="none"))
    for _ in range(100):
        x = points(lower, upper, random)
        assert (F.cross_entropy(x, label, reduction="none") <= soft + 1e-12).all()
        assert (F.cross_entropy(signed_log(x), label, reduction="none") <= stable + 1e-12).all()


def test_margins_tighten_the_losses():
    lower, upper, label, random = boxes(seed=1)
    x = torch.stack([points(lower, upper, random) for _ in range(50)])
    own = x.gather(2, label.expand(50, -1).unsqueeze(2))
    margins = (own - x).amin(0)  # what holds for these points
    rest = F.one_hot(label, lower.shape[1]) == 0
    soft = losses.cross_entropy_of_margins(margins[rest].reshape(len(label), -1))
    stable = losses.stablemax_cross_entropy_of_margins(lower, upper, label, margins)
    for point in x:
        assert (F.cross_entropy(point, label, reduction="none") <= soft + 1e-12).all()
        assert (F.cross_entropy(signed_log(point), label, reduction="none") <= stable + 1e-12).all()
    assert (stable <= losses.stablemax_cross_entropy(lower, upper, label) + 1e-12).all()
    assert (stable < losses.stablemax_cross_entropy(lower, upper, label) - 1e-3).any()


def test_comp_sum_losses_are_the_named_ones_and_bound_samples():
    lower, upper, label, random = boxes(seed=2)
    rest = F.one_hot(label, lower.shape[1]) == 0
    own = lower.gather(1, label.unsqueeze(1))
    margins = (own - upper)[rest].reshape(len(label), -1)
    p = losses.worst_logits(lower, upper, label).softmax(1).gather(1, label.unsqueeze(1))[:, 0]
    named = {0.0: 1 / p - 1, 1.0: -p.log(), 1.7: (1 - p**0.7) / 0.7, 2.0: 1 - p}
    for tau, expected in named.items():
        found = losses.comp_sum(margins, tau)
        torch.testing.assert_close(found, expected)
        for _ in range(30):
            x = points(lower, upper, random)
            apart = (x.gather(1, label.unsqueeze(1)) - x)[rest].reshape(len(label), -1)
            assert (losses.comp_sum(apart, tau) <= found * (1 + 1e-12)).all()


def test_spherical_losses_bound_samples():
    lower, upper, label, random = boxes(seed=3)
    sphere, z = losses.spherical_cross_entropy(lower, upper, label), losses.z_loss(lower, upper, label)
    reached = torch.full_like(sphere, -torch.inf), torch.full_like(sphere, -torch.inf)
    for _ in range(500):
        x = points(lower, upper, random)
        share = (x.square() + 1e-6) / (x.square() + 1e-6).sum(1, keepdim=True)
        normed = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
        for most, bound, value in (
            (reached[0], sphere, -share.gather(1, label.unsqueeze(1))[:, 0].log()),
            (reached[1], z, F.softplus(0.1 * (10 - normed.gather(1, label.unsqueeze(1))[:, 0])) / 0.1),
        ):
            assert (value <= bound + 1e-9).all()
            torch.maximum(most, value, out=most)
    assert float((z - reached[1]).mean()) < 0.15 * float(z.mean())
    assert (sphere - reached[0]).amin() < 1e-9  # attained at a corner, where no interval holds 0


def test_losses_are_differentiable():
    for loss in (
        lambda *box: losses.stablemax_cross_entropy_of_margins(*box, torch.zeros_like(box[0])),
        losses.spherical_cross_entropy,
        losses.z_loss,
        lambda low, high, label: losses.comp_sum(low - high, 1.5),
    ):
        lower, upper, label, _ = boxes(10)
        lower.requires_grad_()
        loss(lower, upper, label).sum().backward()
        assert lower.grad is not None and lower.grad.isfinite().all()
