"""LipSDP (Fazlyab et al. 2019, theorem 2, one multiplier per neuron): a semidefinite program for |J| from l_2 to l_2.

For networks of linear layers and ReLUs. The slope of a neuron between two points lies in [a, b], so that its input's
change v and its output's y have (b v - y)(y - a v) >= 0. Multipliers t >= 0 with
rho |x|^2 - |f|^2 - 2 sum_i t_i (b_i v_i - y_i)(y_i - a_i v_i) >= 0 for all changes prove the constant sqrt(rho).
A solver finds t and rho to its own tolerance only: we compute the least eigenvalue ourselves, and what it lacks is
added to rho.
Shape letters: n inputs, m outputs, h one layer's neurons, K neurons that may switch, Z = n + K coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relaxations.sets import Box
from verif.errors import PropertyError
from verif.lipschitz_baselines import flat_model, product_of_norms, slopes_of, weights_of
from verif.operator_norms import OperatorNorm
from verif.properties import Model

_ROUNDING = 64.0  # units in the last place that an eigenvalue may be wrong by, per row


class _Form(NamedTuple):
    """Changes as functions (rows, Z) of the coordinates: of the outputs, and b v - y and y - a v of neurons (K, Z).

    `gain` bounds the length of all coordinates for a change of the input of length 1.
    """

    outputs: Tensor
    above: Tensor
    below: Tensor
    gain: float


def lip_sdp(model: Model, box: Box | None = None, *, solver: str = "CLARABEL") -> float:
    """An upper bound of the constant from l_2 to l_2 over one box (local slopes), or everywhere (slopes in [0, 1]).

    Never above the product of norms. `solver` is one of cvxpy's for semidefinite programs. Raises PropertyError (P114)
    where the network is no chain of linear layers and ReLUs, or where there is no such solver.
    """
    f = flat_model(model)
    weights = weights_of(f)
    if box is None:
        slopes = [(weight.new_zeros(len(weight)), weight.new_ones(len(weight))) for weight in weights[:-1]]
    else:
        slopes = slopes_of(f, box)
    product = product_of_norms(model, OperatorNorm(2.0, 2.0))
    if product == 0:
        return 0.0
    form = _form([*weights[:-1], weights[-1] / product], slopes)  # outputs of size about 1
    n = weights[0].shape[1]
    return product * min(1.0, math.sqrt(_proved(form, _multipliers(form, n, solver), n)))


def _form(weights: Sequence[Tensor], slopes: Sequence[tuple[Tensor, Tensor]]) -> _Form:
    """Neurons that cannot switch are linear, and have no coordinates of their own."""
    n = weights[0].shape[1]
    size = n + sum(int((low < high).sum()) for low, high in slopes)
    y = torch.eye(n, size, dtype=weights[0].dtype)
    above, below, gains, gain, start = [], [], [1.0], 1.0, n
    for weight, (low, high) in zip(weights, slopes, strict=False):
        v = weight @ y
        y, varies = low[:, None] * v, low < high
        count = int(varies.sum())
        y[varies] = torch.eye(size, dtype=y.dtype)[start : start + count]
        above.append((high[:, None] * v - y)[varies])
        below.append((y - low[:, None] * v)[varies])
        start, gain = start + count, gain * float(torch.linalg.matrix_norm(weight, 2)) * (1 + 1e-12)
        gains.append(gain)
    empty = y.new_zeros(0, size)
    return _Form(weights[-1] @ y, torch.cat([empty, *above]), torch.cat([empty, *below]), math.hypot(*gains))


def _multipliers(form: _Form, n: int, solver: str) -> tuple[float, Tensor]:
    """rho and t (K,) as the solver says; rho = 1 and t = 0 where it says nothing."""
    import warnings

    import cvxpy

    cp: Any = cvxpy

    if solver not in cp.installed_solvers():
        raise PropertyError("P114", f"cvxpy has no solver '{solver}' here", help="take CLARABEL or SCS")
    size, count = form.outputs.shape[1], len(form.above)
    rho, t = cp.Variable(), cp.Variable(count, nonneg=True) if count else None
    quadratic = rho * _inputs(size, n).numpy() - (form.outputs.T @ form.outputs).numpy()
    if t is not None:
        half: Any = form.above.numpy().T @ cp.diag(t) @ form.below.numpy()
        quadratic = quadratic - half - half.T
    problem = cp.Problem(cp.Minimize(rho), [(quadratic + quadratic.T) / 2 >> 0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a solution may be inaccurate: it is checked
            problem.solve(solver=solver)
    except (cp.error.SolverError, ArithmeticError):
        return 1.0, torch.zeros(count, dtype=torch.float64)
    found = torch.zeros(count, dtype=torch.float64)
    if t is not None and t.value is not None:
        found = torch.as_tensor(t.value, dtype=torch.float64).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
    value = 1.0 if rho.value is None else float(rho.value)
    return (value if math.isfinite(value) else 1.0), found


def _proved(form: _Form, guess: tuple[float, Tensor], n: int) -> float:
    """A rho that is proved: z G z >= -e |z|^2 >= -e gain^2 |x|^2 where -e is the least eigenvalue of G."""
    rho, t = max(guess[0], 0.0), guess[1]
    half = form.above.T @ (t[:, None] * form.below)
    matrix = rho * _inputs(form.outputs.shape[1], n) - form.outputs.T @ form.outputs - half - half.T
    least = float(torch.linalg.eigvalsh(matrix)[0])
    scale = float((form.above.T.abs() @ (t[:, None] * form.below.abs())).sum(1).max()) if len(t) else 0.0
    scale = 2 * scale + rho + float(form.outputs.square().sum())
    lacks = max(0.0, -least) + _ROUNDING * len(matrix) * torch.finfo(matrix.dtype).eps * scale
    found = rho + lacks * form.gain**2
    return found if math.isfinite(found) else math.inf


def _inputs(size: int, n: int) -> Tensor:
    """The form |x|^2 of the coordinates."""
    return torch.diag((torch.arange(size) < n).double())
