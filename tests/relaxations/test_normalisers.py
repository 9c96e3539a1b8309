"""Softmax and its relatives, layer norm and RMS norm: exactness, dominance, boxes of any width."""

import itertools

import pytest
import torch

from relaxations import RULES, Interval
from relaxations.exponentials import others_logsumexp
from relaxations.lanes import Side, others
from tests.laws.table import Input, Row


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def boxes(count, n, width, scale=2.0, seed=0):
    centre = scale * torch.randn(count, n, generator=random(seed), dtype=torch.float64)
    radius = width / 2 * (0.2 + 0.8 * torch.rand(count, n, generator=random(seed + 1), dtype=torch.float64))
    return Interval(centre - radius, centre + radius)


def corners(x):
    picks = itertools.product((False, True), repeat=x.lower.shape[-1])
    return torch.stack([torch.where(torch.tensor(pick), x.upper, x.lower) for pick in picks])


def points(x, count, seed=0):
    t = torch.rand(count, *x.lower.shape, generator=random(seed), dtype=torch.float64)
    t[::2] = t[::2].round()
    return x.lower + t * x.width


def double(side):
    return Side.of_parts(*(part.double() for part in side.parts()))


def call(op, n, **attrs):
    return Row(op, (Input((n,)),), attrs=attrs).call()


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_interval_is_attained_at_corners(op):
    x = boxes(50, 4, 3.0)
    node = call(op, 4, axis=0)
    found, values = RULES[op].interval(node, [x]), torch.stack([node.forward(c) for c in corners(x)])
    torch.testing.assert_close(found.lower, values.amin(0))
    torch.testing.assert_close(found.upper, values.amax(0))


@pytest.mark.parametrize("width", [5.0, 10.0, 20.0, 40.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_softmax_planes_hold_on_wide_boxes(width, dtype):
    """Release 0.7.1 of a well-known peer is violated on 11, 168 and 200 of 200 boxes of widths 10, 20 and 40."""
    x = boxes(200, 10, width)
    single = Interval(x.lower.to(dtype), x.upper.to(dtype))
    node = call("softmax", 10, axis=0)
    relaxation, found = RULES["softmax"].relax(node, [single]), RULES["softmax"].interval(node, [single])
    low, high = relaxation.lower, relaxation.upper
    slack = 1e-12 if dtype == torch.float64 else 2e-5
    for sample in points(Interval(single.lower.double(), single.upper.double()), 300):
        p, lane = sample.softmax(-1), sample.unsqueeze(1)
        assert (double(low).at(lane)[:, 0] <= p + slack).all()
        assert (p <= double(high).at(lane)[:, 0] + slack).all()
        assert (found.lower <= p + slack).all() and (p <= found.upper + slack).all()


@pytest.mark.parametrize("width", [0.1, 1.0, 5.0, 20.0])
def test_softmax_upper_plane_dominates_the_log_and_reciprocal_forms(width):
    """Wei et al. 2023: upper bounds LSE and ER at the midpoint; ours is the least concave function of t_i."""
    x = boxes(300, 6, width)
    node = call("softmax", 6, axis=0)
    middle = (x.lower + x.upper) / 2
    ours = RULES["softmax"].relax(node, [x]).upper.at(middle.unsqueeze(1))[:, 0]
    low, high = RULES["softmax"].interval(node, [x])
    chord = (high - low) / (high.log() - low.log())
    log_form = low + chord * (middle.log_softmax(-1) - low.log())
    reciprocal_form = low + high - low * high / middle.softmax(-1)
    assert (ours <= log_form + 1e-12).all() and (log_form <= reciprocal_form + 1e-12).all()
    assert (ours >= middle.softmax(-1) - 1e-12).all()


def test_softmax_of_two_is_a_sigmoid_of_their_difference():
    x = boxes(100, 2, 3.0)
    relaxation = RULES["softmax"].relax(call("softmax", 2, axis=0), [x])
    (pulled,), _ = relaxation.pull(torch.randn(100, 4, 2, generator=random(), dtype=torch.float64))
    torch.testing.assert_close(pulled.sum(-1), torch.zeros(100, 4, dtype=torch.float64))


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("scale", [40.0, 1e4])
def test_saturated_lanes_are_bounded_to_rounding(op, scale):
    x = boxes(300, 5, 1.0, scale=scale)
    attrs = {"axes": (0,)} if op == "logsumexp" else {"axis": 0}
    node = call(op, 5, **attrs)
    relaxation = RULES[op].relax(node, [x])
    size = (1, 5) if op != "logsumexp" else (1,)
    rows = torch.randn(300, 3, *size[1:], generator=random(), dtype=torch.float64)
    (pulled,), bias = relaxation.pull(rows)
    for sample in points(x, 100):
        value = (rows * node.forward(sample).unsqueeze(1)).reshape(300, 3, -1).sum(-1)
        assert ((pulled * sample.unsqueeze(1)).sum(-1) + bias <= value + 1e-13 * scale).all()


def test_tiny_probabilities_keep_their_relative_size():
    x = Interval(torch.tensor([[-60.0, 0.0, 1.0]]).double(), torch.tensor([[-59.0, 0.5, 1.5]]).double())
    relaxation = RULES["softmax"].relax(call("softmax", 3, axis=0), [x])
    for sample in points(x, 50):
        p = sample.softmax(-1)
        assert (relaxation.lower.at(sample.unsqueeze(1))[:, 0, 0] <= p[:, 0] * (1 + 1e-9)).all()
        assert (p[:, 0] <= relaxation.upper.at(sample.unsqueeze(1))[:, 0, 0] * (1 + 1e-9)).all()


def test_leave_one_out_sums_do_not_cancel():
    x = torch.tensor([[50.0, 0.0, -3.0]])
    torch.testing.assert_close(others_logsumexp(x)[0, 0], torch.tensor([0.0, -3.0]).logsumexp(0))
    for n in (5, 300):
        values = torch.ones(2, n, dtype=torch.float64) * 1e-20
        values[:, 0] = 1e20
        torch.testing.assert_close(others(values)[:, 0], torch.full((2,), 1e-20 * (n - 1), dtype=torch.float64))
        torch.testing.assert_close(others(values)[:, 1:], torch.full((2, n - 1), 1e20, dtype=torch.float64))


def test_rms_norm_interval_is_attained():
    x = boxes(50, 4, 1.0, scale=1.0)
    sign = torch.randint(0, 2, (50, 4), generator=random(3)) * 2.0 - 1
    low, high = x.lower - x.lower.amin() + 0.1, x.upper - x.lower.amin() + 0.1  # no interval holds 0: corners suffice
    x = Interval((low * sign).minimum(high * sign), (low * sign).maximum(high * sign))
    node = call("rms_norm", 4, axes=(0,), eps=1e-3)
    found, values = RULES["rms_norm"].interval(node, [x]), torch.stack([node.forward(c) for c in corners(x)])
    torch.testing.assert_close(found.lower, values.amin(0))
    torch.testing.assert_close(found.upper, values.amax(0))


@pytest.mark.parametrize("width", [1e-6, 0.1, 1.0])
def test_layer_norm_interval_is_near_to_what_is_sampled(width):
    x = boxes(40, 6, width)
    node = call("layer_norm", 6, axes=(0,), eps=1e-5)
    found = RULES["layer_norm"].interval(node, [x])
    values = torch.stack([node.forward(c) for c in corners(x)])
    reached = values.amax(0) - values.amin(0)
    assert (found.lower <= values.amin(0) + 1e-9).all() and (values.amax(0) <= found.upper + 1e-9).all()
    assert (found.width.mean() / reached.mean()).item() < 1.6


def test_a_lane_of_one_entry():
    x = boxes(5, 1, 1.0)
    along = {"softmax": {"axis": 0}, "log_softmax": {"axis": 0}, "layer_norm": {"axes": (0,), "eps": 0.0}}
    for (op, attrs), value in zip(along.items(), (1.0, 0.0, 0.0), strict=True):
        found = RULES[op].interval(call(op, 1, **attrs), [x])
        assert (found.lower == value).all() and (found.upper == value).all()


def test_norms_without_epsilon_stay_finite():
    x = Interval(-torch.ones(1, 4), torch.ones(1, 4))
    for op in ("layer_norm", "rms_norm"):
        node = call(op, 4, axes=(0,), eps=0.0)
        found = RULES[op].interval(node, [x])
        assert found.upper.amax() <= 2 and found.lower.amin() >= -2
        (pulled,), bias = RULES[op].relax(node, [x]).pull(torch.randn(1, 3, 4, generator=random()))
        assert pulled.isfinite().all() and bias.isfinite().all()
