"""Say what became slower, larger or looser between the last two comparable runs of a history of bounds.

    python benchmarks/compare.py [benchmarks/history.jsonl] [--threshold 1.25]

Comparable are runs on the same processor with the same number of threads. Where both have a peer, its time beside ours
is the measure of the machine's mood, and the ratio to it is compared; else seconds are. Exits 1 at a regression.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).resolve().parent / "history.jsonl"
LOOSER = 1e-4  # share of its size by which a mean bound may fall: rounding
SMALL = 8e6  # bytes below which memory is what the allocator did that day
Record = Mapping[str, Any]


def last_two(records: Sequence[Record]) -> tuple[Record, Record] | None:
    """The newest record and the newest earlier one that it can be compared with."""
    if not records:
        return None
    new = records[-1]
    place = (new["machine"], new["threads"])
    old = next((r for r in reversed(records[:-1]) if (r["machine"], r["threads"]) == place), None)
    return None if old is None else (old, new)


def regressions(old: Record, new: Record, threshold: float) -> Iterator[str]:
    """A sentence for each figure that is worse by more than the threshold."""
    before = {(case["problem"], case["method"]): case for case in old["cases"]}
    for case in new["cases"]:
        key = (case["problem"], case["method"])
        if key in before:
            for what in _worse(before[key], case, threshold):
                yield f"{key[0]} {key[1]}: {what}"


def _worse(old: Mapping[str, Any], new: Mapping[str, Any], threshold: float) -> Iterator[str]:
    beside = "peer" in old and "peer" in new
    was, now = (case["ours"]["seconds"] / (case["peer"]["seconds"] if beside else 1.0) for case in (old, new))
    if now > threshold * was:
        unit = "of the peer's time" if beside else "s"
        yield f"slower by a factor of {now / was:.2f} ({was:.4g} to {now:.4g} {unit})"
    was, now = (max(case["ours"].get("bytes", 0.0), SMALL) for case in (old, new))
    if "bytes" in old["ours"] and now > threshold * was:
        yield f"takes {now / was:.2f} times the memory ({was / 1e6:.0f} to {now / 1e6:.0f} MB)"
    was, now = old["ours"]["mean"], new["ours"]["mean"]
    if not now >= was - LOOSER * abs(was):  # also where it is NaN
        yield f"looser: mean bound {was:.6g} to {now:.6g}"


def main() -> int:
    parser = argparse.ArgumentParser(description="compare the last two runs of a history of bounds")
    parser.add_argument("history", type=Path, nargs="?", default=HISTORY)
    parser.add_argument("--threshold", type=float, default=1.25, help="factor from which a change is a regression")
    options = parser.parse_args()
    lines = options.history.read_text(encoding="utf-8").splitlines() if options.history.is_file() else []
    pair = last_two([json.loads(line) for line in lines])
    if pair is None:
        print("there are no two runs on one kind of machine to compare")
        return 0
    old, new = pair
    found = list(regressions(old, new, options.threshold))
    print(f"{old['date']} {old['commit']} to {new['date']} {new['commit']}: {len(found)} regression(s)")
    for sentence in found:
        print(f"  {sentence}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
