"""Input sets: minima against brute force, projections, samples, splits, rounding."""

import itertools
import math

import pytest
import torch

from relaxations.sets import Ball, Box, InputSet, Meet

NORMS = (1, 2, math.inf)


def box(batch=4, n=3, seed=0, dtype=torch.float64):
    ends = torch.randn(2, batch, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return Box(ends.amin(0), ends.amax(0))


def ball(norm, batch=4, n=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(batch, n, generator=generator, dtype=torch.float64)
    return Ball(center, torch.rand(batch, generator=generator, dtype=torch.float64) + 0.1, norm)


def rows(batch=4, count=6, n=3, seed=2):
    return torch.randn(batch, count, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dot(a, x):
    return (a * x).sum(-1)


def every_set():
    return [
        box(),
        *(ball(norm) for norm in NORMS),
        *(Meet(box(), Ball(box().center, ball(p).radius, p)) for p in NORMS),
    ]


def test_box_minimum_is_that_of_the_best_corner():
    given, a = box(), rows()
    corners = torch.stack(
        [
            torch.where(torch.tensor(pick), given.lower, given.upper)
            for pick in itertools.product((True, False), repeat=3)
        ]
    )
    best = torch.einsum("bsn,cbn->bsc", a, corners).amin(-1)
    torch.testing.assert_close(given.minimize(a), best)
    torch.testing.assert_close(dot(a, given.argmin(a)), best)


@pytest.mark.parametrize("norm", NORMS)
def test_ball_minimum_is_attained_and_no_boundary_point_is_lower(norm):
    given, a = ball(norm), rows()
    torch.testing.assert_close(dot(a, given.argmin(a)), given.minimize(a))
    assert given.contains(given.argmin(a)).all()
    directions = torch.randn(4, 5000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rim = given.center.unsqueeze(1) + given.radius.reshape(-1, 1, 1) * directions / torch.linalg.vector_norm(
        directions, norm, dim=-1, keepdim=True
    )
    values = torch.einsum("bsn,bpn->bsp", a, rim)
    assert (values >= given.minimize(a).unsqueeze(-1) - 1e-12).all()
    assert (values.amin(-1) - given.minimize(a)).max() < 0.2


@pytest.mark.parametrize("given", every_set(), ids=lambda s: f"{type(s).__name__}-{getattr(s, 'norm', '')}")
def test_every_set_keeps_the_protocol(given):
    assert isinstance(given, InputSet)
    assert len(given) == 4
    a = rows()
    samples = given.sample(500, torch.Generator().manual_seed(5))
    assert samples.shape == (4, 500, 3)
    assert given.contains(samples).all()
    assert given.box().contains(samples).all()
    assert (torch.einsum("bsn,bpn->bsp", a, samples) >= given.minimize(a).unsqueeze(-1) - 1e-12).all()
    assert given.contains(given.argmin(a)).all()
    far = 5 * rows(seed=7)
    assert given.contains(given.project(far)).all()
    torch.testing.assert_close(given.project(samples), samples)
    owner = torch.tensor([2, 2, 0])
    torch.testing.assert_close(given.take(owner).minimize(a[owner]), given.minimize(a)[owner])
    single = given.to(torch.float32)
    assert single.to(torch.float64).contains(samples).all()
    assert not given.contains(torch.full((4, 1, 3), math.nan, dtype=torch.float64)).any()


@pytest.mark.parametrize("norm", NORMS)
def test_projection_onto_a_ball_is_the_nearest_point(norm):
    given, far = ball(norm), 4 * rows(seed=11)
    near = given.project(far)
    samples = given.sample(4000, torch.Generator().manual_seed(1))
    others = (far.unsqueeze(2) - samples.unsqueeze(1)).square().sum(-1).amin(-1)
    assert ((far - near).square().sum(-1) <= others + 1e-12).all()


@pytest.mark.parametrize("norm", NORMS)
def test_samples_of_a_ball_are_uniform(norm):
    given = Ball(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64), norm)
    length = torch.linalg.vector_norm(given.sample(20000, torch.Generator().manual_seed(1)), norm, dim=-1)
    assert (length < 0.5).double().mean().item() == pytest.approx(0.25, abs=0.015)


def test_degenerate_boxes_have_exact_finite_minima():
    point = torch.tensor([[0.1, -3e30, 1e-30]])
    a = torch.tensor([[[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]]])
    torch.testing.assert_close(Box(point, point).minimize(a), dot(a, point.unsqueeze(1)))
    assert torch.equal(Ball(point, torch.zeros(1), 2).minimize(a), dot(a, point.unsqueeze(1)))
    assert torch.isfinite(Ball(point, torch.ones(1), 2).argmin(a)).all()


def test_split_covers_the_box_and_shares_the_cut():
    given, axis = box(), torch.tensor([0, 1, 2, 0])
    halves = given.split(axis)
    assert len(halves) == 8
    samples = given.sample(200, torch.Generator().manual_seed(0))
    assert (halves.take(torch.arange(4)).contains(samples) | halves.take(torch.arange(4, 8)).contains(samples)).all()
    assert torch.equal(halves.upper[:4].gather(1, axis[:, None]), halves.lower[4:].gather(1, axis[:, None]))
    outside = given.split(axis, given.upper[:, 0] + 10)
    assert not outside.is_empty().any()
    both = Meet(given, Ball(given.center, torch.ones(4, dtype=torch.float64), 2)).split(axis)
    assert len(both) == 8
    assert torch.equal(both.second.center[4:], given.center)


def test_rounding_to_float32_is_outward():
    given = box(batch=1000, n=2, seed=9)
    single = given.to(torch.float32)
    assert (single.lower.double() <= given.lower).all()
    assert (single.upper.double() >= given.upper).all()
    assert (single.lower.double() < given.lower).any()
    assert torch.equal(given.to(torch.float64).lower, given.lower)


def test_meet_knows_when_it_is_empty():
    first = Box(torch.zeros(2, 2), torch.ones(2, 2))
    second = Ball(torch.tensor([[2.0, 2.0], [1.5, 0.5]]), torch.ones(2), 2)
    assert Meet(first, second).is_empty().tolist() == [True, False]
    assert Box(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])).is_empty().item()


def test_a_set_of_one_broadcasts_against_rows():
    given, a = box(batch=1), rows()
    torch.testing.assert_close(given.minimize(a)[2:3], given.minimize(a[2:3]))


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm is 1, 2 or inf, not 3"):
        Ball(torch.zeros(1, 2), torch.ones(1), 3)
