"""One query from files to a verdict on stdout."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import files
from cli.errors import UsageError
from cli.options import Options, parse_networks

if TYPE_CHECKING:
    from verif.verify import Result

INTERRUPTED = 130


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
    _refuse(options, "network", "with one model, leave --network away; with several, give only the query first")
    files.require(model)
    files.require(property)
    _outputs(options)
    replay = ["verify", "replay", str(model), str(property)]
    result = solve(model, property, {}, options)
    return finish(
        result, f"{stem(model)} x {stem(property)}", {"model": str(model), "property": str(property)}, options, replay
    )


def decide_query(query: Path, extra: Path | None, options: Options) -> int:
    """`verify QUERY.vnnlib --network f=a.onnx --network g=b.onnx`."""
    if extra is not None:
        raise UsageError("C104", "the model comes first, then the property", help=f"verify {extra} {query}")
    networks = parse_networks(options.network)
    files.require(query)
    for path in networks.values():
        files.require(path)
    if not networks:
        raise UsageError(
            "C104", "a query needs its networks", where=str(query), help=f"verify {query} --network NAME=MODEL.onnx"
        )
    _outputs(options)
    result = solve(None, query, networks, options)
    named = {name: str(path) for name, path in networks.items()}
    title = f"{', '.join(dict.fromkeys(stem(path) for path in networks.values()))} x {stem(query)}"
    return finish(result, title, {"networks": named, "property": str(query)}, options)


def solve(model: Path | None, property: Any, networks: Mapping[str, Path], options: Options) -> Result:
    """Run the engine under a progress line."""
    with importing():
        from verif.verify import verify
    from cli.progress import watching

    title = stem(property) if isinstance(property, Path) else "local robustness"
    with watching(options, title) as watch:
        return verify(
            model,
            property,
            networks=dict(networks) or None,
            timeout=options.timeout,
            device=options.device,
            seed=options.seed,
            on_event=watch,
        )


def finish(
    result: Result, title: str, facts: Mapping[str, Any], options: Options, replay: list[str] | None = None
) -> int:
    """Write the files asked for, print the result, and give the exit code."""
    from cli import report

    if options.json:
        files.write(options.json, report.as_json(result, facts) + "\n")
    if options.counterexample and result.counterexample is not None:
        report.write_counterexample(result.counterexample, options.counterexample)
    command = ""
    if replay is not None:
        saved = str(options.counterexample) if options.counterexample else "cex.txt"
        command = shlex.join([*replay, saved])
        command += "" if options.counterexample else "   (after --counterexample cex.txt)"
    print(report.render(result, title, facts, options, command), flush=True)
    return INTERRUPTED if result.reason == "interrupted" else result.verdict.exit_code


def stem(path: Path) -> str:
    """A file's name without folders and suffixes: how titles name it."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def _outputs(options: Options) -> None:
    _refuse(options, "results", "it belongs to a batch: verify instances.csv --results results.csv")
    _refuse(options, "graph", "it belongs to a model alone: verify model.onnx --graph model.svg")
    files.require_writable(options.json, options.counterexample)


def _refuse(options: Options, flag: str, why: str) -> None:
    if getattr(options, flag):
        raise UsageError("C104", f"--{flag} has no meaning here", help=why)
