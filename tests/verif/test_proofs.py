"""Proofs and their checker: sound against exact rationals, whole trees only, nothing that was changed."""

from __future__ import annotations

import hashlib
import time
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.adversarial.forgeries import believed
from tests.verif.proving import mlp, pack, property_file, random_mlp, save, unpack
from verif import evidence
from verif.checker import Refused, check, exact, model, stream
from verif.checker.bounds import Bounds
from verif.checker.claims import read

WIDTHS = [0.01, 0.02, 1.0, 0.01, 0.01]
BOX = [("-1", "1"), ("-0.5", "0.7")]


@pytest.mark.parametrize("seed", range(40))
def test_bounds_are_below_exact_values(seed: int, tmp_path: Path) -> None:
    """Rows bounded over boxes, points among them, against rational evaluation."""
    network = model.read(random_mlp(tmp_path / "net.onnx", seed))
    generator = np.random.default_rng(seed)
    lower = generator.normal(size=(4, 2))
    upper = lower + np.array([0.0, 1e-9, 0.1, 2.0])[:, None]
    rows = generator.normal(size=(3, 2)) * 10.0 ** generator.integers(-3, 4, (3, 2))
    found = Bounds(network, lower, upper).rows(network.output, rows)
    assert np.isfinite(found.lower).all()
    for box in range(4):
        for _ in range(6):
            share = generator.choice([0.0, 1.0, generator.random()], 2)
            point = np.clip(lower[box] + share * (upper[box] - lower[box]), lower[box], upper[box])
            outputs = exact.evaluate(network, [Fraction(x) for x in point.tolist()])
            for row, low in zip(rows, found.lower[box].tolist(), strict=True):
                assert Fraction(low) <= exact.combined(row, outputs)


def test_bounds_of_a_point_are_tight(tmp_path: Path) -> None:
    network = model.read(random_mlp(tmp_path / "net.onnx", 0))
    point = np.array([[0.3, -0.2]])
    low = Bounds(network, point, point).rows(network.output, np.eye(2)).lower[0]
    outputs = exact.evaluate(network, [Fraction(x) for x in point[0].tolist()])
    assert np.allclose(low, [float(x) for x in outputs], rtol=1e-12, atol=1e-12)


def test_sums_that_cancel(tmp_path: Path) -> None:
    """1e8 a - 1e8 a + tiny b: nothing may be shown beyond what the exact values allow."""
    weights = [np.array([[1e8], [1e8], [1.0]]), np.array([[1.0, -1.0, 1e-9]])]
    network = model.read(mlp(tmp_path / "net.onnx", weights, [np.zeros(3), np.zeros(1)]))
    lower, upper = np.array([[1.0]]), np.array([[2.0]])
    low = Bounds(network, lower, upper).rows(network.output, np.eye(1)).lower[0, 0]
    least = exact.evaluate(network, [Fraction(1)])[0]
    assert Fraction(low) <= least
    assert float(least) - low < 1e-6


def test_residual_and_convolution(tmp_path: Path) -> None:
    """A convolution, its input added, against exact rationals and onnxruntime."""
    import onnxruntime

    generator = np.random.default_rng(5)
    kernel = generator.normal(size=(2, 1, 3, 3)).astype(np.float32)
    constants = {"k": kernel, "b": np.array([0.5, -0.25], np.float32), "m": np.array([0.125], np.float32)}
    constants |= {"w": generator.normal(size=(32, 2)).astype(np.float32)}
    nodes = [
        helper.make_node("Sub", ["x", "m"], ["c"]),
        helper.make_node("Conv", ["c", "k", "b"], ["z"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("Add", ["h", "z"], ["s"]),
        helper.make_node("Transpose", ["s"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Flatten", ["t"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, constants, [1, 1, 4, 4], 2)
    network = model.read(path)
    point = generator.normal(size=16).astype(np.float32)
    outputs = exact.evaluate(network, [Fraction(x) for x in point.tolist()])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert np.allclose([float(x) for x in outputs], session.run(None, {"x": point.reshape(1, 1, 4, 4)})[0][0], 1e-4)
    near = point[None].astype(np.float64)
    low = Bounds(network, near - 0.05, near + 0.05).rows(network.output, np.concatenate([np.eye(2), -np.eye(2)]))
    assert all(Fraction(low.lower[0, i]) <= outputs[i] <= -Fraction(low.lower[0, 2 + i]) for i in range(2))


@pytest.mark.parametrize("seed", range(24))
def test_random_queries_against_exact_grids(seed: int, tmp_path: Path) -> None:
    """A proof of HOLDS leaves no exact violation on a grid; a threshold below what the grid attains has no proof."""
    network_file = random_mlp(tmp_path / "net.onnx", 2 * seed)
    network = model.read(network_file)
    axis = [Fraction(k, 4) for k in range(-4, 5)]
    values = [exact.evaluate(network, [a, b])[0] for a in axis for b in axis]
    least = min(values)
    for shift, provable in ((Fraction(-3), None), (Fraction(0), False), (Fraction(1, 2), False)):
        limit = float(least + shift) if shift else float(np.nextafter(float(least), np.inf))
        claim = property_file(tmp_path / "p.vnnlib", [("-1", "1")] * 2, 2, f"(<= Y_0 {limit:.17f})")
        out = tmp_path / "out.proof"
        if provable is None:
            assert (
                evidence.write(out, evidence.Claim(network_file, claim)).leaves
                == check(out, network_file, claim).leaves
            )
        else:
            (region,) = read(claim, 2, 2)
            tree = {"axis.0": np.array([-1], "<i4"), "cut.0": np.zeros(1)}
            hashes = {"model": evidence.digest_of(network_file), "property": evidence.digest_of(claim)}
            pack(out, {**hashes, "verdict": "holds", "arithmetic": "real"}, tree)
            assert any(value <= region.limits[0] for value in values)
            with pytest.raises(Refused):
                check(out, network_file, claim)


@pytest.fixture
def proved(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A proof of several leaves, its model and property."""
    network = random_mlp(tmp_path / "net.onnx", 4)
    held = model.read(network)
    box = np.array([[-1.0, -0.5]]), np.array([[1.0, 0.7]])
    low = Bounds(held, *box).rows(held.output, np.eye(2)[:1]).lower[0, 0]
    grid = [[Fraction(a, 10), Fraction(b, 10)] for a in range(-10, 11) for b in range(-5, 8)]
    least = float(min(exact.evaluate(held, point)[0] for point in grid))
    limit = least - 0.1 * (least - low)
    claim = property_file(tmp_path / "p.vnnlib", BOX, 2, f"(and (<= Y_0 {limit:.6f}) (<= Y_1 1000))")
    out = tmp_path / "out.proof"
    assert evidence.write(out, evidence.Claim(network, claim)).leaves > 1
    assert check(out, network, claim).verdict == "holds"
    return out, network, claim


def test_changed_bytes_are_refused(proved: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """No byte of a proof is without effect, and a file that ends early shows less than the whole one."""
    out, network, claim = proved
    data = out.read_bytes()
    generator = np.random.default_rng(0)
    changed = tmp_path / "changed.proof"
    for place in generator.integers(0, len(data), 300).tolist():
        changed.write_bytes(data[:place] + bytes([data[place] ^ int(generator.integers(1, 256))]) + data[place + 1 :])
        assert not believed(changed, network, claim)
    for end in range(0, len(data), 7):
        changed.write_bytes(data[:end])
        assert not believed(changed, network, claim)
        changed.write_bytes(data + data[: end + 1])
        assert not believed(changed, network, claim)


def test_an_interrupted_proof_shows_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off after each record in turn: what is shown grows with them, and no point of it violates the property."""
    monkeypatch.setattr(evidence, "OFTEN", 0.0)
    monkeypatch.setattr(evidence, "batch_of", lambda *_: 3)
    network = random_mlp(tmp_path / "net.onnx", 4)
    box = np.array([[-1.0, -0.5]]), np.array([[1.0, 0.7]])
    held = model.read(network)
    low = Bounds(held, *box).rows(held.output, np.eye(2)[:1]).lower[0, 0]
    claim = property_file(tmp_path / "p.vnnlib", BOX, 2, f"(<= Y_0 {low / 2:.6f})")
    out, cut = tmp_path / "out.proof", tmp_path / "cut.proof"
    whole = evidence.write(out, evidence.Claim(network, claim), deadline=time.monotonic() + 0.5)
    data, ends, place = out.read_bytes(), [], len(b"verif proof 2\n")
    while place < len(data):
        place += int.from_bytes(data[place : place + 4], "little") + 12
        ends.append(place)
    shares = []
    for end in ends:
        cut.write_bytes(data[: end + 2])
        shown = check(cut, network, claim)
        shares.append(shown.share)
        assert shown.verdict == ("incomplete" if end < len(data) or whole.share < 1 else "holds")
    assert shares == sorted(shares) and shares[0] == 0.0 and abs(shares[-1] - whole.share) < 1e-9
    assert len(set(shares)) > 3


def test_regions_of_which_some_need_signs(tmp_path: Path) -> None:
    """Boxes that are refuted at once are checked together, around one that needs a tree over signs."""
    network = random_mlp(tmp_path / "net.onnx", 2, (26, 6, 6, 2))
    held = model.read(network)
    ends = [np.sort(np.random.default_rng(k).uniform(-1, 1, (2, 1, 26)) * width, 0) for k, width in enumerate(WIDTHS)]
    row = np.eye(2)[:1]
    lows = [Bounds(held, *end).rows(held.output, row).lower[0, 0] for end in ends]
    points = np.where(np.random.default_rng(9).random((2000, 26)) < 0.5, *ends[2])
    least = float((-Bounds(held, points, points).rows(held.output, -row).lower).min())
    limits = [low + (0.3 * (least - low) if width == 1.0 else -0.1) for low, width in zip(lows, WIDTHS, strict=True)]
    box = [("-1", "1")] * 26
    parts = []
    for (low, high), limit in zip(ends, limits, strict=True):
        sides = [f"(>= X_{i} {low[0, i]:.6f}) (<= X_{i} {high[0, i]:.6f})" for i in range(26)]
        parts.append(f"(and {' '.join(sides)} (<= Y_0 {limit:.6f}))")
    claim, out = property_file(tmp_path / "p.vnnlib", box, 2, f"(or {' '.join(parts)})"), tmp_path / "out.proof"
    written = evidence.write(out, evidence.Claim(network, claim))
    shown = check(out, network, claim)
    assert shown.verdict == "holds" and shown.leaves == written.leaves >= len(WIDTHS)
    kinds = [kind for kind, _ in stream.read(out)[1]]
    assert kinds[:2] == ["B", "S"] and kinds[-1] == "B"


def test_what_time_leaves_open(tmp_path: Path) -> None:
    """A claim that is false on a part of the box: the rest of it is shown, and the file says how much."""
    network = random_mlp(tmp_path / "net.onnx", 4)
    grid = [[Fraction(a, 10), Fraction(b, 10)] for a in range(-10, 11) for b in range(-5, 8)]
    values = sorted(float(exact.evaluate(model.read(network), point)[0]) for point in grid)
    claim = property_file(tmp_path / "p.vnnlib", BOX, 2, f"(<= Y_0 {values[len(values) // 2]:.6f})")
    out = tmp_path / "out.proof"
    written = evidence.write(out, evidence.Claim(network, claim), deadline=time.monotonic() + 0.3)
    shown = check(out, network, claim)
    assert shown.verdict == "incomplete" and written.why
    assert shown.share == pytest.approx(written.share) and 0.1 < shown.share < 0.6
    assert shown.leaves == written.leaves


def test_bounds_end_with_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only between them: here three layers in."""
    network, ticks = model.read(random_mlp(tmp_path / "net.onnx", 4)), iter(range(1, 100))
    monkeypatch.setattr(evidence.time, "monotonic", lambda: next(ticks))
    with pytest.raises(Refused, match="time"):
        evidence.Task(1.0, 3.0).bounds(network, -np.ones((1, 2)), np.ones((1, 2)))
    assert next(ticks) == 5 < len(network.steps)


def test_changed_claims_are_refused(proved: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Resealed with other numbers, as a forger would: every node turned into a leaf, lost, moved or cut elsewhere."""
    out, network, claim = proved
    manifest, arrays = unpack(out)
    axis, cut = arrays["axis.0"], arrays["cut.0"]
    forged = tmp_path / "forged.proof"
    inner = np.flatnonzero(axis >= 0).tolist()
    trees = [(np.delete(axis, k), np.delete(cut, k)) for k in range(len(axis))]
    for at in inner:
        leaf, far, odd, outside = axis.copy(), cut.copy(), cut.copy(), axis.copy()
        leaf[at], far[at], odd[at], outside[at] = -1, 5.0, np.nan, 2
        trees += [(leaf, cut), (axis, far), (axis, odd), (outside, cut)]
    trees += [(axis[:0], cut[:0]), (np.append(axis, -1), np.append(cut, 0.0)), (np.full(1, -1, "<i4"), np.zeros(1))]
    for tree in trees:
        pack(forged, manifest, {"axis.0": tree[0], "cut.0": tree[1]})
        assert not believed(forged, network, claim)
    changes = [("model", "0" * 64), ("property", "0" * 64), ("verdict", "violated"), ("arithmetic", "float32")]
    for key, value in [*changes, ("verdict", None), ("verdict", ["holds"])]:
        pack(forged, {**manifest, key: value}, {"axis.0": axis, "cut.0": cut})
        assert not believed(forged, network, claim)


def test_another_model_or_property_is_refused(proved: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out, network, claim = proved
    other = property_file(tmp_path / "other.vnnlib", BOX, 2, "(<= Y_0 -1000)")
    with pytest.raises(Refused, match="another property"):
        check(out, network, other)
    with pytest.raises(Refused, match="another model"):
        check(out, random_mlp(tmp_path / "other.onnx", 6), claim)


def test_counterexamples(tmp_path: Path) -> None:
    """On the boundary, decided by exact rationals; outside of the box by one unit in the last place, never."""
    network = mlp(tmp_path / "net.onnx", [np.array([[3.0], [-1.0]]), np.eye(2)], [np.zeros(2), np.zeros(2)])
    claim = property_file(tmp_path / "p.vnnlib", [("0", "0.1")], 2, "(<= Y_1 0.0)")
    out = tmp_path / "out.proof"
    evidence.write(out, evidence.Claim(network, claim), np.array([0.0625]))
    assert check(out, network, claim).verdict == "violated"
    with pytest.raises(Refused):
        evidence.write(out, evidence.Claim(network, claim), np.array([0.1]))  # the float64 0.1 is more than the decimal
    tight = property_file(tmp_path / "q.vnnlib", [("0", "0.1")], 2, "(<= Y_0 0.1875)")
    evidence.write(out, evidence.Claim(network, tight), np.array([0.0625]))
    assert check(out, network, tight).verdict == "violated"
    with pytest.raises(Refused):
        evidence.write(out, evidence.Claim(network, tight), np.array([np.nextafter(0.0625, 1)]))


def test_what_is_beyond_the_checker_says_so(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softplus", ["x"], ["y"])]
    with pytest.raises(Refused, match="Softplus"):
        model.read(save(tmp_path / "net.onnx", nodes, {}, [1, 2], 2))


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_mlp(tmp_path / "net.onnx", 4)
    bomb = tmp_path / "bomb.proof"
    monkeypatch.setattr("verif.checker.stream.LIMIT", 1 << 20)
    held = zlib.compress(bytes(1 << 21))
    bomb.write_bytes(b"verif proof 2\n" + len(held).to_bytes(4, "little") + held + hashlib.sha256(held).digest()[:8])
    with pytest.raises(Refused, match="larger"):
        check(bomb, network, network)


@pytest.mark.parametrize("seed", range(0, 8, 2))
def test_a_box_does_not_depend_on_its_neighbours(seed: int, tmp_path: Path) -> None:
    """Else a leaf that was refuted in one batch would not be in another one."""
    network = model.read(random_mlp(tmp_path / "net.onnx", seed, (2, 12, 12, 12, 2)))
    generator = np.random.default_rng(seed)
    lower = generator.normal(size=(30, 2))
    upper = lower + 10.0 ** generator.uniform(-2, 0, (30, 1))
    together = Bounds(network, lower, upper).rows(network.output, np.eye(2)).lower
    alone = [Bounds(network, lower[k, None], upper[k, None]).rows(network.output, np.eye(2)).lower for k in range(30)]
    assert np.allclose(together, np.concatenate(alone), rtol=1e-12, atol=1e-12)


def test_steps_that_only_move_constants_vanish(tmp_path: Path) -> None:
    """x - 0, and a sum behind a product: one step, of the same values."""
    generator = np.random.default_rng(0)
    constants = {"z": np.zeros(3, np.float32), "w": generator.normal(size=(3, 2)).astype(np.float32)}
    constants["b"] = generator.normal(size=2).astype(np.float32)
    nodes = [helper.make_node("Sub", ["x", "z"], ["c"]), helper.make_node("MatMul", ["c", "w"], ["m"])]
    nodes.append(helper.make_node("Add", ["m", "b"], ["y"]))
    network = model.read(save(tmp_path / "net.onnx", nodes, constants, [1, 3], 2))
    assert [step.op for step in network.steps] == ["input", "dense"]
    found = exact.evaluate(network, [Fraction(1), Fraction(2), Fraction(3)])
    expected = np.array([1.0, 2.0, 3.0]) @ constants["w"].astype(float) + constants["b"]
    assert np.allclose([float(value) for value in found], expected, rtol=1e-12)


def test_boxes_that_are_the_same_are_one_region(tmp_path: Path) -> None:
    """Whatever is said twice, says what is known anyway, or empties a box."""
    unsafe = [
        "(and (<= X_0 0.5) (<= Y_0 1))",
        "(and (<= X_0 2) (<= Y_0 2))",
        "(and (<= X_0 0.5) (>= X_0 -1.0) (<= X_0 0.75) (>= Y_1 3))",
        "(and (>= (* -2 X_0) 3) (<= Y_0 0))",
        "(<= Y_1 4)",
    ]
    claim = property_file(tmp_path / "p.vnnlib", BOX, 2, f"(or {' '.join(unsafe)})")
    claim.write_text(claim.read_text() + "(assert (<= Y_0 9))\n")
    first, second = read(claim, 2, 2)
    assert first.exact == ((-1, Fraction(1, 2)), (Fraction(-1, 2), Fraction(7, 10)))
    assert second.exact == ((-1, 1), (Fraction(-1, 2), Fraction(7, 10)))
    assert [[first.limits[row] for row in clause] for clause in first.clauses] == [[9, 1], [9, -3]]
    assert [[second.limits[row] for row in clause] for clause in second.clauses] == [[9, 2], [9, 4]]
