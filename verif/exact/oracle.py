"""The exact minimum of a small network over a box, by mixed-integer programming: what tests compare bounds with.

Shape letters: n inputs, M outputs.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from graphs import Graph
from relaxations.sets import Box
from verif.bounds import Engine
from verif.exact.duals import Node, Objective
from verif.exact.forms import Forms
from verif.exact.kinks import program


def minimum(graph: Graph, box: Box, row: Tensor, seconds: float = math.inf) -> tuple[float, Tensor] | None:
    """Minimum of row (M,) . output over one box (1, n), up to the solver's tolerance, and where it lies, (n,).

    The value is the network's own at that point. None where an op is not piecewise linear, or the time is too short.
    """
    found = Engine(graph.to(torch.float64)).bound(Box(box.lower.double(), box.upper.double()))
    made = program(graph.to(torch.float64), found.intervals)
    if made is None:
        return None
    weight = row.double().numpy()[None]
    outputs = made.outputs
    objective = Objective(_sparse(weight) @ outputs.rows, weight @ outputs.offset, np.abs(weight) @ outputs.size)
    forms, deadline = Forms(made, made.triangles(), objective), time.monotonic() + seconds
    best = forms.mixed(deadline)
    if best is None:
        return None
    v = made.values(best.point[: made.inputs])
    signs = np.where(v[made.before] > 0, 1, -1)  # the solver's point may miss the signs that it chose by its tolerance
    exact = forms.hard(Node.root(made, forms.triangles).with_signs(made, signs), deadline)
    inputs = [v[: made.inputs]] if exact is None else [v[: made.inputs], exact.point[: made.inputs]]
    points = [np.clip(x, made.lower[: made.inputs], made.upper[: made.inputs]) for x in inputs]
    values = [float((objective.rows @ made.values(x) + objective.offset)[0]) for x in points]
    return min(values), torch.from_numpy(points[int(np.argmin(values))])


def _sparse(weight: object) -> object:
    import scipy.sparse as sparse

    return sparse.csr_array(weight)
