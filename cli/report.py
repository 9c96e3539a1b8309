"""Results as text for people, as JSON, and in the words of the competition and of VNN-LIB 2.0."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cli import files
from cli.options import Options
from verif import __version__
from verif.verdict import Verdict

if TYPE_CHECKING:
    from cli.decide import Asked
    from verif.query import Query
    from verif.verify import Counterexample, Result

Arrays = Mapping[str, NDArray[Any]]
SCHEMA = 1
_SHOWN = 6


def verdict_line(result: Result, title: str) -> str:
    """One line: the verdict, what it is about, and the figures."""
    parts = [f"{result.verdict.name:<8}  {title}"]
    if result.verdict is Verdict.VIOLATED:
        parts.append("counterexample replayed")
    elif result.lower_bound and math.isfinite(result.lower_bound):  # 0 says nothing (see Result)
        parts.append(f"lower bound {result.lower_bound:+.4g}")
    parts += [f"{result.domains:,}".replace(",", " ") + (" domain" if result.domains == 1 else " domains")]
    return "   ".join([*parts, f"{result.seconds:.2f} s"])


def text(result: Result, title: str, replay: str = "", *, explain: bool = False) -> str:
    """The verdict line and below it what a person needs to believe it or to go on."""
    lines = [verdict_line(result, title)]
    if explain:
        lines.append(f"  strategy {result.strategy}")
        if result.rounding:
            what = "" if result.arithmetic == "real" else f", for programs in {result.arithmetic}"
            lines.append(f"  rounding {result.rounding}{what}")
    if result.reason and result.verdict in (Verdict.UNKNOWN, Verdict.TIMEOUT, Verdict.ERROR):
        lines.append(f"  because  {result.reason}")
    if result.counterexample is not None:
        lines += arrays(result.counterexample.inputs, result.counterexample.outputs)
        lines += [f"  replay   {replay}"] if replay else []
    return "\n".join([*lines, *(f"  warning  {warning}" for warning in result.warnings)])


def arrays(inputs: Arrays, outputs: Arrays) -> list[str]:
    """The first numbers of each array, a line for each."""
    sides = (("input ", inputs), ("output", outputs))
    return [f"  {side}   {name} = {_short(array)}" for side, named in sides for name, array in named.items()]


def as_json(result: Result, facts: Mapping[str, Any]) -> str:
    """The whole result as one JSON object on one line; `facts` says what was asked (files, flags)."""
    cex = result.counterexample
    record = {
        "schema": SCHEMA,
        "verif": __version__,
        **facts,
        "verdict": result.verdict.label,
        "lower_bound": _finite(result.lower_bound),
        "domains": result.domains,
        "seconds": round(result.seconds, 6),
        "reason": result.reason,
        "strategy": result.strategy,
        "rounding": result.rounding or None,
        "arithmetic": result.arithmetic,
        "warnings": list(result.warnings),
        "counterexample": None if cex is None else {"inputs": _plain(cex.inputs), "outputs": _plain(cex.outputs)},
    }
    return json.dumps(record, allow_nan=False)


def write_tensors(cex: Counterexample, folder: Path) -> None:
    """A counterexample as VNN-LIB 2.0 serialises it: one ONNX tensor (NAME.pb) for each variable."""
    from onnx import numpy_helper

    folder.mkdir(exist_ok=True)
    for name, array in {**cex.inputs, **cex.outputs}.items():
        files.write(
            folder / f"{name}.pb", numpy_helper.from_array(np.ascontiguousarray(array), name).SerializeToString()
        )


def render(query: Query, result: Result, asked: Asked, options: Options) -> str:
    """What stdout gets in the format asked for."""
    from verif.counterexample import assignments_text, competition_text

    cex = result.counterexample
    match options.format:
        case "json":
            return as_json(result, asked.facts)
        case "vnncomp":
            return result.verdict.vnncomp + (f"\n{competition_text(cex.inputs, cex.outputs).rstrip()}" if cex else "")
        case "vnnlib":
            return result.verdict.vnnlib + (
                f"\n{assignments_text(cex.inputs, cex.outputs, order(query)).rstrip()}" if cex else ""
            )
        case _ if options.quiet:
            return verdict_line(result, asked.title)
        case _:
            return text(result, asked.title, asked.replay_line(options.counterexample), explain=options.explain)


def order(query: Query) -> list[str]:
    """The property's names in the order of their declaration: network by network."""
    networks = [network.name for network in query.networks]
    return [v.name for v in sorted(query.property.variables, key=lambda v: networks.index(v.network))]


def _short(array: NDArray[Any]) -> str:
    values = array.reshape(-1)
    shown = ", ".join(f"{value:.6g}" for value in values[:_SHOWN])
    return f"[{shown}{', ...' if values.size > _SHOWN else ''}]" + (f" {list(array.shape)}" if values.size > 1 else "")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plain(arrays: Arrays) -> dict[str, Any]:
    return {
        name: {"type": array.dtype.name, "shape": list(array.shape), "data": array.reshape(-1).tolist()}
        for name, array in arrays.items()
    }
