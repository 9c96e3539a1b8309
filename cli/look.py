"""A model alone: what it is, what could be verified, and the commands to go on with. Claims nothing."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli import files
from cli.decide import importing, refuse
from cli.errors import UsageError
from cli.options import Options
from graphs.errors import UnsupportedError

if TYPE_CHECKING:
    from graphs import Graph
    from graphs.summary import Port, Summary

_FLOAT = 4  # bytes of a coefficient: bounds run in float32


def look(model: Path, options: Options) -> int:
    """`verify MODEL.onnx [--graph FILE.svg]`: exit code 0, or 2 where the model cannot be verified."""
    for flag in ("network", "results", "json", "counterexample", "proof"):
        refuse(options, flag, "a model alone is only described; give a property or --input too")
    if options.format != "text":
        raise UsageError("C104", "--format has no meaning here", help="a model alone is described in text")
    files.require(model)
    files.require_writable(options.graph)
    with importing():
        from graphs.onnx import load
        from graphs.summary import summary
    try:
        graph = load(model)
    except UnsupportedError as error:
        error.notes += _others(model)
        raise
    print("\n".join(describe(model, graph, summary(graph))), flush=True)
    if options.graph is not None:
        from graphs.draw import svg

        files.write(options.graph, svg(graph))
    return 0


def explain(model: Path) -> int:
    """`verify MODEL.onnx --explain`: the description, and what one bound pass over one box costs."""
    files.require(model)
    with importing():
        from graphs.onnx import load
        from graphs.summary import summary
    graph = load(model)
    print("\n".join([*describe(model, graph, summary(graph)), "", *passes(graph)]), flush=True)
    return 0


def passes(graph: Graph) -> list[str]:
    """What passes over one box cost, counted from the graph: every input entry of a nonlinear node gets a row."""
    from relaxations.kernels.library import native
    from relaxations.kernels.program import compile_sweep
    from verif.bounds.cost import crown_cost, interval_cost
    from verif.bounds.engine import CHUNK_BYTES
    from verif.bounds.memory import box_bytes, row_bytes

    found = {"interval": interval_cost(graph).total, "CROWN": crown_cost(graph).total}
    rows = [("pass", "operations", "bytes at least", "bytes layer by layer")]
    rows += [(name, _count(int(w.flops)), _bytes(w.least), _bytes(w.traffic)) for name, w in found.items()]
    row = max(1, row_bytes(graph, graph.outputs[0], _FLOAT))
    tiled = native().library is not None and compile_sweep(graph, graph.outputs[0]) is not None
    return [
        *_table(rows),
        "",
        f"  a row takes up to {_bytes(row)}, a box {_bytes(box_bytes(graph, _FLOAT))}",
        "  rows go through all layers in cache-sized tiles (native library)"
        if tiled
        else f"  rows go layer by layer through torch, {_count(max(1, CHUNK_BYTES // row))} at a time",
    ]


def describe(model: Path, graph: Graph, found: Summary) -> list[str]:
    """The lines of the description."""
    from relaxations import RULES

    rows = [("op", "kind", "nodes", "values", "bounded by")]
    rows += [(r.op, r.kind, _count(r.nodes), _count(r.values), type(RULES[r.op]).__name__) for r in found.ops]
    row_bytes = _FLOAT * found.largest.size
    return [
        str(model),
        *(f"  input     {_port(port)}" for port in found.inputs),
        *(f"  output    {_port(port)}" for port in found.outputs),
        f"  size      {_count(found.nodes)} nodes, {_count(found.parameters)} parameters, "
        f"{_count(found.values)} values, {_count(found.nonlinear)} of them nonlinear",
        f"  memory    {_bytes(row_bytes)} per row and box, at the widest value '{found.largest.origin}'",
        "",
        *_table(rows),
        "",
        *(f"  {'next' if i == 0 else '':<9} {line}" for i, line in enumerate(_next(model, found))),
    ]


def _next(model: Path, found: Summary) -> list[str]:
    name = shlex.quote(str(model))
    sizes = [math.prod(port.shape) for port in found.outputs]
    local = (
        [f"verify {name} --input x.npy --eps 0.01", f"verify {name} --input x.npy"]
        if len(sizes) == 1 < sizes[0]
        else []
    )
    return [f"verify {name} PROPERTY.vnnlib --timeout 60", *local, f"verify {name} --graph model.svg"]


def _others(model: Path) -> tuple[str, ...]:
    """Every operator of the model that has no converter, not only the first."""
    from graphs.onnx import proto, supported

    known = supported()
    nodes = proto.read(model, str(model)).graph.node
    missing = Counter(node.op_type for node in nodes if node.op_type not in known)
    if not missing:
        return ()
    listed = ", ".join(f"{op} ({count})" for op, count in missing.most_common())
    return (f"of {_count(len(nodes))} nodes these have no meaning here: {listed}",)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns wide enough; the counts to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index in (2, 3) else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "   ".join(cells)).rstrip())
    return lines


def _port(port: Port) -> str:
    return f"{port.name} {list(port.shape)} {port.dtype}"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
