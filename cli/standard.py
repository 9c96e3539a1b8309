"""The standard interface of VNN-LIB 2.0: `verify verify QUERY ...` and `verify supports CAPABILITY`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cli import files
from cli.decide import INTERRUPTED, importing, solve
from cli.errors import UsageError
from cli.options import Options, parse_networks


def standard(query: Path, options: Options, folder: Path | None, text: Path | None) -> int:
    """Print one of sat, unsat, unknown, timed-out, then the assignment (or write it to `folder` or `text`)."""
    options.check()
    networks = parse_networks(options.network)
    for path in (query, *networks.values()):
        files.require(path)
    files.require_writable(text)
    if folder is not None:
        files.require_writable(folder / "x.pb" if folder.is_dir() else folder)
    compiled, result = solve(query, networks, options, options.timeout)
    print(result.verdict.vnnlib, flush=True)
    cex = result.counterexample
    if cex is not None:
        from cli import report
        from verif.counterexample import assignments_text

        written = assignments_text(cex.inputs, cex.outputs, report.order(compiled))
        if folder is not None:
            report.write_tensors(cex, folder)
        elif text is not None:
            files.write(text, written)
        else:
            print(written, end="", flush=True)
    return INTERRUPTED if result.reason == "interrupted" else result.verdict.exit_code


def print_capability(flag: str) -> int:
    """Print one capability, a line for each value."""
    capability = CAPABILITIES.get(flag)
    if capability is None:
        from difflib import get_close_matches

        near = get_close_matches(flag, CAPABILITIES, 1)
        known = ", ".join(CAPABILITIES)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {known}"
        raise UsageError("C101", f"unknown capability '{flag}'", help=hint)
    print("\n".join(capability()))
    return 0


_NEWEST_OPSET = "21"  # the newest whose operators were compared with onnxruntime


def _operators() -> list[str]:
    with importing():
        from graphs.onnx import supported
    return list(supported())


def _opsets() -> list[str]:
    with importing():
        from graphs.onnx.importer import OLDEST_OPSET
    return [str(OLDEST_OPSET), _NEWEST_OPSET]


def _element_types() -> list[str]:
    with importing():
        from verif.query import ARITHMETICS
    return list(ARITHMETICS)


CAPABILITIES: dict[str, Callable[[], list[str]]] = {
    "--onnx-operators": _operators,
    # Under the others HOLDS allows for every order of a program's sums, by proof; where there is none it is unknown.
    "--onnx-element-types": _element_types,
    "--onnx-opset-versions": _opsets,
    "--vnnlib-versions": lambda: ["1.0", "2.0"],
    "--hidden-node-theories": lambda: ["NH", "H"],
    "--multiple-input-output-theories": lambda: ["SIO", "MIO"],
    "--multiple-network-theories": lambda: ["SNET", "MENET", "MINET", "MNET"],
    "--multiple-node-comparison-theories": lambda: ["SNC", "MNC"],
    "--arithmetic-complexity-theories": lambda: ["OUTC", "LIN", "POLY"],
    "--optimised-disjunctive-reasoning": lambda: ["true"],
    "--serialise-assignments": lambda: ["true"],
}
