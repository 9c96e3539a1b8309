"""Importing ONNX models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphs.ir import Graph


def load(source: str | Path | bytes, *, name: str = "", keep: Sequence[str] = (), simplified: bool = True) -> Graph:
    """Import an ONNX model from a file or from bytes; shapes have a symbolic batch set to 1.

    `name` is what messages call it (default: the path); values of the user's graph that are named in `keep` become
    further outputs, after the model's own; `simplified=False` leaves out the rewriting passes.
    Raises GraphError where the model cannot be read, UnsupportedError where it says something that has no meaning here.
    """
    from graphs.check import check
    from graphs.onnx import proto
    from graphs.onnx.importer import Importer
    from graphs.passes import simplify

    label = name or ("model" if isinstance(source, bytes) else str(source))
    folder = None if isinstance(source, bytes) else Path(source).parent
    graph = Importer(proto.read(source, label), label, folder).run(keep)
    graph = simplify(graph) if simplified else graph
    check(graph, shapes=False)
    return graph


def supported() -> dict[str, list[int]]:
    """The ONNX operators that have a converter, and the opsets since which each of its converters applies."""
    from graphs.onnx import converters as converters
    from graphs.onnx.registry import CONVERTERS

    return {op: sorted(versions) for op, versions in sorted(CONVERTERS.items())}
