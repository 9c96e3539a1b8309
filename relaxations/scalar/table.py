"""Tables of functions of one number, for points where a little off does no harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

COUNT = 2048


@dataclass(frozen=True)
class Table:
    """Values (COUNT + 1) of a function at equal steps from 0 to 1, with straight lines between."""

    values: Tensor

    @classmethod
    def of(cls, f: Callable[[Tensor], Tensor]) -> Table:
        """The function's values, in float64."""
        with torch.inference_mode(mode=False), torch.no_grad():
            return cls(f(torch.linspace(0, 1, COUNT + 1, dtype=torch.float64)))

    def at(self, u: Tensor) -> Tensor:
        """About the function at u; outside of 0 to 1 its value at an end."""
        place = (u * COUNT).nan_to_num(0.0).clamp(0, COUNT)
        left = place.long().clamp(max=COUNT - 1)
        values = self.values.to(u)
        return torch.lerp(values[left], values[left + 1], place - left)
