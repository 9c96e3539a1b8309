"""Properties without a file: local robustness, output ranges, linear conditions on outputs.

Each states the *unsafe* set, like a property file. Shape letters: D samples or boxes, n input numbers (all inputs of
the network, flat, in order), m output numbers, M rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from verif.errors import PropertyError
from verif.networks import Networks
from verif.query import Clauses, Network, Property
from verif.runners import runner
from verif.vnnlib.read import variables_of

Model = str | Path | Graph | Network
Array = Any  # anything that torch.as_tensor takes


def robustness(
    model: Model,
    x: Array,
    eps: float | Array,
    *,
    norm: float = math.inf,
    label: int | Sequence[int] | None = None,
    clip: tuple[float, float] | None = None,
) -> Property:
    """Unsafe: some y_j >= y_label, j != label, within distance `eps` of `x`; several samples are several regions.

    `x` is one sample (any shape of n numbers) or D of them, (D, ...); `eps` a number or one per sample; `norm` inf, 2
    or 1; `label` defaults to the model's own prediction; `clip` also bounds every input, e.g. (0, 1) for pixels.
    Raises PropertyError where the sizes do not fit the network.
    """
    network = _network(model)
    n, m = _sizes(network.graph)
    centers = _samples(x, n)
    radius = torch.as_tensor(eps, dtype=torch.float64).expand(len(centers)).clone()
    if not bool((radius.isfinite() & (radius >= 0)).all()):
        raise PropertyError("P112", f"eps must be a finite number that is not negative, it is {eps}")
    if norm not in (1, 2, math.inf):
        raise PropertyError("P112", f"norm must be 1, 2 or inf, it is {norm}")
    labels = _labels(network, centers, m) if label is None else torch.as_tensor(label).expand(len(centers)).tolist()
    if not all(0 <= k < m for k in labels):
        raise PropertyError("P112", f"label {label} is not one of the network's {m} outputs")
    lower, upper = centers - radius[:, None], centers + radius[:, None]
    if clip is not None:
        lower, upper = lower.clamp(min=clip[0]), upper.clamp(max=clip[1])
        empty = (lower > upper).any(1).nonzero().flatten().tolist()
        if empty:
            message = f"sample {empty[0]} is farther than eps from the range {list(clip)}: no input is left"
            raise PropertyError("P112", message, help="give samples and range in the same units, such as 0 to 1")
    pairs = [(k, j) for k in dict.fromkeys(labels) for j in range(m) if j != k]
    rows = torch.zeros(max(len(pairs), 1), m, dtype=torch.float64)
    for row, (own, other) in zip(rows, pairs, strict=False):
        row[own], row[other] = 1.0, -1.0
    starts = [list(dict.fromkeys(labels)).index(k) * (m - 1) for k in labels]
    spans = torch.tensor([[[start, start + m - 1]] for start in starts]).reshape(-1, 1, 2)
    each = torch.arange(len(rows))[:, None]
    clauses = Clauses(each, torch.zeros(each.shape, dtype=torch.float64), torch.zeros(each.shape, dtype=torch.bool))
    ball = {} if norm == math.inf else {"center": centers, "radius": radius, "norm": float(norm)}
    return over_boxes(network, (lower, upper), rows, clauses, spans=spans, **ball)


def samples(model: Model, x: Array) -> Tensor:
    """One sample or several as (D, n) float64. Raises PropertyError where the sizes do not fit the network."""
    return _samples(x, _sizes(_network(model).graph)[0])


def predictions(model: Model, x: Array) -> list[int]:
    """The model's own label (the first largest output) at one sample or at D of them, in its own element type."""
    network = _network(model)
    n, m = _sizes(network.graph)
    return _labels(network, _samples(x, n), m)


def output_range(
    model: Model, lower: Array, upper: Array, *, low: float | Array = -math.inf, high: float | Array = math.inf
) -> Property:
    """Unsafe: some output leaves its range, y_i < low_i or y_i > high_i, for an input in the box.

    `lower` and `upper`: n numbers, or (D, n) for D boxes; `low` and `high`: a number or m of them, inf for no bound.
    """
    network = _network(model)
    m = _sizes(network.graph)[1]
    ends = [torch.as_tensor(end, dtype=torch.float64).expand(m) for end in (low, high)]
    rows = torch.cat([torch.eye(m, dtype=torch.float64), -torch.eye(m, dtype=torch.float64)])
    thresholds = torch.cat([ends[0], -ends[1]])
    if bool(thresholds.isnan().any()) or not bool(thresholds.isfinite().any()):
        raise PropertyError("P112", "an output range needs at least one finite end, and no NaN")
    kept = thresholds.isfinite()
    return linear(network, lower, upper, rows[kept], thresholds[kept], strict=True)


def linear(
    model: Model,
    lower: Array,
    upper: Array,
    rows: Array,
    thresholds: Array,
    *,
    together: bool = False,
    strict: bool = False,
) -> Property:
    """Unsafe: some row . y <= threshold (`strict`: <) for an input in the box; with `together`, all of them at once.

    `lower` and `upper`: n numbers, or (D, n) for D boxes; `rows` (M, m); `thresholds` (M,) or a number.
    """
    network = _network(model)
    n, m = _sizes(network.graph)
    weight = torch.as_tensor(rows, dtype=torch.float64).reshape(-1, m)
    values = torch.as_tensor(thresholds, dtype=torch.float64).expand(len(weight)).clone()
    if not len(weight) or not bool(weight.isfinite().all() and values.isfinite().all()):
        raise PropertyError("P112", "rows and thresholds must be finite numbers, and at least one row")
    shape = (1, len(weight)) if together else (len(weight), 1)
    clauses = Clauses(
        torch.arange(len(weight)).reshape(shape), values.reshape(shape), torch.full(shape, strict, dtype=torch.bool)
    )
    return over_boxes(network, (_samples(lower, n), _samples(upper, n)), weight, clauses)


def over_boxes(network: Network, box: tuple[Tensor, Tensor], rows: Tensor, clauses: Clauses, **more: Any) -> Property:
    """Boxes (D, n) with clauses over rows (M, m) of a network's one output; `more` are further fields of `Property`."""
    graph = network.graph
    (output,) = graph.outputs
    variables = variables_of(graph)
    builder = GraphBuilder()
    flat = builder.input(output, graph[output].shape)
    if len(graph[output].shape) != 1:
        flat = builder.add("reshape", [flat], attrs={"shape": (graph[output].size,)})
    atoms = builder.build([builder.add("linear", [flat], {"weight": rows})])
    sizes = [graph[name].size for name in graph.inputs]
    parts = torch.split(torch.arange(sum(sizes)), sizes)
    gather = {name: part.reshape(graph[name].shape) for name, part in zip(graph.inputs, parts, strict=True)}
    lower, upper = box
    if lower.shape != upper.shape or bool((lower.isinf() | upper.isinf()).any()):
        raise PropertyError("P112", "lower and upper must be finite and of one shape")
    whole = torch.tensor([[[0, len(clauses.atoms)]]]).expand(len(lower), 1, 2).clone()
    more = {"spans": whole, **more}
    kept = (lower <= upper).all(1)
    if not bool(kept.all()):
        more["warnings"] = (f"{int((~kept).sum())} of {len(kept)} input boxes are empty",)
        more |= {name: more[name][kept] for name in ("spans", "center", "radius") if name in more}
    return Property(gather, atoms, lower[kept], upper[kept], clauses, variables=variables, **more)


def _network(model: Model) -> Network:
    if isinstance(model, Network):
        return Network("", model.graph, model.source)
    return Networks.of(model).load("")


def _sizes(graph: Graph) -> tuple[int, int]:
    """Numbers of inputs and outputs; the network must have one output value."""
    if len(graph.outputs) != 1:
        raise PropertyError("P112", f"the network has {len(graph.outputs)} outputs, these properties take one")
    return sum(graph[name].size for name in graph.inputs), graph[graph.outputs[0]].size


def _samples(x: Array, n: int) -> Tensor:
    """(D, n) float64 from one sample or several."""
    values = torch.as_tensor(np.asarray(x) if not isinstance(x, Tensor) else x).detach().double().cpu()
    if not bool(values.isfinite().all()):
        raise PropertyError("P112", "the input holds NaN or infinite numbers")
    if values.numel() == n:
        return values.reshape(1, n)
    if values.ndim and len(values) and values.numel() == len(values) * n:
        return values.reshape(len(values), n)
    raise PropertyError("P104", f"the input has the shape {list(values.shape)}, the network takes {n} numbers")


def _labels(network: Network, centers: Tensor, m: int) -> list[int]:
    """The network's own predictions, in its own element type."""
    run, graph = runner(network), network.graph
    sizes = [graph[name].size for name in graph.inputs]
    labels = []
    for center in centers:
        parts = zip(graph.inputs, center.split(sizes), strict=True)
        arrays = [
            part.numpy().astype(str(graph[name].attrs.get("dtype", "float32"))).reshape(graph[name].shape)
            for name, part in parts
        ]
        output = run(arrays)[0].reshape(-1)[:m]
        if not np.isfinite(output).all():
            raise PropertyError("P112", "the network's output at the input is NaN or infinite: it predicts no label")
        labels.append(int(output.argmax()))
    return labels
