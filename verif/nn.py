"""Torch modules that other libraries lack: train with them, export them to ONNX, and they are recognised there."""

from __future__ import annotations

import math

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


class SoftplusShares(nn.Module):
    """softplus(x_i) over the sum of softplus along `dim`: what LSSA (Gao et al. 2025) puts in softmax's place."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Shares of the shape of x."""
        g = nn.functional.softplus(x)
        return g / g.sum(self.dim, keepdim=True)


class SigmoidShares(nn.Module):
    """sigmoid(x_i - log n) of n entries along the last axis: sigmoid attention (Ramapuram et al. 2024), no coupling."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of x."""
        return torch.sigmoid(x - math.log(x.shape[-1]))


class TemperatureGate(nn.Module):
    """softmax((x + noise) / temperature) along the last axis: dense-to-sparse gates of mixtures of experts, annealed
    from warm to cold (Nie et al. 2021), and with fixed Gumbel noise a Gumbel selector (Jang et al. 2017).
    """

    temperature: Tensor
    noise: Tensor

    def __init__(self, temperature: float, noise: Tensor | float = 0.0) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.register_buffer("noise", torch.as_tensor(noise, dtype=torch.float32))

    def anneal(self, factor: float, least: float = 1e-2) -> None:
        """Make it colder: the temperature times a factor, not below `least`."""
        self.temperature.mul_(factor).clamp_(min=least)

    def forward(self, x: Tensor) -> Tensor:
        """Gates of the shape of x; their sum is 1."""
        return torch.softmax((x + self.noise) / self.temperature, -1)


def gumbel_noise(*shape: int, seed: int) -> Tensor:
    """Fixed noise for a `TemperatureGate`: minus the logarithm of standard exponential numbers."""
    random = torch.Generator().manual_seed(seed)
    return -torch.empty(shape).exponential_(generator=random).log()


class Codebook(nn.Module):
    """Vector quantisation: each vector along the last axis becomes the nearest of `count` codes of size `width`, or the
    values that belong to it (logits, where `outputs` says how many).
    """

    def __init__(self, count: int, width: int, outputs: int | None = None) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(count, width))
        self.values = self.codes if outputs is None else nn.Parameter(torch.randn(count, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width or outputs); of codes that are equally near the first."""
        near = x @ self.codes.T - self.codes.square().sum(-1) / 2  # falls with the distance
        return nn.functional.embedding(near.argmax(-1), self.values)


class RMSNorm(nn.Module):
    """x over the root of its mean square along the last axis, times a gain (Zhang and Sennrich 2019); in plain steps,
    which every exporter writes.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.gain, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of x."""
        return rms_normed(x, self.eps) * self.gain


def rms_normed(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean of x^2 + eps) along the last axis."""
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)
