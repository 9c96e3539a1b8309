"""Properties made in Python."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.properties.tools import message, network, onnx_model, unsafe
from verif.errors import PropertyError
from verif.properties import linear, output_range, robustness
from verif.query import compile_query
from verif.replay import replay

WEIGHT = np.array([[1.0, -1.0, 0.0], [0.5, 2.0, 0.0]])


def test_robustness_labels_by_the_model(tmp_path: Path) -> None:
    model = onnx_model(tmp_path / "m.onnx", WEIGHT)
    property = robustness(model, [[1.0, 0.0]], 0.5)
    assert property.lower.tolist() == [[0.5, -0.5]] and property.upper.tolist() == [[1.5, 0.5]]
    y = torch.tensor([[[2.0, 3.0, 1.0]]]).double()
    assert property.atoms(y)[0].tolist() == [[-1.0, 1.0]]
    query = compile_query(property, model)
    assert not replay(query, torch.tensor([0.5, 0.5])).violated  # y = (0.75, 0.5, 0): still label 0
    wider = compile_query(robustness(model, [[1.0, 0.0]], 0.75), model)
    assert replay(wider, torch.tensor([0.5, 0.75])).violated  # y = (0.875, 1, 0)


def test_several_samples_are_regions_with_their_own_labels() -> None:
    property = robustness(network((2,), (3,)), [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]], [0.1, 0.2, 0.3], label=[2, 0, 2])
    assert property.lower[:, 0].tolist() == pytest.approx([-0.1, 0.8, 1.7])
    assert property.spans.tolist() == [[[0, 2]], [[2, 4]], [[0, 2]]]
    y = np.array([5.0, 4.0, 6.0])
    assert not unsafe(property, [0.0, 0.0], {"y": y})
    assert unsafe(property, [1.0, 1.0], {"y": y})


def test_balls_and_clipping(tmp_path: Path) -> None:
    model = onnx_model(tmp_path / "m.onnx", WEIGHT)
    property = robustness(model, [1.0, 0.0], 0.5, norm=2, label=1, clip=(0.0, 1.0))
    assert property.lower.tolist() == [[0.5, 0.0]] and property.upper.tolist() == [[1.0, 0.5]]
    assert property.norm == 2.0 and property.center is not None
    query = compile_query(property, model)
    assert replay(query, torch.tensor([0.75, 0.25])).violated
    outside = replay(query, torch.tensor([0.5, 0.5]))
    assert outside.reason == "the point is in no region of the property's inputs"


def test_ranges_and_rows() -> None:
    graph = network((2,), (2,))
    property = output_range(graph, [0.0, 0.0], [1.0, 1.0], low=0.0, high=[2.0, math.inf])
    for y, expected in (((0.0, 9.0), False), ((2.0, 0.0), False), ((2.5, 0.0), True), ((1.0, -0.5), True)):
        assert unsafe(property, [0.5, 0.5], {"y": np.array(y)}) is expected
    for together, expected in ((False, True), (True, False)):
        property = linear(graph, [0.0, 0.0], [1.0, 1.0], [[1.0, 0.0], [0.0, 1.0]], 1.0, together=together)
        assert unsafe(property, [0.5, 0.5], {"y": np.array([1.0, 5.0])}) is expected


def test_an_empty_box_is_a_warning() -> None:
    property = linear(network(), [[0.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0]], 1.0)
    assert len(property.lower) == len(property.spans) == 1
    assert property.warnings == ("1 of 2 input boxes are empty",)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (([1.0, 2.0, 3.0], 0.1), "error[P104]: the input has the shape [3], the network takes 2 numbers"),
        (([1.0, math.nan], 0.1), "error[P112]: the input holds NaN or infinite numbers"),
        (([1.0, 2.0], -0.1), "error[P112]: eps must be a finite number that is not negative, it is -0.1"),
        (([1.0, 2.0], math.nan), "error[P112]: eps must be a finite number that is not negative, it is nan"),
    ],
)
def test_errors(arguments: tuple[list[float], float], expected: str) -> None:
    with pytest.raises(PropertyError) as caught:
        robustness(network(), *arguments)
    assert message(caught.value) == expected


def test_a_label_and_a_norm_must_exist() -> None:
    for more, text in (
        ({"label": 2}, "error[P112]: label 2 is not one of the network's 2 outputs"),
        ({"norm": 3}, "error[P112]: norm must be 1, 2 or inf, it is 3"),
    ):
        with pytest.raises(PropertyError) as caught:
            robustness(network(), [0.0, 0.0], 0.1, **more)  # type: ignore[arg-type]
        assert message(caught.value) == text
