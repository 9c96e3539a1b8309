"""Assertions about networks, for tests: they pass where a property was proved, and otherwise say what was found.

The plugin for pytest (`pytest_verif.py`) offers them as fixtures too. Nothing here imports torch before it is called.
Shape letters: D samples, n input numbers, m outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.errors import VerifError
from verif.verdict import Verdict

if TYPE_CHECKING:
    from relaxations.sets import Box
    from verif.monotone import Monotone
    from verif.properties import Array, Model
    from verif.query import Network, Property
    from verif.verify import Counterexample, Result

TIMEOUT = 60.0
_SHOWN = 5


class NotProved(AssertionError):
    """An assertion failed; `results` are those of all its questions, in order."""

    def __init__(self, message: str, results: Sequence[Result | Monotone]) -> None:
        super().__init__(message)
        self.results = tuple(results)


class Violated(NotProved):
    """A counterexample was found and replayed."""


class Undecided(NotProved):
    """Neither a proof nor a counterexample was found: more time may help. `pytest.mark.xfail(raises=Undecided)`."""


def assert_holds(
    model: Model | Mapping[str, Model], property: str | Path | Property, *, timeout: float | None = TIMEOUT
) -> Result:
    """A property (a VNN-LIB file, or one of `verif.properties`) holds; `timeout` in seconds.

    Raises Violated or Undecided, and VerifError where the model or the property cannot be read.
    """
    __tracebackhide__ = True
    from verif.verify import verify

    result = verify(model, property, timeout=timeout)
    about = f"of {_name(model)}" if not isinstance(property, str | Path) else f"{property} of {_name(model)}"
    _require([result], [], f"the property {about}", timeout)
    return result


def assert_robust(
    model: Any,
    x: Array,
    eps: float,
    *,
    label: int | Sequence[int] | None = None,
    norm: float = math.inf,
    clip: tuple[float, float] | None = None,
    timeout: float | None = TIMEOUT,
) -> list[Result]:
    """The label stays the same within distance `eps` of every sample, one result each.

    `model` is what `verif.verify` takes, or a torch module in evaluation mode (then x is a batch, as the module takes
    it); x, eps, label, norm and clip as in `verif.robustness`; `timeout` in seconds for each sample. Raises Violated,
    Undecided, VerifError.
    """
    __tracebackhide__ = True
    from verif.properties import predictions, robustness, samples
    from verif.verify import verify

    network = _network(model, x)
    points = samples(network, x)
    own = predictions(network, x)
    labels = own if label is None else [label] * len(own) if isinstance(label, int) else list(label)
    if len(labels) != len(own):
        raise VerifError("P112", f"{len(labels)} labels are given for {len(own)} samples")
    results, stories = [], []
    for number, (point, wanted) in enumerate(zip(points, labels, strict=True)):
        unsafe = robustness(network, point, eps, norm=norm, label=wanted, clip=clip)
        results.append(verify(network, unsafe, timeout=timeout))
        sample = f"sample {number}, label {wanted}"
        if wanted != own[number]:
            stories.append(f"{sample}: the model's own answer at the sample is {own[number]}")
        else:
            stories.append(f"{sample}: {_robust(results[-1], point.numpy(), wanted)}")
    _require(results, stories, f"the label of {_name(model)} within {eps:g} ({_NORMS.get(norm, norm)} norm)", timeout)
    return results


def assert_monotone(
    model: Any,
    box: Box | Mapping[str, tuple[float, float]] | tuple[Array, Array],
    *,
    increasing: Sequence[int | str] = (),
    decreasing: Sequence[int | str] = (),
    output: int = 0,
    timeout: float | None = TIMEOUT,
) -> list[Monotone]:
    """An output never falls in some features, and never rises in others, anywhere in a box; one result for each.

    `box` is {name: (lower, upper)} for every input number in order, a `verif.Box`, or its two ends of n numbers;
    features are numbers, or names where the box has them; `timeout` in seconds for each. Raises Violated, Undecided,
    VerifError.
    """
    __tracebackhide__ = True
    import torch

    from relaxations.sets import Box
    from verif.monotone import Budget, monotone

    named = list(box) if isinstance(box, Mapping) else []
    ends = tuple(zip(*box.values(), strict=True)) if isinstance(box, Mapping) else box
    if not isinstance(ends, Box):
        ends = Box(*(torch.as_tensor(end, dtype=torch.float64).reshape(1, -1) for end in ends))
    names = named or [f"x[{k}]" for k in range(ends.lower.shape[1])]
    if not (increasing or decreasing):
        raise VerifError("P112", "name at least one feature", help="increasing=[0], decreasing=['income']")
    ways = [[_position(feature, names) for feature in way] for way in (increasing, decreasing)]
    network = _network(model, ends.lower)
    budget = Budget(timeout)
    results = monotone(network, ends, increasing=ways[0], decreasing=ways[1], output=output, budget=budget)
    _require(results, [_slope(result, names) for result in results], f"monotonicity of {_name(model)}", timeout)
    return results


_NORMS = {math.inf: "maximum", 2: "Euclidean", 1: "sum"}


def _require(results: Sequence[Result | Monotone], stories: Sequence[str], what: str, timeout: float | None) -> None:
    """Raise where not everything was proved: first what is violated, then what is open."""
    __tracebackhide__ = True
    violated = [k for k, result in enumerate(results) if result.verdict is Verdict.VIOLATED]
    undecided = [k for k, result in enumerate(results) if result.verdict not in (Verdict.VIOLATED, Verdict.HOLDS)]
    if any(getattr(result, "reason", "") == "interrupted" for result in results):
        raise KeyboardInterrupt
    if not violated and not undecided:
        return
    kind, bad = (Violated, violated) if violated else (Undecided, undecided)
    of = f" in {len(bad)} of {len(results)} cases" if len(results) > 1 else ""
    lines = [f"{what} is violated{of}" if violated else f"{what} was not proved{of}"]
    lines += [f"  {stories[k] if stories else _story(results[k])}" for k in bad[:_SHOWN]]
    lines += [f"  and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    if undecided and not violated:
        spent = "without a limit" if timeout is None else f"within {timeout:g} s each"
        lines.append(f"  tried {spent}; more time may decide it: timeout=..., or pytest --verif-timeout SECONDS")
    raise kind("\n".join(lines), results)


def _robust(result: Result, x: Any, label: int) -> str:
    """What happened around one sample."""
    import numpy as np

    found = result.counterexample
    if found is None:
        return _story(result)
    outputs = np.concatenate([np.ravel(array) for array in found.outputs.values()])
    rivals = np.where(np.arange(len(outputs)) == label, -np.inf, outputs)
    other, moved = int(rivals.argmax()), found.point.numpy() - x
    most = int(np.abs(moved).argmax())
    return (
        f"output {other} is {outputs[other]:.6g}, output {label} is {outputs[label]:.6g} at a replayed point\n"
        f"    that differs in {np.count_nonzero(moved)} of {len(moved)} numbers, by {abs(moved[most]):.4g} at most "
        f"(number {most}: {x[most]:.6g} becomes {x[most] + moved[most]:.6g})\n"
        f"    x = {_short(found.point)}"
    )


def _story(result: Any) -> str:
    """What happened where nothing is known of the question's form."""
    found: Counterexample | None = getattr(result, "counterexample", None)
    if found is None:
        bound = getattr(result, "lower_bound", None)
        gap = f"; the worst bound is {bound:+.4g}" if bound and math.isfinite(bound) else ""
        return f"{result.reason or result.verdict.meaning}{gap}"
    sides = {**found.inputs, **found.outputs}
    return "a replayed point: " + ", ".join(f"{name} = {_short(array)}" for name, array in sides.items())


def _slope(result: Monotone, names: Sequence[str]) -> str:
    way = "increasing" if result.sign > 0 else "decreasing"
    head = f"{way} in {names[result.feature]}: "
    if result.pair is None or result.outputs is None:
        return f"{head}{result.reason or result.verdict.meaning}, proved on {result.share:.1%} of the box"
    (low, high), (first, second) = result.pair[:, result.feature].tolist(), result.outputs
    return (
        f"{head}the output goes from {first:.7g} to {second:.7g} as {names[result.feature]} goes from {low:.6g} to "
        f"{high:.6g}\n    with all others as in x = {_short(result.pair[0])}"
    )


def _short(values: Any) -> str:
    import numpy as np

    flat = np.asarray(values).reshape(-1)
    return f"[{', '.join(f'{value:.6g}' for value in flat[:8])}{', ...' if flat.size > 8 else ''}]"


def _position(feature: int | str, names: Sequence[str]) -> int:
    if isinstance(feature, int):
        return feature
    if feature not in names:
        raise VerifError("P112", f"the box has no feature '{feature}'", notes=[f"it has {', '.join(names)}"])
    return names.index(feature)


def _network(model: Any, x: Any) -> Network:
    """A model as a network; a torch module is traced with x (D, ...) and replayed by itself."""
    import torch

    from verif.networks import Networks
    from verif.query import Network

    if isinstance(model, Network):
        return model
    if not isinstance(model, torch.nn.Module):
        return Networks.of(model).load("")
    if model.training:
        raise VerifError("P112", "the module is in training mode", help="call its eval() first")
    from verif.training import compile as traced

    first = next(model.parameters(), torch.empty(0))
    return traced(model, torch.as_tensor(x).detach().to(first.dtype)).network()


def _name(model: Any) -> str:
    if isinstance(model, str | Path):
        return str(model)
    return "the networks" if isinstance(model, Mapping) else f"the {type(model).__name__}"
