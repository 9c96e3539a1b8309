"""One query from files to a verdict on stdout."""

from __future__ import annotations

import gc
import math
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import files
from cli.errors import UsageError
from cli.options import Options, memory_bytes, parse_networks

if TYPE_CHECKING:
    from verif.query import Network, Property, Query
    from verif.verify import Result

INTERRUPTED = 130


@dataclass(frozen=True)
class Asked:
    """What was asked: its title, the facts for JSON, and the words of the replay command up to the counterexample."""

    title: str
    facts: Mapping[str, Any]
    replay: tuple[str, ...] = ()

    def replay_line(self, saved: Path | None) -> str:
        """The command to paste; "" where there is none."""
        if not self.replay:
            return ""
        return shlex.join([*self.replay, str(saved or "cex.txt")]) + (
            "" if saved else "   (with --counterexample cex.txt)"
        )


@contextmanager
def importing() -> Iterator[None]:
    """Import without the garbage collector: torch makes millions of objects that stay, and collecting costs 0.2 s."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if running:
            gc.enable()


def decide_property(model: Path, property: Path, options: Options) -> int:
    """`verify MODEL.onnx PROPERTY.vnnlib`."""
    refuse(options, "network", "with one model, leave --network away; with several, give the query first")
    check_outputs(options, model, property)
    query, result = solve(property, model, options, options.timeout)
    if options.proof:
        prove(model, property, result, options)
    asked = Asked(
        f"{stem(model)} x {stem(property)}",
        {"model": str(model), "property": str(property)},
        ("verify", "replay", str(model), str(property)),
    )
    return finish(query, result, asked, options)


def decide_query(query: Path, extra: Path | None, options: Options) -> int:
    """`verify QUERY.vnnlib --network f=a.onnx --network g=b.onnx`."""
    if extra is not None:
        raise UsageError("C104", "the model comes first, then the property", help=f"verify {extra} {query}")
    refuse(options, "proof", "proofs are written for one model and a property of VNN-LIB 1.0")
    networks = parse_networks(options.network)
    check_outputs(options, query, *networks.values())
    if not networks:
        raise UsageError(
            "C104", "a query needs its networks", where=str(query), help=f"verify {query} --network NAME=MODEL.onnx"
        )
    compiled, result = solve(query, networks, options, options.timeout)
    flags = tuple(word for name, path in networks.items() for word in ("--network", f"{name}={path}"))
    asked = Asked(
        f"{', '.join(dict.fromkeys(stem(path) for path in networks.values()))} x {stem(query)}",
        {"networks": {name: str(path) for name, path in networks.items()}, "property": str(query)},
        ("verify", "replay", *flags, str(query)),
    )
    return finish(compiled, result, asked, options)


def solve(
    property: Path | Property,
    networks: Path | Network | Mapping[str, Path],
    options: Options,
    timeout: float | None = None,
) -> tuple[Query, Result]:
    """Compile and decide a query under a progress line; `timeout` counts from now."""
    started = time.monotonic()
    with importing():
        from verif.query import compile_query
        from verif.strategy import Strategy
        from verif.verify import verify
    from cli.progress import watching

    _require_device(options.device)
    query = compile_query(property, networks, arithmetic=options.arithmetic)
    if isinstance(networks, Mapping):
        _require_declared(networks, query)
    left = None if timeout is None else max(0.0, timeout - (time.monotonic() - started))
    title = stem(property) if isinstance(property, Path) else "local robustness"
    with watching(options, title) as watch:
        result = verify(
            None,
            query,
            timeout=left,
            strategy=Strategy(options.strategy, options.seed, options.tactic),
            device=options.device,
            memory=memory_bytes(options.memory),
            on_event=watch,
        )
    return query, result


def prove(model: Path, property: Path, result: Result, options: Options) -> None:
    """Write the proof of a verdict, or of a share of it; say on stderr what there is, or why there is none."""
    from verif import evidence
    from verif.checker import Refused

    if options.proof is None:
        return
    options.proof.unlink(missing_ok=True)
    left = math.inf if options.timeout is None else max(0.0, options.timeout - result.seconds)
    found = result.counterexample
    try:
        if result.verdict.exit_code not in (0, 1):
            raise Refused(f"the verdict is {result.verdict.name}")
        point = None if found is None else found.point.double().cpu().numpy()
        written = evidence.write(options.proof, evidence.Claim(model, property), point, time.monotonic() + left)
    except Refused as refused:
        print(f"no proof was written, the verdict is not confirmed in real arithmetic: {refused}", file=sys.stderr)
        return
    except KeyboardInterrupt:
        print(f"interrupted: {options.proof} proves a share of the verdict; verify check says which", file=sys.stderr)
        return
    what = f"{written.leaves} leaves, " if found is None else ""
    print(f"proof: {options.proof} ({what}{written.bytes} bytes)", file=sys.stderr)
    if written.why:
        print(f"it proves {written.share:.1%} of the input set: {written.why}", file=sys.stderr)


def finish(query: Query, result: Result, asked: Asked, options: Options) -> int:
    """Write the files asked for, print the result, and give the exit code."""
    from cli import report
    from verif import counterexample

    if options.json:
        files.write(options.json, report.as_json(result, asked.facts) + "\n")
    if options.counterexample and result.counterexample is not None:
        counterexample.write(options.counterexample, result.counterexample.inputs, result.counterexample.outputs)
    print(report.render(query, result, asked, options), flush=True)
    return INTERRUPTED if result.reason == "interrupted" else result.verdict.exit_code


def interrupted(known: str) -> int:
    """Say on stderr what an interrupted command leaves, and give its exit code."""
    print(f"interrupted: {known}", file=sys.stderr)
    return INTERRUPTED


def worst(codes: Sequence[int]) -> int:
    """One exit code for several verdicts: an error, then violated, timeout, unknown, holds."""
    return min(codes, key=(2, 1, 4, 3, 0).index, default=0)


def stem(path: Path) -> str:
    """How titles name a file: without folders and suffixes; digits/model.onnx goes by the name of its folder."""
    name = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    return path.parent.name if name == "model" and path.parent.name else name


def check_outputs(options: Options, *inputs: Path) -> None:
    """Inputs are there, outputs can be written, and no flag of another command is given: before torch is imported."""
    for path in inputs:
        files.require(path)
    refuse(options, "results", "it belongs to a batch: verify batch instances.csv --results results.db")
    refuse(options, "graph", "it belongs to a model alone: verify model.onnx --graph model.svg")
    files.require_writable(options.json, options.counterexample, options.proof)


def refuse(options: Options, flag: str, why: str) -> None:
    """UsageError where a flag is given that means nothing here."""
    if getattr(options, flag):
        raise UsageError("C104", f"--{flag} has no meaning here", help=why)


def _require_device(name: str) -> None:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).split("\n")[0]
        raise UsageError("C112", f"torch cannot use the device '{name}'", notes=[cause], help="--device cpu") from None


def _require_declared(given: Mapping[str, Path], query: Query) -> None:
    """A network given by name must be one that the query declares; VNN-LIB 1.0 declares none, then any name will do."""
    declared = [network.name for network in query.networks]
    for name in given:
        if "" not in declared and name not in declared:
            note = f"declared: {', '.join(declared)}"
            raise UsageError(
                "C113", f"the query declares no network '{name}'", notes=[note], help="--network NAME=FILE"
            )
