"""Replaying a point: the networks run in onnxruntime or torch, the property is evaluated on what they really return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verif.floats import element
from verif.query import Property, Query, key

Array = NDArray[Any]


@dataclass(frozen=True)
class Replay:
    """What happened at a point. `point` (n,) float64 holds the numbers that the models really got.

    `inputs` and `outputs` are by the property's variable names (the user's own names of values where a property is
    not from a VNN-LIB 2.0 file), in order of declaration, in the models' own types; `reason` says why the point is
    not a counterexample ("" if it is one).
    """

    violated: bool
    point: Tensor
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    reason: str = ""


def replay(query: Query, point: Tensor) -> Replay:
    """Run every network at z = `point` (n,) in its own element type, and evaluate the property in float64.

    The point is rounded to the models' types; if that alone takes it out of a region, it goes to the region's nearest
    number of the type instead. The box is checked exactly, as a closed box of decimals, widened only
    where it holds no number of the type (see `Query.outer`). A value that is NaN or infinite satisfies no atom.
    """
    point = _settle(query, point.detach().double().reshape(-1).cpu())
    inputs = _inputs(query, point)
    values = _run(query, inputs)
    reason = _reason(query, point, {**inputs, **values})
    seen, given = (dict(_named(query.property, *item) for item in side.items()) for side in (values, inputs))
    return Replay(not reason, point, given, seen, reason)


def evaluated(query: Query, point: Tensor) -> tuple[Tensor, Tensor, float] | None:
    """The point (n,) as the models got it, the atoms (M,) of what they returned, and the largest value among that; None
    where a value is NaN or infinite.
    """
    point = _settle(query, point.detach().double().reshape(-1).cpu())
    inputs = _inputs(query, point)
    values = {**inputs, **_run(query, inputs)}
    atoms = _atoms(query.property, values)
    if atoms is None:
        return None
    return point, atoms, max(float(np.abs(values[name]).max()) for name in query.property.atoms.inputs)


def _atoms(property: Property, values: Mapping[str, Array]) -> Tensor | None:
    """The atoms (M,) of values; None where one that they read is NaN or infinite."""
    read = {name: torch.from_numpy(np.asarray(values[name], np.float64))[None] for name in property.atoms.inputs}
    if not all(bool(value.isfinite().all()) for value in read.values()):
        return None
    (atoms,) = property.atoms.to(torch.float64).evaluate(read).values()
    return atoms[0]


def _settle(query: Query, point: Tensor) -> Tensor:
    """The point rounded to the models' types, inside a region if one is next to it."""
    rounded = point.clone()
    for name, positions in query.dtypes().items():
        if name != "float64":
            rounded[positions] = torch.from_numpy(_cast(point[positions], name).astype(np.float64))
    lower, upper = query.outer()
    if not len(lower) or _within(rounded, lower, upper).any():
        return rounded
    around = torch.nonzero(_within(point, lower, upper))
    if not len(around):
        return rounded
    low, high = (bound[around[0, 0]] for bound in query.inner())
    return rounded.maximum(low).minimum(high)


def _cast(values: Tensor, dtype: str) -> Array:
    kind = element(dtype)
    array = values.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.round(array) if kind.kind in "iub" else array).astype(kind)


def _within(point: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return ((point >= lower) & (point <= upper)).all(-1)


def _inputs(query: Query, point: Tensor) -> dict[str, Array]:
    """Every network input by its key, in the model's element type."""
    found = {}
    for network in query.networks:
        for name in network.graph.inputs:
            positions = query.property.gather[key(network.name, name)]
            dtype = str(network.graph[name].attrs.get("dtype", "float32"))
            found[key(network.name, name)] = _cast(point[positions], dtype)
    return found


def _run(query: Query, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every network's outputs, and the hidden values that the property names, by key."""
    values = {}
    for network, run in zip(query.networks, query.runners, strict=True):
        results = run([inputs[key(network.name, name)] for name in network.graph.inputs])
        for name, result in zip(network.graph.outputs, results, strict=True):
            values[key(network.name, name)] = result.reshape(network.graph[name].shape)
    return values


def _named(property: Property, name: str, array: Array) -> tuple[str, Array]:
    """A value under its variable's name and in the shape that the property gives it."""
    variable = next((v for v in property.variables if v.key == name), None)
    if variable is None:
        return name, array
    unique = sum(v.name == variable.name for v in property.variables) == 1
    return variable.name if unique else variable.origin or variable.value, array.reshape(variable.indices)


def _reason(query: Query, point: Tensor, values: Mapping[str, Array]) -> str:
    """Why the point is no counterexample; "" if it is one."""
    property = query.property
    inside = _regions(query, point)
    if not len(inside):
        return "the point is in no region of the property's inputs"
    atoms = _atoms(property, values)
    if atoms is None:
        return "a value is NaN or infinite"
    if any(_unsafe(property, atoms, int(region)) for region in inside):
        return ""
    return "the outputs do not satisfy the property's unsafe condition"


def _regions(query: Query, point: Tensor) -> Tensor:
    """Numbers of the regions that contain the point."""
    property = query.property
    lower, upper = query.outer()
    inside = _within(point, lower, upper)
    if property.open_lower is not None:
        inside &= ~(property.open_lower & (point <= property.lower)).any(-1)
    if property.open_upper is not None:
        inside &= ~(property.open_upper & (point >= property.upper)).any(-1)
    if property.center is not None and property.radius is not None:
        distance = torch.linalg.vector_norm(point - property.center, ord=property.norm, dim=-1)
        inside &= distance <= property.radius
    return torch.nonzero(inside)[:, 0]


def _unsafe(property: Property, atoms: Tensor, region: int) -> bool:
    """Whether in every factor of the region some clause is satisfied by the atoms (M,)."""
    table = property.clauses
    for start, stop in property.spans[region].tolist():
        index, threshold = table.atoms[start:stop], table.thresholds[start:stop]
        value = atoms[index.clamp(min=0)]
        satisfied = torch.where(table.strict[start:stop], value < threshold, value <= threshold)
        if not bool((satisfied | (index < 0)).all(-1).any()):
            return False
    return True
