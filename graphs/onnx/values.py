"""What a converter works on: variables (values of the graph) and constants (known tensors)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Variable:
    """A value that depends on the network's inputs: its IR name, shape without the batch, and ONNX element type."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def cast(self, dtype: str) -> Variable:
        """The same value seen as another element type."""
        return replace(self, dtype=dtype)


@dataclass(frozen=True)
class Masked(Variable):
    """A variable with -inf in place of the entries that `kept` (bool, of its shape) leaves out: input of a Softmax."""

    kept: Tensor


@dataclass(frozen=True)
class Ranked(Variable):
    """The places of the k largest entries of a value (`name`) along an axis: where a gate writes its shares back."""

    axis: int


@dataclass(frozen=True)
class Constant:
    """A known tensor: float64 for all float types, int64 for all integers, bool. `name` is the user's name of it."""

    tensor: Tensor
    dtype: str
    name: str = ""

    @classmethod
    def of(cls, tensor: Tensor, dtype: str, name: str = "") -> Constant:
        """Bring a tensor to the master type of `dtype` (towards integers by truncation, as ONNX Cast does)."""
        return cls(tensor.to(master(dtype)), dtype, name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return tuple(self.tensor.shape)

    def cast(self, dtype: str) -> Constant:
        """Converted to another element type."""
        return Constant.of(self.tensor, dtype, self.name)


Value = Variable | Constant


def master(dtype: str) -> torch.dtype:
    """The torch type in which constants of an ONNX element type are kept."""
    return torch.bool if dtype == "bool" else torch.float64 if is_float(dtype) else torch.int64


def is_float(dtype: str) -> bool:
    """Whether an ONNX element type is a floating-point one."""
    return "float" in dtype
