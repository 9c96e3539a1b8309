"""Ops that derivatives are made of. Inputs are batched (B, *N); see graphs/derivatives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphs.ops.registry import OPS, Kind, op
from graphs.ops.vjp import vjp


@op(Kind.CUSTOM)
def clarke(x: Tensor, *, at: Sequence[float], slopes: Sequence[float]) -> Tensor:
    """Slope of a piecewise linear function: `slopes` from left to right, kinks `at`; in a kink that of its left."""
    value = torch.full_like(x, slopes[0])
    for kink, slope in zip(at, slopes[1:], strict=True):
        value = torch.where(x > kink, slope, value)
    return value


@op(Kind.BILINEAR)
def chain(x: Tensor, d: Tensor) -> Tensor:
    """x d, the product of the chain rule with the slope d of a kinked function (axes of size 1 broadcast)."""
    return x * d


@op(Kind.BILINEAR)
def smooth_chain(x: Tensor, d: Tensor) -> Tensor:
    """x d, the product of the chain rule with the slope d of a smooth function (axes of size 1 broadcast)."""
    return x * d


@op(Kind.AFFINE, monotone=True)
def transposed(
    y: Tensor, *, base: str, shapes: Sequence[Sequence[int]], place: int, attrs: Mapping[str, Any], **params: Tensor
) -> Tensor:
    """Transpose of the affine op `base` (no coefficient is negative), from y (B, S, *N_out) to its input `place`."""
    flat = y.flatten(0, 1)
    pulled = vjp(lambda *xs: OPS[base].forward(*xs, **params, **attrs), shapes, flat, params.values())[place]
    return pulled.reshape(*y.shape[:2], *pulled.shape[1:])


@op(Kind.SCALAR)
def sigmoid_slope(x: Tensor) -> Tensor:
    """Derivative of the logistic function, s(x) s(-x)."""
    return x.sigmoid() * (-x).sigmoid()


@op(Kind.SCALAR)
def gauss(x: Tensor) -> Tensor:
    """e^(-x^2)."""
    return (-x * x).exp()


@op(Kind.SCALAR)
def lorentz(x: Tensor) -> Tensor:
    """1 / (1 + x^2)."""
    return (1 + x * x).reciprocal()


@op(Kind.SCALAR)
def gelu_slope(x: Tensor) -> Tensor:
    """Derivative of GELU, Phi(x) + x phi(x)."""
    tail: Tensor = torch.special.erfc(x * -math.sqrt(0.5))
    return 0.5 * tail + x * ((-0.5 * x * x).exp() * (1 / math.sqrt(2 * math.pi)))


@op(Kind.SCALAR)
def silu_slope(x: Tensor) -> Tensor:
    """Derivative of SiLU, s(x) (1 + x s(-x)), s the logistic function."""
    return x.sigmoid() * (1 + x * (-x).sigmoid())
