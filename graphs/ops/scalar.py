"""Scalar ops: one input, applied entry by entry. Outside of its domain an op gives NaN or infinity, as in torch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from graphs.ops.registry import Kind, op


@op(Kind.SCALAR, monotone=True)
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return torch.relu(x)


@op(Kind.SCALAR)
def leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    """x where x >= 0, else slope x."""
    return torch.where(x >= 0, x, slope * x)


@op(Kind.SCALAR)
def prelu(x: Tensor, *, slope: Tensor) -> Tensor:
    """x where x >= 0, else slope x; the slope, of any sign, broadcasts to one sample of x."""
    return torch.where(x >= 0, x, slope * x)


@op(Kind.SCALAR)
def abs_(x: Tensor) -> Tensor:
    """|x|."""
    return x.abs()


@op(Kind.SCALAR, monotone=True)
def clip(x: Tensor, *, lower: float, upper: float) -> Tensor:
    """min(max(x, lower), upper); either end may be infinite."""
    return x.clamp(lower, upper)


@op(Kind.SCALAR, monotone=True)
def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1."""
    return x.sign()


@op(Kind.SCALAR, monotone=True)
def floor(x: Tensor) -> Tensor:
    """The largest integer that is at most x."""
    return x.floor()


@op(Kind.SCALAR, monotone=True)
def ceil(x: Tensor) -> Tensor:
    """The smallest integer that is at least x."""
    return x.ceil()


@op(Kind.SCALAR, monotone=True)
def round_(x: Tensor) -> Tensor:
    """The nearest integer; halves go to the even one."""
    return x.round()


@op(Kind.SCALAR, monotone=True)
def trunc(x: Tensor) -> Tensor:
    """The integer part, towards zero."""
    return x.trunc()


@op(Kind.SCALAR, monotone=True)
def step(x: Tensor, *, closed: bool = False) -> Tensor:
    """1 where x > 0 (x >= 0 if closed), else 0."""
    return (x >= 0 if closed else x > 0).to(x.dtype)


@op(Kind.SCALAR)
def is_zero(x: Tensor) -> Tensor:
    """1 where x = 0, else 0."""
    return (x == 0).to(x.dtype)


@op(Kind.SCALAR, monotone=True)
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    return x.sigmoid()


@op(Kind.SCALAR, monotone=True)
def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return x.tanh()


@op(Kind.SCALAR, monotone=True)
def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x)."""
    return torch.logaddexp(x, torch.zeros_like(x))


@op(Kind.SCALAR, monotone=True)
def exp(x: Tensor) -> Tensor:
    """e^x."""
    return x.exp()


@op(Kind.SCALAR, monotone=True)
def log(x: Tensor) -> Tensor:
    """Natural logarithm, x > 0."""
    return x.log()


@op(Kind.SCALAR, monotone=True)
def sqrt(x: Tensor) -> Tensor:
    """Square root, x >= 0."""
    return x.sqrt()


@op(Kind.SCALAR)
def reciprocal(x: Tensor) -> Tensor:
    """1 / x, x other than 0."""
    return x.reciprocal()


@op(Kind.SCALAR)
def power(x: Tensor, *, exponent: float) -> Tensor:
    """x to a constant power; x >= 0 where that is not an integer, x other than 0 where it is negative."""
    return x.pow(exponent)


@op(Kind.SCALAR)
def square(x: Tensor) -> Tensor:
    """x^2."""
    return x * x


@op(Kind.SCALAR)
def sin(x: Tensor) -> Tensor:
    """Sine, radians."""
    return x.sin()


@op(Kind.SCALAR)
def cos(x: Tensor) -> Tensor:
    """Cosine, radians."""
    return x.cos()


@op(Kind.SCALAR)
def tan(x: Tensor) -> Tensor:
    """Tangent, radians."""
    return x.tan()


@op(Kind.SCALAR, monotone=True)
def asin(x: Tensor) -> Tensor:
    """Arcsine in radians, -1 <= x <= 1."""
    return x.asin()


@op(Kind.SCALAR, monotone=True)
def atan(x: Tensor) -> Tensor:
    """Arctangent, radians."""
    return x.atan()


@op(Kind.SCALAR, monotone=True)
def erf(x: Tensor) -> Tensor:
    """Error function."""
    return x.erf()


@op(Kind.SCALAR)
def gelu(x: Tensor) -> Tensor:
    """x Phi(x), Phi the normal distribution function."""
    tail: Tensor = torch.special.erfc(x * -math.sqrt(0.5))  # erf would cancel left of the origin
    return 0.5 * x * tail


@op(Kind.SCALAR)
def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its usual approximation, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return x * (2 * inner).sigmoid()  # the same without the cancellation of tanh left of the origin


@op(Kind.SCALAR)
def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), also called swish."""
    return F.silu(x)


@op(Kind.SCALAR)
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (e^x - 1)."""
    return torch.where(x > 0, x, alpha * x.clamp(max=0).expm1())


@op(Kind.SCALAR)
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (e^(x / alpha) - 1); alpha > 0."""
    return torch.where(x > 0, x, alpha * (x.clamp(max=0) / alpha).expm1())


@op(Kind.SCALAR)
def hard_swish(x: Tensor) -> Tensor:
    """x min(max(x / 6 + 1/2, 0), 1)."""
    return x * (x / 6 + 0.5).clamp(0, 1)


@op(Kind.SCALAR)
def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x))."""
    return x * softplus(x).tanh()


@op(Kind.SCALAR, monotone=True)
def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return x / (1 + x.abs())


@op(Kind.SCALAR, monotone=True)
def stable_exp(x: Tensor) -> Tensor:
    """x + 1 where x >= 0, else 1 / (1 - x): what StableMax has in place of e^x."""
    return torch.where(x >= 0, x + 1, (1 - x.clamp(max=0)).reciprocal())


@op(Kind.SCALAR, monotone=True)
def signed_log(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): the logarithm of stable_exp."""
    return torch.where(x >= 0, x.clamp(min=0).log1p(), -(-x.clamp(max=0)).log1p())  # the slope is 1 at 0


@op(Kind.SCALAR, monotone=True)
def log_softplus(x: Tensor) -> Tensor:
    """log log(1 + e^x): shares of softplus are the softmax of it."""
    small = x.clamp(max=-12.0)
    e = small.exp()
    return torch.where(x < -12.0, small - e / 2 + 5 * e * e / 24, softplus(x.clamp(min=-12.0)).log())
