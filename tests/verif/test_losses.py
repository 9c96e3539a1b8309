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


def test_losses_are_differentiable():
    lower, upper, label, _ = boxes(10)
    lower.requires_grad_()
    losses.stablemax_cross_entropy_of_margins(lower, upper, label, torch.zeros_like(upper)).sum().backward()
    assert lower.grad is not None and lower.grad.isfinite().all()
