"""What the recipes share: a training loop, claims about a network, and the files of a case."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

Atom = tuple[str, int, int | float]  # (">=", i, j): Y_i >= Y_j; a float on the right is a number
Clause = Sequence[Atom]
Evaluate = Callable[[Tensor], Tensor]  # inputs (B, n) to outputs (B, m)


def train(module: nn.Module, loss: Callable[[int], Tensor], steps: int, rate: float) -> None:
    """Adam with a cosine schedule on `loss(step)`; one thread, so that the same seed gives the same weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimiser = torch.optim.Adam(module.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        optimiser.zero_grad()
        loss(step).backward()
        optimiser.step()
        schedule.step()
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Claim:
    """One property: over a box (float64), no output satisfies all atoms of a clause of `unsafe`.

    `holds` is what we expect, `because` is why.
    """

    file: str
    title: str
    lower: Tensor
    upper: Tensor
    unsafe: Sequence[Clause]
    holds: bool
    because: str

    def margin(self, y: Tensor) -> Tensor:
        """(B,), positive where the outputs y (B, m) are safe, at most 0 where they are unsafe."""
        clauses = [torch.stack([_gap(atom, y) for atom in clause]).amax(0) for clause in self.unsafe]
        return torch.stack(clauses).amin(0)

    def vnnlib(self, outputs: int) -> str:
        """The claim in VNN-LIB 1.0, which states the unsafe set."""
        lines = [f"; {self.title}", ""]
        lines += [f"(declare-const X_{i} Real)" for i in range(self.lower.numel())]
        lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
        for i, (low, high) in enumerate(zip(self.lower.flatten(), self.upper.flatten(), strict=True)):
            lines += [f"(assert (>= X_{i} {decimal(low)}))", f"(assert (<= X_{i} {decimal(high)}))"]
        clauses = ["(and " + " ".join(map(_text, clause)) + ")" for clause in self.unsafe]
        return "\n".join([*lines, "", "(assert (or", *(f"  {clause}" for clause in clauses), "))", ""])

    def worst(self, evaluate: Evaluate, samples: int = 50_000, steps: int = 50) -> tuple[float, list[float]]:
        """The smallest margin seen and where: random points, corners, then a descent from the 100 worst."""
        low, high = inward(self.lower.reshape(1, -1), self.upper.reshape(1, -1))
        torch.manual_seed(0)
        unit = torch.rand(samples, low.shape[1])
        unit[: samples // 10] = unit[: samples // 10].round()
        x = low + unit * (high - low)
        with torch.no_grad():
            x = x[self.margin(evaluate(x)).argsort()[:100]]
        best, where = float("inf"), x[0]
        for step in range(steps):
            x = x.detach().requires_grad_()
            margin = self.margin(evaluate(x))
            if margin.min() < best:
                best, where = margin.min().item(), x[margin.argmin()].detach()
            (gradient,) = torch.autograd.grad(margin.sum(), x)
            x = torch.clamp(x - gradient.sign() * (high - low) * 0.1 * 0.9**step, low, high)
        return best, where.tolist()


def _gap(atom: Atom, y: Tensor) -> Tensor:
    """At most 0 where the atom is true."""
    relation, left, right = atom
    difference = y[:, left] - (y[:, right] if isinstance(right, int) else right)
    return -difference if relation == ">=" else difference


def _text(atom: Atom) -> str:
    relation, left, right = atom
    return f"({relation} Y_{left} {f'Y_{right}' if isinstance(right, int) else decimal(right)})"


def inward(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The largest float32 box inside a float64 box."""
    low, high = lower.float(), upper.float()
    low = torch.where(low.double() < lower, low.nextafter(torch.tensor(torch.inf)), low)
    return low, torch.where(high.double() > upper, high.nextafter(torch.tensor(-torch.inf)), high)


def decimal(value: float | Tensor) -> str:
    """A number as a plain decimal, which every VNN-LIB reader accepts."""
    return np.format_float_positional(round(float(value), 12), trim="0")


def largest(label: int, classes: int) -> Clause:
    """`label` scores at least as much as every other class."""
    return [(">=", label, k) for k in range(classes) if k != label]


def not_largest(label: int, classes: int) -> Sequence[Clause]:
    """Some other class scores at least as much as `label`."""
    return [[(">=", k, label)] for k in range(classes) if k != label]


def outside(index: int, lower: float, upper: float) -> Sequence[Clause]:
    """Output `index` is not strictly inside (lower, upper)."""
    return [[("<=", index, float(lower))], [(">=", index, float(upper))]]


def entry(claim: Claim, evaluate: Evaluate) -> dict[str, Any]:
    """The claim's row of case.toml, after it was tried by sampling: a failed trial is an error."""
    margin, point = claim.worst(evaluate)
    if (margin > 0) != claim.holds:
        raise ValueError(f"{claim.file}: the smallest margin seen is {margin} at {point}")
    row = {"file": claim.file, "expected": "holds" if claim.holds else "violated", "because": claim.because}
    return row | ({"smallest_margin_seen": round(margin, 6)} if claim.holds else {"counterexample": point})


def case_toml(title: str, about: str, networks: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of case.toml: what it is, the networks by name, and for every property the verdict and its reason.

    A row's own `networks` replace those of the case.
    """
    lines = [f"title = {json.dumps(title)}", f"about = {json.dumps(about)}"]
    lines += ["", *_table("networks", networks)] if networks else []
    for row in rows:
        tables = {key: value for key, value in row.items() if isinstance(value, Mapping)}
        plain = {key: value for key, value in row.items() if key not in tables}
        lines += ["", *_table("[property]", plain)]
        lines += [line for key, value in tables.items() for line in _table(f"property.{key}", value)]
    return "\n".join([*lines, ""])


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    return [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]


def check_replay(model: ModelProto, evaluate: Evaluate, lower: Tensor, upper: Tensor, outputs: int) -> None:
    """onnxruntime and torch give the same outputs at random points."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = (lower.reshape(1, -1) + torch.rand(20, lower.numel()) * (upper - lower).reshape(1, -1)).float()
    with torch.no_grad():
        expected = evaluate(x)
    for point, y in zip(x, expected, strict=True):
        (found,) = session.run(None, {"x": point.reshape(shape).numpy()})
        np.testing.assert_allclose(found.reshape(outputs), y.numpy(), rtol=1e-4, atol=1e-4)


def write(folder: Path, files: Mapping[str, str | ModelProto]) -> None:
    """Write the files of a case."""
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content.SerializeToString(deterministic=True)
        (folder / name).write_bytes(data)


def write_case(
    folder: Path, title: str, about: str, model: ModelProto, claims: Sequence[Claim], evaluate: Evaluate
) -> None:
    """Check and write a case of one network."""
    outputs = model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    check_replay(model, evaluate, claims[0].lower, claims[0].upper, outputs)
    toml = case_toml(title, about, {"f": "model.onnx"}, [entry(claim, evaluate) for claim in claims])
    properties = {claim.file: claim.vnnlib(outputs) for claim in claims}
    write(folder, {"model.onnx": model, **properties, "case.toml": toml})
