"""Reading a property file for given networks."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from graphs import Graph
from verif.errors import PropertyError
from verif.networks import Networks
from verif.query import Network, Property, Variable
from verif.vnnlib.compile import compile_source
from verif.vnnlib.source import Source

LARGEST = 1 << 31  # bytes that a packed property may unpack to
_SECOND = re.compile(rb"\A(\s|;[^\n]*\n)*\(\s*(vnnlib-version\s*<\s*2|declare-network)")


def read(path: Path, given: Networks) -> tuple[Property, list[Network]]:
    """The property of a VNN-LIB file (1.0 or 2.0, plain or .gz), and the networks that it speaks of."""
    text = read_bytes(path)
    if _SECOND.match(text):
        from verif.vnnlib.v2 import read_second

        return read_second(text, str(path), given)
    return _read_first(text, str(path), given)


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked if its name ends in .gz."""
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise PropertyError("P100", f"the property unpacks to more than {LARGEST >> 30} GiB", where=str(path))
        return data
    except FileNotFoundError:
        raise PropertyError("P100", "the property file does not exist", where=str(path)) from None
    except (OSError, EOFError, zlib.error) as error:
        raise PropertyError("P100", f"the property file cannot be read: {error}", where=str(path)) from None


def _read_first(text: bytes, file: str, given: Networks) -> tuple[Property, list[Network]]:
    from verif.vnnlib.v1 import parse

    found = parse(text, file)
    if len(given.sources) != 1:
        raise PropertyError(
            "P109",
            f"a VNN-LIB 1.0 property is about one network, {len(given.sources)} are given",
            where=file,
            notes=("given: " + ", ".join(given.sources),),
        )
    network = given.load(next(iter(given.sources)), rename="")
    variables = variables_of(network.graph)
    for letter, kind, count in (("X", "input", found.inputs), ("Y", "output", found.outputs)):
        own = [v for v in variables if v.kind == kind]
        size = sum(v.size for v in own)
        if size != count:
            declared = f"{count} {kind}{'' if count == 1 else 's'}"
            shapes = ", ".join(f"{v.origin} {list(v.shape)}" for v in own)
            raise PropertyError(
                "P104",
                f"the property declares {declared} ({letter}_0 ...), the network has {size}",
                where=file,
                notes=(f"the network's {kind}s: {shapes}",),
            )
    source = Source(file, variables, found.comparisons, found.products, found.formula)
    return compile_source(source), [network]


def variables_of(graph: Graph) -> tuple[Variable, ...]:
    """The variables X and Y of VNN-LIB 1.0: all inputs and outputs of a network in order."""
    dtype = str(graph[graph.inputs[0]].attrs.get("dtype", "float32"))
    return tuple(
        Variable(
            letter, "", name, kind, graph[name].shape, str(graph[name].attrs.get("dtype", dtype)), graph[name].origin
        )
        for letter, kind, names in (("X", "input", graph.inputs), ("Y", "output", graph.outputs))
        for name in names
    )
