"""Products, maxima and selections: what the laws over all ops cannot know."""

import math

import pytest
import torch

from graphs import GraphBuilder
from relaxations import RULES, Affine, Call, Interval, matmul
from relaxations.products import mccormick
from tests.laws.rows_products import ROWS
from tests.laws.table import Input, Row


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def box(*shape, width=2.0, seed=0):
    centre = torch.randn(shape, generator=random(seed), dtype=torch.float64)
    radius = width * torch.rand(shape, generator=random(seed + 1), dtype=torch.float64)
    return Interval(centre - radius, centre + radius)


def inside(interval, count, seed=0):
    """(count, B, *N) points, every other one a corner."""
    t = torch.rand(count, *interval.lower.shape, generator=random(seed), dtype=torch.float64)
    t[::2] = t[::2].round()
    return interval.lower + t * interval.width


def call(op, shapes, **attrs):
    return Row(op, tuple(Input(shape) for shape in shapes), attrs=attrs).call()


def point(*values):
    x = torch.tensor([values], dtype=torch.float64)
    return Interval(x, x)


def test_mccormick_planes_attain_the_interval_and_touch_at_corners():
    x, y = box(200, seed=1), box(200, seed=3)
    exact = RULES["mul"].interval(call("mul", [(), ()]), [x, y])
    for plane, end, pick in zip(mccormick(x, y), exact, (torch.amin, torch.amax), strict=True):
        corners = torch.stack([plane.at((a, b)) for a in x for b in y])
        torch.testing.assert_close(pick(corners, 0), end)
        gaps = (corners - torch.stack([a * b for a in x for b in y])).abs()
        assert (gaps.sort(0).values[:2] < 1e-12).all()  # two corners at least, three but for mixed weights


def test_a_factor_drops_out_of_mccormick_planes_where_it_can():
    """Both may be 0 and are mostly positive: the plane below has no slope in the factor that is so the less."""
    x, y = (Interval(torch.tensor([[low]]), torch.tensor([[high]])) for low, high in ((-1.0, 2.0), (-1.0, 3.0)))
    below, above = mccormick(x, y)
    assert [float(slope) for slope in below.slopes] == [0, -0.25]
    assert float(above.slopes[0]) != 0


def test_a_square_is_recognised():
    builder = GraphBuilder()
    x = builder.input("x", (3,))
    square = builder.add("mul", [x, x])
    graph = builder.build([square])
    given = Interval(torch.tensor([[-1.0, 2.0, -3.0]]), torch.tensor([[2.0, 3.0, -2.0]]))
    found = RULES["mul"].interval(Call.of(graph, graph[square]), [given, given])
    assert found.lower.tolist() == [[0, 4, 4]] and found.upper.tolist() == [[4, 9, 9]]
    relaxation = RULES["mul"].relax(Call.of(graph, graph[square]), [given, given])
    pulled, bias = relaxation.pull(torch.eye(3).unsqueeze(0))
    for point_ in inside(given, 50):
        value = sum((p[0] * point_).sum(-1) for p in pulled) + bias[0]
        assert (value <= point_.float().square() + 1e-6).all()


@pytest.mark.parametrize("rank", [2, 3])
def test_matmul_by_midpoints_is_sound_and_never_tighter_at_the_centre(rank, monkeypatch):
    lead = (2,) * (rank - 2)
    x, y = box(5, *lead, 3, 4, seed=1), box(5, *lead, 4, 2, seed=2)
    op = call("matmul", [(*lead, 3, 4), (*lead, 4, 2)])
    rows = torch.randn(5, 7, *lead, 3, 2, generator=random(), dtype=torch.float64)
    stored = RULES["matmul"].relax(op, [x, y])
    monkeypatch.setattr(matmul, "TRIPLES", 1)
    plain = RULES["matmul"].relax(op, [x, y])
    assert stored.planes and not plain.planes
    assert not stored.take(torch.tensor([0, 1])).planes
    blocks = RULES["matmul"].interval(op, [x, y])
    monkeypatch.undo()
    torch.testing.assert_close(tuple(blocks), tuple(RULES["matmul"].interval(op, [x, y])))
    for relaxation in (stored, plain):
        (on_x, on_y), bias = relaxation.pull(rows)
        for a, b in zip(inside(x, 40), inside(y, 40, seed=9), strict=True):
            claimed = (on_x * a.unsqueeze(1)).flatten(2).sum(2) + (on_y * b.unsqueeze(1)).flatten(2).sum(2) + bias
            assert (claimed <= (rows * (a @ b).unsqueeze(1)).flatten(2).sum(2) + 1e-9).all()


def test_products_with_a_point_are_exact():
    x, y = box(4, 2, 3), point(1.0, -2.0, 0.0)
    y = Interval(*(end.reshape(1, 3, 1).expand(4, 3, 1) for end in y))
    relaxation = RULES["matmul"].relax(call("matmul", [(2, 3), (3, 1)]), [x, y])
    rows = torch.randn(4, 5, 2, 1, generator=random(), dtype=torch.float64)
    (on_x, on_y), bias = relaxation.pull(rows)
    a = inside(x, 1)[0]
    claimed = (on_x * a.unsqueeze(1)).flatten(2).sum(2) + (on_y * y.lower.unsqueeze(1)).flatten(2).sum(2) + bias
    torch.testing.assert_close(claimed, (rows * (a @ y.lower).unsqueeze(1)).flatten(2).sum(2))


def test_a_denominator_that_may_be_zero_bounds_nothing_and_gives_no_nan():
    op = call("div", [(2,), (2,)])
    x = Interval(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]]))
    y = Interval(torch.tensor([[-1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    found = RULES["div"].interval(op, [x, y])
    assert found.lower.tolist() == [[-math.inf, 0.0]] and found.upper.tolist() == [[math.inf, 0.0]]
    rows = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    pulled, bias = RULES["div"].relax(op, [x, y]).pull(rows)
    assert all(p.isfinite().all() for p in pulled)
    assert bias[0, :2].tolist() == [-math.inf] * 2 and bias[0, 2:].isfinite().all()


def test_quotient_plane_beats_or_equals_mccormick_at_the_midpoint():
    x = Interval(torch.full((1, 1), 1.0), torch.full((1, 1), 2.0))
    y = Interval(torch.full((1, 1), 1.0), torch.full((1, 1), 2.0))
    (on_x, on_y), bias = RULES["div"].relax(call("div", [(1,), (1,)]), [x, y]).pull(torch.ones(1, 1, 1))
    at_middle = (1.5 * (on_x + on_y)).item() + bias.item()
    assert at_middle == pytest.approx((1.5 + math.sqrt(2)) ** 2 / (1 + math.sqrt(2)) ** 2 / 1.5)


def test_a_dominating_entry_is_passed_through_exactly():
    x = Interval(torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([[2.0, 5.0, 3.0]]))
    op = call("reduce_max", [(3,)], axes=(0,))
    (pulled,), bias = RULES["reduce_max"].relax(op, [x]).pull(torch.tensor([[1.0, -1.0]]).reshape(1, 2))
    assert pulled.tolist() == [[[0, 1, 0], [0, -1, 0]]] and bias.abs().max() == 0
    assert not RULES["reduce_max"].undecided(op, [x])[0].any()


def test_the_plane_above_a_maximum_never_exceeds_the_largest_end():
    x = box(300, 4)
    relaxation = RULES["reduce_max"].relax(call("reduce_max", [(4,)], axes=(0,)), [x])
    (pulled,), bias = relaxation.pull(-torch.ones(300, 1, dtype=torch.float64))
    highest = (-pulled[:, 0]).clamp(min=0) * x.upper + (-pulled[:, 0]).clamp(max=0) * x.lower
    assert (highest.sum(-1) - bias[:, 0] <= x.upper.amax(-1) + 1e-12).all()


def test_positions_of_a_maximum_with_ties():
    truth = Interval(torch.tensor([[0.0, 1.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 1.0, 1.0]]))
    for last, expected in ((False, 1.0), (True, 3.0)):
        found = RULES["arg_max"].interval(call("arg_max", [(4,)], axis=0, last=last), [truth])
        assert found.lower.tolist() == [expected] == found.upper.tolist()


def test_several_writers_join_and_a_sure_writer_replaces():
    op = call("scatter_at", [(3,), (2, 1), (2,)])
    x = Interval(torch.zeros(1, 3), torch.zeros(1, 3))
    update = Interval(torch.tensor([[5.0, 7.0]]), torch.tensor([[6.0, 8.0]]))
    index = Interval(torch.tensor([[[0.0], [0.0]]]), torch.tensor([[[0.0], [1.0]]]))
    found = RULES["scatter_at"].interval(op, [x, index, update])
    assert found.lower.tolist() == [[5, 0, 0]] and found.upper.tolist() == [[8, 8, 0]]
    (on_x, _, on_update), bias = RULES["scatter_at"].relax(op, [x, index, update]).pull(torch.eye(3).unsqueeze(0))
    assert on_x[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]] and not on_update.any()
    assert bias.tolist() == [[5, 0, 0]]
    sure = Interval(index.lower + torch.tensor([[[0.0], [2.0]]]), index.lower + torch.tensor([[[0.0], [2.0]]]))
    (on_x, _, on_update), bias = RULES["scatter_at"].relax(op, [x, sure, update]).pull(torch.eye(3).unsqueeze(0))
    assert on_update[0].tolist() == [[1, 0], [0, 0], [0, 1]] and not bias.any()


def test_gather_counts_negative_indices_from_the_end():
    op = call("gather_at", [(4,), (1,)], axis=0)
    x = Interval(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[1.5, 2.5, 3.5, 4.5]]))
    found = RULES["gather_at"].interval(op, [x, Interval(torch.tensor([[-1.0]]), torch.tensor([[0.0]]))])
    assert found.lower.tolist() == [[1.0]] and found.upper.tolist() == [[4.5]]


def test_an_undecided_choice_follows_its_condition():
    op = call("where", [(1,), (1,), (1,)])
    c = Interval(torch.zeros(1, 1), torch.ones(1, 1))
    x, y = (
        Interval(torch.tensor([[3.0]]), torch.tensor([[4.0]])),
        Interval(torch.tensor([[-2.0]]), torch.tensor([[1.0]])),
    )
    (on_c, on_x, on_y), bias = RULES["where"].relax(op, [c, x, y]).pull(torch.tensor([[[1.0], [-1.0]]]))
    assert on_c.flatten().tolist() == [5, -3] and bias.flatten().tolist() == [-2, -1]
    assert not on_x.any() and not on_y.any()


SCALAR_OUTPUTS = [("reduce_max", {"axes": (0,)}), ("reduce_min", {"axes": (0,)}), ("logsumexp", {"axes": (0,)})]


@pytest.mark.parametrize("op,attrs", [*SCALAR_OUTPUTS, ("arg_max", {"axis": 0})])
def test_outputs_without_axes(op, attrs):
    x, node = box(6, 5), call(op, [(5,)], **attrs)
    relaxation = RULES[op].relax(node, [x])
    (pulled,), bias = relaxation.pull(torch.tensor([[1.0, -2.0]] * 6, dtype=torch.float64))
    assert pulled.shape == (6, 2, 5) and bias.shape == (6, 2)
    flat = torch.zeros(6, 2, 5, dtype=torch.float64)
    pushed = relaxation.push([Affine(flat, x.lower, flat, x.upper)])
    found = RULES[op].interval(node, [x])
    assert pushed.lower_slope.shape == (6, 2) and pushed.lower_bias.shape == found.lower.shape == (6,)
    for sample in inside(x, 20):
        value = node.forward(sample)
        assert ((pulled * sample.unsqueeze(1)).sum(2) + bias <= torch.stack([value, -2 * value], 1) + 1e-12).all()
        assert (pushed.lower_bias <= value + 1e-12).all() and (value <= pushed.upper_bias + 1e-12).all()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_one_relaxation_serves_many_rows_and_bounds_have_gradients(row):
    boxes = [Interval(*(end.requires_grad_() for end in b)) for b in row.boxes(1, 1.0, random(4), torch.float64)]
    op, rule = row.call(), RULES[row.op]
    output = rule.interval(op, boxes).lower
    rows = torch.randn(3, 2, *output.shape[1:], generator=random(), dtype=torch.float64)
    relaxation = rule.relax(op, boxes)
    together = relaxation.pull(rows)
    for number in range(3):
        alone = relaxation.pull(rows[number : number + 1])
        torch.testing.assert_close(together[1][number : number + 1], alone[1])
        torch.testing.assert_close(tuple(p[number : number + 1] for p in together[0]), alone[0])
    total = together[1].sum() + sum(p.square().sum() for p in together[0])
    if total.requires_grad:
        ends = [end for b in boxes for end in b]
        grads = torch.autograd.grad(total, ends, allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in grads)
