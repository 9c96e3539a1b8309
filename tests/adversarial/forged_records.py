"""False claims with proofs of true ones, the records of which were changed, moved, lost, doubled or taken from another
proof: whatever they are, the checker must not find that the claim holds.
`python -m tests.adversarial.forged_records COUNT [SEED]` tries COUNT of each family.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cli.proofs import claim as monotone
from tests.adversarial import forged_signs, forgeries
from tests.verif.proving import Array, property_file
from verif import evidence
from verif.checker import Refused, check, derivative, model, stream
from verif.checker.bounds import Bounds
from verif.checker.proof import digest_of

WORDS = ("-1", "0", "1e9", "-1e9")
VALUES = (0, -1, 1, -2, 2, 255, 2**31 - 1, -(2**31), np.nan, np.inf, -np.inf, 1e38, -1e38, 1e308, 5e-324, -0.0)
MANIFESTS = ('{"verdict": "violated", %s', '{"slopes": 1, %s', '{"slopes": true, %s', '{"arithmetic": [], %s', "[%s")


@dataclass(frozen=True)
class Held:
    """A model, the records of a true proof about it, and claims that are false."""

    model: Path
    records: list[stream.Record]
    false: list[Path]
    slopes: int | None = None


def records(proof: Path) -> list[stream.Record]:
    """All behind the manifest."""
    return list(stream.read(proof)[1])


def nested(limit: float) -> list[str]:
    """Y_0 <= limit in several forms."""
    low = f"(<= Y_0 {limit:.17f})"
    either = f"(or {low} (<= Y_0 -1e9))"
    return [
        low,
        f"(or (and (<= Y_1 1e9) (or (<= Y_0 -1e9) (and {low} (>= Y_1 -1e9)))) (>= Y_1 1e9))",
        f"(or (<= (+ Y_0 Y_1) (+ {limit:.17f} Y_1)) {low})",
        f"(and {either} {either})",
        f"(or (and (<= X_0 2) (>= X_1 -2) {low}) (and (>= X_0 3) (<= Y_0 1e9)))",
    ]


def one(held: Any, box: list[tuple[str, str]], least: float) -> Held:
    """Of a proof about one box that was forged otherwise before."""
    limit = least + abs(least) * 1e-9 + 1e-9
    false = [
        property_file(held.claim.with_suffix(f".{k}.vnnlib"), box, 2, text) for k, text in enumerate(nested(limit))
    ]
    return Held(held.model, records(held.proof), false, getattr(held, "slopes", None))


def features(folder: Path, generator: np.random.Generator) -> Held:
    """Claims about slopes as `verify monotone --proof` writes them: what is shown of two slopes, and the opposite."""
    sizes = [(6, 2), (6, 6), (1, 6)]
    path = forgeries.mlp(
        folder / "up.onnx",
        [np.abs(generator.normal(size=size)) for size in sizes],
        [generator.normal(size=size[0]) + 1 for size in sizes],
    )
    ends = ([-0.25, -0.25], [0.25, 0.25])
    files = [path.with_suffix(f".{k}.vnnlib") for k in range(4)]
    for file, signs in zip(files, ((1, 1), (-1, 1), (1, -1), (-1, -1)), strict=True):
        wanted = [SimpleNamespace(feature=k, sign=sign) for k, sign in enumerate(signs)]
        file.write_text(monotone(ends, wanted))  # type: ignore[arg-type]
    evidence.write(path.with_suffix(".proof"), evidence.Claim(path, files[0], 0))
    slopes = derivative.slopes(model.read(path), 0)
    middle = np.zeros((1, 2))
    assert (Bounds(slopes, middle, middle).rows(slopes.output, np.eye(2)).lower > 1e-6).all()
    return Held(path, records(path.with_suffix(".proof")), files[1:], 0)


def many(folder: Path, held: forgeries.Proved) -> Held:
    """Four boxes side by side with two clauses each; of the false claims one box's limit is above a value in it."""
    network = model.read(held.model)
    quarters = [(low, low + 0.5) for low in (-1.0, -0.5, 0.0, 0.5)]
    inside = next(k for k, (low, high) in enumerate(quarters) if low <= held.point[0] <= high)

    def written(name: str, limits: list[float]) -> Path:
        parts = [
            f"(and (>= X_0 {low}) (<= X_0 {high}) (or (<= Y_0 {limit:.17f}) (and (<= Y_0 -1e9) (>= Y_1 1e9))))"
            for (low, high), limit in zip(quarters, limits, strict=True)
        ]
        return property_file(folder / name, held.box, 2, f"(or {' '.join(parts)})")

    lows = np.array([[low, *[-1.0] * (network.inputs - 1)] for low, _ in quarters])
    highs = np.array([[high, *[1.0] * (network.inputs - 1)] for _, high in quarters])
    base = Bounds(network, lows, highs).rows(network.output, np.eye(2)[:1]).lower[:, 0]
    limits = (base + 0.2 * (held.value - base)).tolist()
    claim, out = written("many.vnnlib", limits), folder / "many.proof"
    evidence.write(out, evidence.Claim(held.model, claim))
    limits[inside] = held.value + abs(held.value) * 1e-9 + 1e-9
    return Held(held.model, records(out), [written("many.0.vnnlib", limits)])


def families(folder: Path, generator: np.random.Generator) -> dict[str, Held]:
    """Of all kinds of proofs."""
    boxes = {name: forgeries.proved(path, generator) for name, path in forgeries.models(folder, generator).items()}
    found = {name: one(held, held.box, held.value) for name, held in boxes.items()}
    found["many boxes"] = many(folder, boxes["dense"])
    found["monotone"] = features(folder, generator)
    for name in forged_signs.BESIDE:
        held = forged_signs.proved(folder, name, generator)
        found[f"signs, {name}"] = one(held, forged_signs.BOX, held.least)
    return found


def edited(array: Array, generator: np.random.Generator) -> Array:
    """An array with other numbers, more or fewer."""
    array = array.copy()
    match int(generator.integers(6)):
        case 0 if len(array):
            with np.errstate(invalid="ignore", over="ignore"):
                array[int(generator.integers(len(array)))] = np.array(generator.choice(VALUES)).astype(array.dtype)
        case 1:
            return array[: int(generator.integers(len(array) + 1))]
        case 2:
            return np.append(array, array[: int(generator.integers(1, 4))])
        case 3:
            return generator.permutation(array)
        case 4:
            array[:] = generator.choice([0, 1])
        case _:
            array[:] = -1 if array.dtype.kind == "i" else 1
    return array


def changed(held: list[stream.Record], other: list[stream.Record], generator: np.random.Generator) -> list[Any]:
    """Some edits of a proof's records."""
    found = list(held)
    for _ in range(int(generator.integers(4))):
        at, to = (int(generator.integers(len(found) + 1)) for _ in range(2))
        match int(generator.integers(7)):
            case 0:
                del found[at : at + 1]
            case 1:
                found[to:to] = found[at : at + 1]
            case 2:
                found[at:at] = [other[int(generator.integers(len(other)))]]
            case 3:
                found = [found[k] for k in generator.permutation(len(found))]
            case _ if at < len(found):
                kind, arrays = found[at]
                which = int(generator.integers(len(arrays)))
                found[at] = kind, tuple(edited(a, generator) if k == which else a for k, a in enumerate(arrays))
    return found


def forge(held: Held, other: Held, generator: np.random.Generator, out: Path) -> Path:
    """A proof of a false claim, sealed; now and then with a manifest that says things twice."""
    claim = held.false[int(generator.integers(len(held.false)))]
    manifest = {"verdict": "holds", "arithmetic": "real", "model": digest_of(held.model), "property": digest_of(claim)}
    manifest |= {} if held.slopes is None else {"slopes": held.slopes}
    text = json.dumps(manifest)
    if generator.random() < 0.1:
        text = str(generator.choice(MANIFESTS)) % text[1:]
    with out.open("wb") as file:
        writer = stream.Writer(file)
        file.write(stream.MAGIC)
        writer.add("J", np.frombuffer(text.encode(), "u1"))
        for kind, arrays in changed(held.records, other.records, generator):
            writer.add(kind, *arrays)
    return claim


def holds(proof: Path, held: Held, claim: Path) -> bool:
    """Whether the checker finds the claim shown."""
    try:
        return check(proof, held.model, claim, held.slopes).verdict == "holds"
    except Refused:
        return False


def run(count: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """How many of each family were not believed, and what was."""
    refused, accepted = Counter[str](), []
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        found = families(Path(name), generator)
        others, out = list(found.values()), Path(name) / "forged.proof"
        for family, held in found.items():
            for number in range(count):
                claim = forge(held, others[int(generator.integers(len(others)))], generator, out)
                if holds(out, held, claim):
                    accepted.append(f"{family}, number {number}")
                else:
                    refused[family] += 1
    return refused, accepted


if __name__ == "__main__":
    forgeries.main(run)
