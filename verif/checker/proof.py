"""Proof files and their check.

A proof is a zip: `manifest.json` (what is claimed, the hashes of both inputs and of every array), `seal` (the hash of
the manifest), and arrays as raw little-endian numbers: `axis.K` and `cut.K`, the split tree of region K; or `row.K`,
`neurons.K` and for each clause C `tree.K.C`, `slopes.K.C` and `multipliers.K.C` (see signs.py); or `point`.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from verif.checker import claims, exact, model, signs, tree
from verif.checker.bounds import Bounds
from verif.checker.claims import Region, above, below
from verif.checker.errors import Refused
from verif.checker.network import Array, Network

FORMAT = "verif proof 1"
ENTRY_LIMIT = 1 << 30
BATCH = 400_000  # numbers of one batch's largest value


@dataclass(frozen=True)
class Shown:
    """What a proof shows in real arithmetic: the verdict, and how many leaves were refuted for it."""

    verdict: str
    leaves: int
    bytes: int


def check(proof: Path, model_file: Path, property_file: Path) -> Shown:
    """Check a proof against both files; Refused where it does not show its claim."""
    manifest, arrays = unpack(proof)
    for name, path in (("model", model_file), ("property", property_file)):
        if manifest.get(name) != digest_of(path):
            raise Refused(f"the proof is of another {name}")
    if manifest.get("format") != FORMAT or manifest.get("arithmetic") != "real":
        raise Refused("a format or an arithmetic that the checker does not know")
    network = model.read(model_file)
    regions = claims.read(property_file, network.inputs, network.outputs)
    verdict, size = manifest.get("verdict"), proof.stat().st_size
    if verdict == "holds":
        if set(arrays) != {name for k, region in enumerate(regions) for name in names(arrays, k, region)}:
            raise Refused("the proof does not have the trees of each region")
        return Shown("holds", sum(_of_region(network, region, arrays, k) for k, region in enumerate(regions)), size)
    if verdict != "violated" or set(arrays) != {"point"}:
        raise Refused("the proof claims nothing that the checker knows")
    if not violates(network, regions, _array(arrays["point"], "<f8")):
        raise Refused("the point is not shown to be a counterexample")
    return Shown("violated", 0, size)


def names(arrays: dict[str, bytes], place: int, region: Region) -> list[str]:
    """The arrays of a region: one tree over boxes, or one over signs for each clause."""
    if f"row.{place}" not in arrays:
        return [f"axis.{place}", f"cut.{place}"]
    own = [f"{name}.{place}.{c}" for c in range(len(region.clauses)) for name in ("tree", "slopes", "multipliers")]
    return [f"row.{place}", f"neurons.{place}", *own]


def _of_region(network: Network, region: Region, arrays: dict[str, bytes], place: int) -> int:
    """The number of leaves of a region, all of them refuted."""
    if f"row.{place}" not in arrays:
        axis, cut = _array(arrays[f"axis.{place}"], "<i4"), _array(arrays[f"cut.{place}"], "<f8")
        return _refuted(network, region, axis, cut)
    rows = _array(arrays[f"row.{place}"], "<i4").tolist()
    if len(rows) != len(region.clauses) or any(
        row not in clause for row, clause in zip(rows, region.clauses, strict=True)
    ):
        raise Refused("a row that is not of its clause")
    neurons, total = _array(arrays[f"neurons.{place}"], "<i4"), 0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        bounds = Bounds(network, region.lower[None], region.upper[None])
        for c, row in enumerate(rows):
            kinds = {"tree": "<i4", "slopes": "<u1", "multipliers": "<f4"}
            held = signs.leaves(neurons, *(_array(arrays[f"{n}.{place}.{c}"], k) for n, k in kinds.items()))
            size = batch_of(network, region)
            for first in range(0, len(held), size):
                low = signs.SignSweep(bounds, region.rows[row], held.part(first, first + size)).lower()
                if not (low > above(region.limits[row])).all():
                    raise Refused(f"one of the leaves {first} to {first + size - 1} is not refuted")
            total += len(held)
    return total


def unpack(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the arrays, all hashes compared."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names) or any(item.file_size > ENTRY_LIMIT for item in archive.infolist()):
                raise Refused("entries twice, or larger than the checker reads")
            entries = {name: archive.read(name) for name in names}
        held = entries.pop("manifest.json")
        if entries.pop("seal") != digest(held).encode():
            raise Refused("the manifest was changed")
        manifest = json.loads(held)
    except (KeyError, ValueError, OSError, EOFError, NotImplementedError, RuntimeError, RecursionError) as error:
        raise Refused(f"this is no proof: {error}") from None
    except Exception as error:  # zlib and zipfile raise what they like on garbage, and each of these is a refusal
        if isinstance(error, Refused):
            raise
        raise Refused(f"this is no proof: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("entries") != {k: digest(v) for k, v in entries.items()}:
        raise Refused("an array was changed")
    return manifest, entries


def pack(path: Path, manifest: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write a proof; it takes its name only when it is whole."""
    entries = {name: array.tobytes() for name, array in arrays.items()}
    held = json.dumps({**manifest, "format": FORMAT, "entries": {k: digest(v) for k, v in entries.items()}}).encode()
    part = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"manifest.json": held, "seal": digest(held).encode(), **entries}.items():
            archive.writestr(name, data)
    part.replace(path)


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str:
    """The hash of a file's contents (unpacked, where it ends in .gz)."""
    try:
        return digest(model.contents(path))
    except (OSError, EOFError) as error:
        raise Refused(f"{path.name} could not be read: {error}") from None


def batch_of(network: Network, region: Region) -> int:
    """Boxes that are bounded at once."""
    widest = max(step.size for step in network.steps)
    return max(1, min(1024, BATCH // (widest * max(2 * widest, len(region.rows)))))


def violates(network: Network, regions: list[Region], point: Array) -> bool:
    """Whether a point is in the unsafe set, shown by sound bounds or else exactly."""
    if point.shape != (network.inputs,) or not np.isfinite(point).all():
        return False
    exactly = [Fraction(value) for value in point.tolist()]
    inside = [r for r in regions if all(a <= x <= b for x, (a, b) in zip(exactly, r.exact, strict=True))]
    bounds = Bounds(network, point[None], point[None])
    for region in inside:
        high = -bounds.rows(network.output, -region.rows).lower[0] if len(region.rows) else np.empty(0)
        for clause in region.clauses:
            if all(high[row] <= below(region.limits[row]) for row in clause):
                return True
    if not inside:
        return False
    outputs = exact.evaluate(network, exactly)
    return any(
        all(exact.combined(region.rows[row], outputs) <= region.limits[row] for row in clause)
        for region in inside
        for clause in region.clauses
    )


def _array(data: bytes, kind: str) -> Array:
    if len(data) % np.dtype(kind).itemsize:
        raise Refused("an array ends inside a number")
    return np.frombuffer(data, kind)


def _refuted(network: Network, region: Region, axis: Array, cut: Array) -> int:
    """The number of leaves, all of them refuted."""
    if axis.shape != cut.shape:
        raise Refused("a tree whose arrays differ in length")
    size, total = batch_of(network, region), 0
    held: list[tree.Boxes] = []

    def flush() -> None:
        lower, upper = np.stack([low for low, _ in held]), np.stack([high for _, high in held])
        if not (tree.gaps(network, region, lower, upper)[0] > 0).all():
            raise Refused(f"one of the leaves {total - len(held)} to {total - 1} is not refuted")
        held.clear()

    for box in tree.leaves(region, axis, cut):
        held.append(box)
        total += 1
        if len(held) == size:
            flush()
    if held:
        flush()
    return total
