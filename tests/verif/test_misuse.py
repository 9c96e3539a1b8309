"""Arguments of another kind: an error that says what belongs there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import verif
from verif.errors import PropertyError

DIGITS = str(Path(__file__).resolve().parents[2] / "cases" / "digits" / "model.onnx")
X = np.full((1, 1, 8, 8), 0.5)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (
            verif.verify,
            (DIGITS, X),
            "a property is a VNN-LIB file, one of verif.robustness and its like, or a Q",
        ),
        (
            verif.verify,
            (torch.nn.Linear(2, 2), "p.vnnlib"),
            "verif.compile(module, x).network() of a torch module, not Linear",
        ),
        (verif.robustness, (torch.nn.Linear(2, 2), X, 0.1), "a network is an ONNX file, a graph, or verif.compile"),
        (verif.lipschitz, (DIGITS, X), "the region is a verif.Box or a verif.Ball, not ndarray"),
        (verif.prove, (True,), "what is proved is a condition on variables, such as y <= 1, not bool"),
    ],
)
def test_other_kinds(function: object, arguments: tuple[object, ...], message: str) -> None:
    assert callable(function)
    with pytest.raises(TypeError) as told:
        function(*arguments)
    assert message in str(told.value)


def test_the_model_in_the_place_of_the_property() -> None:
    with pytest.raises(PropertyError, match="this is a model, not a property") as told:
        verif.verify("property.vnnlib", DIGITS)
    assert told.value.help == "the model comes first, then the property"
