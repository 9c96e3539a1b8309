"""Convolutions of the checker against torch, and their transposes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper
from torch.nn.functional import conv2d, pad

from tests.verif.proving import save
from verif.checker import Refused, model
from verif.checker.bounds import Bounds
from verif.checker.windows import Window, terms, times, unfolded
from verif.sign_proofs import _pull

# kernel, image, strides, pads, groups
CASES = [
    ((2, 1, 3, 3), (1, 4, 5), (1, 1), (0, 0, 0, 0), 1),
    ((4, 3, 2, 3), (3, 5, 6), (2, 1), (1, 0, 0, 2), 1),
    ((4, 2, 3, 3), (4, 6, 5), (2, 2), (1, 1, 1, 1), 2),
    ((3, 1, 2, 2), (3, 4, 4), (2, 2), (0, 0, 0, 0), 3),
    ((2, 2, 4, 4), (2, 4, 4), (4, 4), (0, 0, 0, 0), 1),
]


@pytest.mark.parametrize("case", CASES)
def test_maps(case: tuple[tuple[int, ...], ...]) -> None:
    kernel_shape, shape, strides, pads, groups = case
    generator = np.random.default_rng(0)
    window = Window(generator.normal(size=kernel_shape), shape, strides, pads, groups)  # type: ignore[arg-type]
    size = int(np.prod(shape))
    x = generator.normal(size=(2, 3, size))
    top, left, bottom, right = pads
    images = pad(torch.from_numpy(x.reshape(-1, *shape)), (left, right, top, bottom))
    expected = conv2d(images, torch.from_numpy(window.kernel), stride=strides, groups=groups).flatten(1)  # type: ignore[call-overload]
    found = times(window, x)
    assert np.allclose(found.reshape(6, -1), expected.numpy(), atol=1e-12)
    matrix = unfolded(window, size)
    rows = generator.normal(size=(2, len(matrix)))
    assert np.allclose(times(window.T, rows), rows @ matrix, atol=1e-12)
    assert (matrix != 0).sum(1).max() <= terms(window) and (matrix != 0).sum(0).max() <= terms(window.T)
    for side, given, shown in ((window, rows, rows @ matrix), (window.T, x[0], found[0])):
        step = type("Held", (), {"matrix": side, "op": "dense"})
        assert np.allclose(_pull(step)(torch.from_numpy(given).float()).numpy(), shown, atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 2]}, {"strides": [3, 2], "pads": [1, 0, 1, 1]}])
@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolutions(attributes: dict[str, list[int]], group: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    constants = {"k": generator.normal(size=(4, 3, 3, 2)).astype(np.float32), "flat": np.array([1, -1])}
    constants["b"] = generator.normal(size=3 * group).astype(np.float32)
    nodes = [helper.make_node("ConvTranspose", ["x", "k", "b"], ["c"], group=group, **attributes)]
    nodes.append(helper.make_node("Reshape", ["c", "flat"], ["y"]))
    path = save(tmp_path / "net.onnx", nodes, constants, [1, 4, 3, 4], 0)
    network, x = model.read(path), generator.normal(size=(1, 48)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ran = session.run(None, {"x": x.reshape(1, 4, 3, 4)})[0]
    point = x.astype(np.float64)
    found = Bounds(network, point, point).rows(network.output, np.eye(network.outputs)).lower
    assert np.allclose(found, ran, atol=1e-5)


def test_shapes_that_do_not_fit() -> None:
    for shape, pads in (
        ((2, 4, 4), (0,) * 4),
        ((1, 2, 4), (0,) * 4),
        ((1, 4, 4), (-1, 0, 0, 0)),
        ((1, 0, 9), (3,) * 4),
    ):
        with pytest.raises(Refused):
            Window(np.ones((2, 1, 3, 3)), shape, (1, 1), pads)
