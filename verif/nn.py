"""Torch modules that other libraries lack: train with them, export them to ONNX, and they are recognised there."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _s(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x + 1, 1 / (1 - torch.clamp(x, max=0)))


class StableMax(nn.Module):
    """StableMax (Prieto et al. 2025): s(x_i) over the sum of s, s(x) = x + 1 for x >= 0 and 1 / (1 - x) for x < 0."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Shares along `dim`, of the shape of x; gradients are finite everywhere."""
        s = _s(x)
        return s / s.sum(self.dim, keepdim=True)


class LogStableMax(nn.Module):
    """Logarithm of StableMax, accurate also where a share is tiny."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """log s(x_i) minus the logarithm of the sum of s along `dim`, of the shape of x."""
        return torch.log_softmax(torch.log(_s(x)), self.dim)


class StableMaxCrossEntropy(nn.Module):
    """Mean of minus the logarithm of the label's StableMax share, of logits (B, K) and labels (B,)."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """A number."""
        return nn.functional.nll_loss(torch.log_softmax(torch.log(_s(x)), -1), label)


class TopKGate(nn.Module):
    """Sparse gating of a mixture of experts: softmax among the k largest entries along `dim`, 0 elsewhere."""

    def __init__(self, k: int, dim: int = -1) -> None:
        super().__init__()
        self.k, self.dim = k, dim

    def forward(self, x: Tensor) -> Tensor:
        """Gates of the shape of x; their sum along `dim` is 1."""
        values, places = torch.topk(x, self.k, self.dim)
        return torch.zeros_like(x).scatter(self.dim, places, torch.softmax(values, self.dim))
