"""How much of a competition folder's `unsat` is confirmed: rounding proved in real arithmetic and for float32 programs,
proofs written and checked, with processor seconds and sizes.

    python benchmarks/confirmed.py FOLDER --csv rows.csv [--families mnist_fc,oval21] [--timeout 40] [--proof 10]

Instances that have a row are left out, or with --again asked what the row leaves open. Without a folder it prints a
table of the rows.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FIELDS = ["family", "network", "property", "real", "rounding", "seconds", "float32", "float32_seconds", "reason"]
FIELDS += ["leaves", "bytes", "write_seconds", "check_seconds", "refused"]
LEFT_OUT = ("acasxu", "vnnlib2")  # for their number; the second repeats others


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its processor seconds."""
    begun = time.process_time()
    return call(), time.process_time() - begun


def instances(folder: Path, families: list[str]) -> Iterator[tuple[str, str, str]]:
    """Family, network and property of all that should be unsat."""
    for expected in sorted(folder.glob("*/expected.csv")):
        family = expected.parent.name
        if family in families or (not families and family not in LEFT_OUT):
            with expected.open() as file:
                yield from ((family, row[0], row[1]) for row in csv.reader(file) if row[2] == "unsat")


def searched(paths: tuple[Path, Path], arithmetic: str, timeout: float) -> tuple[Any, float]:
    """A result and its seconds."""
    from verif import verify
    from verif.query import compile_query

    model, claim = paths
    return timed(lambda: verify(None, compile_query(claim, model, arithmetic=arithmetic), timeout=timeout))


def proved(paths: tuple[Path, Path], seconds: float) -> dict[str, Any]:
    """Figures of a proof, or why there is none."""
    from verif import evidence
    from verif.checker import Refused, check

    model, claim = paths
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out.proof"
        try:
            deadline = time.monotonic() + seconds
            written, spent = timed(lambda: evidence.write(out, evidence.Claim(model, claim), deadline=deadline))
            if written.why:
                raise Refused(f"{written.share:.1%} of the input set: {written.why}")
            checked, checking = timed(lambda: check(out, model, claim))
        except Refused as refused:
            return {"refused": str(refused)}
    assert checked.leaves == written.leaves
    figures = {"leaves": written.leaves, "bytes": written.bytes, "refused": ""}
    return figures | {"write_seconds": round(spent, 3), "check_seconds": round(checking, 3)}


def row(folder: Path, names: tuple[str, str, str], given: argparse.Namespace, old: dict[str, str]) -> dict[str, Any]:
    """One instance; what an older row knows is not asked again."""
    family, network, claim = names
    paths = folder / family / network, folder / family / claim
    found: dict[str, Any] = dict(old) | dict(zip(FIELDS, names, strict=False))
    if old.get("real") != "holds":
        real, seconds = searched(paths, "real", given.timeout)
        found |= {"real": real.verdict.label, "rounding": real.rounding, "seconds": round(seconds, 3)}
    if old.get("float32") in (None, "timeout"):
        single, seconds = searched(paths, "float32", given.timeout)
        found |= {"float32": single.verdict.label, "float32_seconds": round(seconds, 3), "reason": single.reason}
    return found if old.get("leaves") else found | proved(paths, given.proof)


def table(rows: list[dict[str, str]]) -> Iterator[str]:
    """A line for each family, and one for all."""
    yield "| family | unsat | proved | float32 | proofs | check / search | bytes of a proof |"
    yield "|---|---|---|---|---|---|---|"
    families = list(dict.fromkeys(one["family"] for one in rows))
    for family in [*families, "all"]:
        held = [one for one in rows if family in (one["family"], "all")]
        holds = [one for one in held if one["real"] == "holds"]
        proofs = [one for one in held if one["leaves"]]
        ratio = [float(one["check_seconds"]) / max(float(one["seconds"]), 1e-3) for one in proofs]
        sizes = [int(one["bytes"]) for one in proofs]
        cells = [
            family,
            len(holds),
            sum(one["rounding"] == "proved" for one in holds),
            sum(one["float32"] == "holds" for one in held),
            len(proofs),
            f"{statistics.median(ratio):.2g}, at most {max(ratio):.2g}" if ratio else "",
            f"{statistics.median(sizes):.0f}, at most {max(sizes)}" if sizes else "",
        ]
        yield "| " + " | ".join(str(cell) for cell in cells) + " |"


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--families", default="")
    parser.add_argument("--again", action="store_true", help="what was not decided or not proved")
    parser.add_argument("--timeout", type=float, default=40.0)
    parser.add_argument("--proof", type=float, default=10.0)
    given = parser.parse_args()
    rows = list(csv.DictReader(given.csv.open())) if given.csv.exists() else []
    if given.folder is None:
        print(*table(rows), sep="\n")
        return
    done = {(one["family"], one["network"], one["property"]): one for one in rows}
    for names in instances(given.folder, [name for name in given.families.split(",") if name]):
        if names not in done or given.again:
            done[names] = row(given.folder, names, given, done.get(names, {}))
            part = given.csv.with_suffix(".part")
            with part.open("w", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(done.values())
            part.replace(given.csv)


if __name__ == "__main__":
    main()
