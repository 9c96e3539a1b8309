"""Gathers that repeat every entry are computed in another way."""

from __future__ import annotations

import pytest
import torch

from graphs.ops.affine import gather

INDICES = {
    "twice": torch.tensor([0, 0, 1, 1, 2, 2]),
    "in a square": torch.tensor([[0, 0], [1, 1], [2, 2]]),
    "each once": torch.tensor([0, 1, 2]),
    "whole copies": torch.tensor([0, 1, 2, 0, 1, 2]),
    "one too few": torch.tensor([0, 0, 1, 1, 2]),
    "shifted": torch.tensor([0, 1, 1, 2, 2, 2]),
    "one": torch.tensor(1),
    "none": torch.empty(0, dtype=torch.long),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_entries_are_those_of_the_index(index: torch.Tensor, axis: int) -> None:
    x = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    taken = x.movedim(axis + 1, 0)[index.reshape(-1)].movedim(0, axis + 1)
    assert torch.equal(
        gather(x, index=index, axis=axis), taken.reshape(*x.shape[: axis + 1], *index.shape, *x.shape[axis + 2 :])
    )
