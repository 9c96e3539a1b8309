"""The checker's curves, pools and normalisations, against 60 decimal digits."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.verif.proving import Array, pack, property_file, save, unpack
from verif import evidence
from verif.checker import Refused, check, convex, curves, model, waves
from verif.checker.bounds import Bounds
from verif.checker.network import Network
from verif.checker.windows import unfolded

DIGITS = 60
OPS = {"sigmoid": "Sigmoid", "tanh": "Tanh"}


def decimals(array: Array) -> list[Decimal]:
    return [Decimal(x) for x in np.asarray(array, np.float64).ravel().tolist()]


BENT: dict[str, Callable[[Decimal], Decimal]] = {
    "sigmoid": lambda z: 1 / (1 + (-z).exp()),
    "tanh": lambda z: 1 - 2 / ((2 * z).exp() + 1),
    "exp": lambda z: z.exp(),
    "reciprocal": lambda z: 1 / z,
    "relu": lambda z: max(z, Decimal(0)),
    "sin": lambda z: series(z)[0],
    "cos": lambda z: series(z)[1],
}


def series(z: Decimal) -> tuple[Decimal, Decimal]:
    """Sine and cosine: the power series of a small part of z, doubled."""
    half = 0
    while abs(z) > Decimal("0.01"):
        z, half = z / 2, half + 1
    sums, term = [Decimal(0), Decimal(0)], Decimal(1)
    for n in range(1, 26):
        sums[n % 2] += term if (n - 1) % 4 < 2 else -term
        term = term * z / n
    cosine, sine = sums[1], sums[0]
    for _ in range(half):
        sine, cosine = 2 * sine * cosine, 1 - 2 * sine * sine
    return sine, cosine


def evaluated(network: Network, point: Array) -> list[Decimal]:
    """The outputs, by the definitions; called with DIGITS."""
    values = [decimals(point)]
    for step in network.steps[1:]:
        first = values[step.sources[0]]
        if step.op == "dense":
            matrix = unfolded(step.matrix, len(first))
            rows = [[(Decimal(float(row[k])), k) for k in row.nonzero()[0].tolist()] for row in matrix]
            sums = zip(rows, decimals(step.shift), strict=True)
            values.append([sum((w * first[k] for w, k in row), b) for row, b in sums])
        elif step.op == "pick":
            values.append([first[k] for k in step.index.tolist()])
        elif step.op == "mul":
            values.append([a * b for a, b in zip(first, values[step.sources[1]], strict=True)])
        else:
            values.append([BENT[step.op](z) for z in first])
    return values[network.output]


def net(path: Path, seed: int, op: str, sizes: tuple[int, ...] = (2, 5, 5, 2)) -> Path:
    """Gemm and a curve in turn, weights of magnitudes that differ widely for odd seeds."""
    generator, nodes, constants, held = np.random.default_rng(seed), [], {}, "x"
    for place, (n, m) in enumerate(pairwise(sizes)):
        spread = 10.0 ** generator.integers(-4, 4, (m, n)) if seed % 2 else 1.0
        constants[f"w{place}"] = (generator.normal(size=(m, n)) * spread).astype(np.float32)
        constants[f"b{place}"] = generator.normal(size=m).astype(np.float32)
        last = place == len(sizes) - 2
        out = "y" if last else f"z{place}"
        nodes.append(helper.make_node("Gemm", [held, f"w{place}", f"b{place}"], [out], transB=1))
        if not last:
            held = f"h{place}"
            nodes.append(helper.make_node(OPS[op] if place % 2 == 0 else "Relu", [out], [held]))
    return save(path, nodes, constants, [1, sizes[0]], sizes[-1])


def test_exponential() -> None:
    generator = np.random.default_rng(0)
    parts = [
        generator.uniform(0, 1, 200),
        generator.uniform(0, curves.FLAT, 400),
        10.0 ** generator.uniform(-20, 0, 100),
    ]
    x = -np.concatenate([*parts, [0.0, curves.FLAT], np.log(2) * (np.arange(40) + 0.5)])
    with localcontext(prec=DIGITS):
        for given, found in zip(decimals(x), decimals(curves.exponential(x)), strict=True):
            assert abs(found / given.exp() - 1) < Decimal(2) ** -49


@pytest.mark.parametrize("op", OPS)
def test_lines_lie_on_their_sides(op: str) -> None:
    generator, count = np.random.default_rng(1), 400
    lower = generator.normal(size=count) * 10.0 ** generator.uniform(-3, 2, count)
    upper = lower + 10.0 ** generator.uniform(-14, 2, count) * (np.arange(count) % 20 > 0)
    found, (low, high) = curves.below(op, lower, upper), curves.ends(op, lower, upper)
    shares = [np.zeros(count), np.ones(count), *generator.random((4, count))]
    with localcontext(prec=DIGITS):
        gaps = []
        for share in shares:
            points = np.clip(lower + share * (upper - lower), lower, upper)
            exact = [BENT[op](z) for z in decimals(points)]
            lines = zip(decimals(found.slope), decimals(found.shift), decimals(points), strict=True)
            gaps.append([y - (k * z + c) for y, (k, c, z) in zip(exact, lines, strict=True)])
            assert all(a <= y <= b for a, y, b in zip(decimals(low), exact, decimals(high), strict=True))
    least = [min(column) for column in zip(*gaps, strict=True)]
    assert min(least) >= 0
    assert sorted(least)[count // 2] < 1e-12  # they touch


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("seed", range(8))
def test_bounds_are_below_exact_values(seed: int, op: str, tmp_path: Path) -> None:
    network = model.read(net(tmp_path / "net.onnx", seed, op))
    generator = np.random.default_rng(seed)
    lower = generator.normal(size=(4, 2))
    upper = lower + np.array([0.0, 1e-9, 0.1, 2.0])[:, None]
    rows = generator.normal(size=(3, 2))
    found = Bounds(network, lower, upper).rows(network.output, rows).lower
    assert np.isfinite(found).all()
    with localcontext(prec=DIGITS):
        for box in range(4):
            for _ in range(4):
                share = generator.choice([0.0, 1.0, generator.random()], 2)
                point = np.clip(lower[box] + share * (upper[box] - lower[box]), lower[box], upper[box])
                outputs = evaluated(network, point)
                for row, low in zip(rows, decimals(found[box]), strict=True):
                    least = sum(w * y for w, y in zip(decimals(row), outputs, strict=True))
                    assert low <= least
                    assert box or seed % 2 or float(least - low) < 1e-11  # at a point they meet


def test_pools_and_normalisations(tmp_path: Path) -> None:
    """x / 3, means of 3 x 3, a normalisation, a ReLU minus its input: by hand in decimals."""
    generator = np.random.default_rng(3)
    moments = {name: generator.normal(size=2).astype(np.float32) for name in "sbm"}
    constants = moments | {"v": np.abs(generator.normal(size=2)).astype(np.float32), "c": np.array(3.0, np.float32)}
    nodes = [
        helper.make_node("Div", ["x", "c"], ["d"]),
        helper.make_node("AveragePool", ["d"], ["p"], kernel_shape=[3, 3], strides=[2, 1]),
        helper.make_node("BatchNormalization", ["p", "s", "b", "m", "v"], ["n"], epsilon=1e-5),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Sub", ["r", "p"], ["e"]),
        helper.make_node("Flatten", ["e"], ["y"]),
    ]
    network = model.read(save(tmp_path / "net.onnx", nodes, constants, [1, 2, 5, 4], 8))
    for _ in range(10):
        image = generator.normal(size=(2, 5, 4)) * 10.0 ** generator.integers(-3, 4)
        found = Bounds(network, image.reshape(1, -1), image.reshape(1, -1))
        rows = np.concatenate([np.eye(8), -np.eye(8)])
        low = decimals(found.rows(network.output, rows).lower)
        with localcontext(prec=DIGITS):
            exact = []
            for channel, row, column in np.ndindex(2, 2, 2):
                window = image[channel, 2 * row : 2 * row + 3, column : column + 3]
                mean = sum(decimals(window), Decimal(0)) / 27
                s, b, m, v = (decimals(constants[name])[channel] for name in "sbmv")
                scaled = s * (mean - m) / (v + Decimal(float(np.float32(1e-5)))).sqrt() + b
                exact.append(max(scaled, Decimal(0)) - mean)
            size = float(np.abs(image).max()) + 10
            for y, under, over in zip(exact, low[:8], low[8:], strict=True):
                assert under <= y <= -over
                assert -over - under < 1e-12 * size


@pytest.mark.parametrize("op", waves.WAVES)
def test_waves_lie_between_their_lines(op: str) -> None:
    generator, count = np.random.default_rng(1), 300
    lower = generator.normal(size=(1, count)) * 10.0 ** generator.uniform(-3, 6, count)
    upper = lower + 10.0 ** generator.uniform(-14, 1, count) * (np.arange(count) % 20 > 0)
    low, high = waves.ends(op, lower, upper)
    slope, base, same, shift = waves.lines(op, lower, upper)
    assert (same == slope).all()
    narrow = upper - lower < 1e-3
    assert (high - low)[narrow].max() < 1.1e-3
    assert (shift - base)[narrow & (np.abs(lower) < 10)].max() < 2e-7
    with localcontext(prec=DIGITS):
        for share in (0.0, 1.0, 0.5, *generator.random(3)):
            points = np.clip(lower + share * (upper - lower), lower, upper)
            columns = [decimals(array) for array in (points, low, high, slope, base, shift)]
            for z, least, most, k, below, above in zip(*columns, strict=True):
                exact = BENT[op](z)
                assert least <= exact <= most
                assert k * z + below <= exact <= k * z + above
        known = np.abs(points[0]) <= waves.FAR
        for y, z in zip(decimals(waves.values(op, points[0][known])), decimals(points[0][known]), strict=True):
            assert abs(y - BENT[op](z)) < Decimal(curves.VALUE) / 8


@pytest.mark.parametrize("op", convex.CONVEX)
def test_convex_lines_lie_on_their_sides(op: str) -> None:
    generator, count = np.random.default_rng(4), 300
    start = generator.normal(size=count) * 10.0 ** generator.uniform(-2, 2.7, count)
    lower = np.minimum(start, 200.0) if op == "exp" else np.abs(start) + 1e-9
    upper = lower + 10.0 ** generator.uniform(-12, 1, count) * (np.arange(count) % 20 > 0)
    low, base, high, shift = convex.lines(op, lower, upper)
    least, most = convex.ends(op, lower, upper)
    with localcontext(prec=DIGITS):
        for share in [np.zeros(count), np.ones(count), *generator.random((4, count))]:
            points = np.clip(lower + share * (upper - lower), lower, upper)
            for place, z in enumerate(decimals(points)):
                exact = BENT[op](z)
                assert Decimal(float(low[place])) * z + Decimal(float(base[place])) <= exact
                assert Decimal(float(high[place])) * z + Decimal(float(shift[place])) >= exact
                assert Decimal(float(least[place])) <= exact <= Decimal(float(most[place]))


def attention(path: Path, seed: int) -> Path:
    """Two tokens of three numbers: scores of all pairs, shares by softmax, a mixture, a gate, a linear layer."""
    generator = np.random.default_rng(seed)
    constants = {name: generator.normal(size=(3, 3)).astype(np.float32) for name in ("q", "k", "v", "g")}
    constants |= {"w": generator.normal(size=(6, 2)).astype(np.float32), "s": np.array([1, 2, 3], np.int64)}
    nodes = [helper.make_node("Reshape", ["x", "s"], ["t"])]
    nodes += [helper.make_node("MatMul", ["t", name], [f"x{name}"]) for name in ("q", "k", "v", "g")]
    nodes += [
        helper.make_node("Transpose", ["xk"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["xq", "kt"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "xv"], ["mixed"]),
        helper.make_node("Sigmoid", ["xg"], ["gate"]),
        helper.make_node("Mul", ["mixed", "gate"], ["gated"]),
        helper.make_node("Flatten", ["gated"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    return save(path, nodes, constants, [1, 6], 2)


@pytest.mark.parametrize("seed", range(4))
def test_softmax_and_products(seed: int, tmp_path: Path) -> None:
    """Steps mean what onnxruntime computes, and bounds are below exact values."""
    import onnxruntime

    path = attention(tmp_path / "net.onnx", seed)
    network, generator = model.read(path), np.random.default_rng(seed)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    lower = generator.normal(size=(3, 6)).astype(np.float32).astype(np.float64)
    upper = lower + np.array([0.0, 1e-3, 0.5])[:, None]
    rows = np.concatenate([np.eye(2), -np.eye(2)])
    found = Bounds(network, lower, upper).rows(network.output, rows).lower
    for box in range(3):
        for share in (0.0, 1.0, generator.random(6)):
            point = np.clip(lower[box] + share * (upper[box] - lower[box]), lower[box], upper[box])
            with localcontext(prec=DIGITS):
                outputs = evaluated(network, point)
                outputs += [-y for y in outputs]
                assert all(low <= y for low, y in zip(decimals(found[box]), outputs, strict=True))
                assert box or all(float(y - low) < 1e-9 for low, y in zip(decimals(found[box]), outputs, strict=True))
            seen = session.run(None, {"x": point.astype(np.float32)[None]})[0][0]
            assert np.allclose([float(y) for y in outputs[:2]], seen, atol=1e-4)


def test_proofs_of_softmax_and_products(tmp_path: Path) -> None:
    path = attention(tmp_path / "net.onnx", 0)
    network, centre = model.read(path), np.full(6, 0.25)
    with localcontext(prec=DIGITS):
        middle = float(evaluated(network, centre)[0])
    claim = property_file(tmp_path / "p.vnnlib", [("0.23", "0.27")] * 6, 2, f"(<= Y_0 {middle - 0.2:.4f})")
    out = tmp_path / "out.proof"
    assert evidence.write(out, evidence.Claim(path, claim)).leaves >= 1
    assert check(out, path, claim).verdict == "holds"
    false = property_file(tmp_path / "q.vnnlib", [("0.23", "0.27")] * 6, 2, f"(<= Y_0 {middle + 1e-6:.9f})")
    evidence.write(out, evidence.Claim(path, false), centre)
    assert check(out, path, false).verdict == "violated"


@pytest.mark.parametrize("op", OPS)
def test_proofs_of_curves(op: str, tmp_path: Path) -> None:
    """Written, accepted; refused with a claim that is false, or without their trees."""
    network_file = net(tmp_path / "net.onnx", 4, op)
    network = model.read(network_file)
    box = [("-1", "1"), ("-0.5", "0.7")]
    with localcontext(prec=DIGITS):
        grid = [np.array([a, b]) for a in np.linspace(-1, 1, 9) for b in np.linspace(-0.5, 0.7, 9)]
        least = float(min(evaluated(network, point)[0] for point in grid))
    claim = property_file(tmp_path / "p.vnnlib", box, 2, f"(<= Y_0 {least - 0.01:.6f})")
    out = tmp_path / "out.proof"
    assert evidence.write(out, evidence.Claim(network_file, claim)).leaves > 1
    assert check(out, network_file, claim).verdict == "holds"
    manifest, arrays = unpack(out)
    pack(out, manifest, {"axis.0": np.array([-1], "<i4"), "cut.0": np.zeros(1)})
    with pytest.raises(Refused, match="not refuted"):
        check(out, network_file, claim)
    false = property_file(tmp_path / "q.vnnlib", box, 2, f"(<= Y_0 {least + 0.001:.6f})")
    pack(out, {**manifest, "property": evidence.digest_of(false)}, arrays)
    with pytest.raises(Refused):
        check(out, network_file, false)
    point = grid[int(np.argmin([evaluated(network, p)[0] for p in grid]))]
    evidence.write(out, evidence.Claim(network_file, false), point)
    assert check(out, network_file, false).verdict == "violated"


@pytest.mark.parametrize("shape", [[4, 2], [4]])
def test_matrices_on_the_left(shape: list[int], tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    weight, count = generator.normal(size=(3, 4)).astype(np.float32), 3 * int(np.prod(shape)) // 4
    nodes = [helper.make_node("MatMul", ["w", "x"], ["h"]), helper.make_node("Flatten", ["h"], ["y"], axis=0)]
    network = model.read(save(tmp_path / "net.onnx", nodes, {"w": weight}, shape, count))
    point = generator.normal(size=shape)
    bounds = Bounds(network, point.reshape(1, -1), point.reshape(1, -1))
    low = bounds.rows(network.output, np.eye(count)).lower[0]
    assert np.allclose(low, (weight.astype(np.float64) @ point).ravel(), atol=1e-12)


def test_moves(tmp_path: Path) -> None:
    """Steps mean what onnxruntime computes."""
    import onnxruntime

    generator = np.random.default_rng(6)
    constants = {"p": np.array([0, 0, 1, 2, 0, 0, 0, 1], np.int64), "a": np.array([0], np.int64)}
    constants |= {"s": np.array([1, -3], np.int64), "e": np.array([2**40, -1], np.int64)}
    constants |= {"x23": np.array([2, 3], np.int64), "t": np.array([2, 1], np.int64), "g": np.array([2, 0], np.int64)}
    constants |= {"w": generator.normal(size=(4, 2)).astype(np.float32)}
    nodes = [
        helper.make_node("Pad", ["x", "p"], ["q"]),
        helper.make_node("Slice", ["q", "s", "e", "x23", "t"], ["c"]),
        helper.make_node("Squeeze", ["c", "a"], ["d"]),
        helper.make_node("Gather", ["d", "g"], ["h"], axis=0),
        helper.make_node("Unsqueeze", ["h", "a"], ["u"]),
        helper.make_node("Flatten", ["u"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, constants, [1, 3, 2, 3], 2)
    network, image = model.read(path), generator.normal(size=(1, 3, 2, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with localcontext(prec=DIGITS):
        outputs = evaluated(network, image)
    assert np.allclose([float(y) for y in outputs], session.run(None, {"x": image})[0][0], atol=1e-5)


def test_inputs_that_are_left_out_move_nothing(tmp_path: Path) -> None:
    """Slice with steps but without axes: the steps must not be read as axes."""
    constants = {"s": np.zeros(2, np.int64), "e": np.array([1, 2], np.int64), "t": np.array([0, 1], np.int64)}
    nodes = [helper.make_node("Slice", ["x", "s", "e", "", "t"], ["y"])]
    with pytest.raises(Refused, match="leaves an input out"):
        model.read(save(tmp_path / "net.onnx", nodes, constants, [1, 4], 2))
