"""Every strategy by force on instances with known answers, without the falsifier: no verdict may be wrong.

    python benchmarks/forced.py FOLDER [--seconds 10] [--each 3] [--strategy NAME] [--csv FILE]

FOLDER holds the families; of each, --each instances are taken, those with counterexamples first: a search that cuts off
too much says HOLDS there. Limits are processor seconds of one thread. With --csv, rows in the file are not run again.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if __name__ == "__main__":
    patch("time.monotonic", time.process_time).start()  # before verif keeps it

import torch  # noqa: E402

import verif  # noqa: E402
from benchmarks.vnncomp import Instance, read_instances  # noqa: E402
from verif.attack import Attacker  # noqa: E402
from verif.strategy import STRATEGIES  # noqa: E402
from verif.verify import Run  # noqa: E402

ANSWERS = {"HOLDS": "unsat", "VIOLATED": "sat"}


@dataclass(frozen=True)
class Row:
    """What came of one instance under one strategy; `used` is the search that decided."""

    strategy: str
    family: str
    network: str
    property: str
    expected: str
    verdict: str
    done: int
    seconds: float
    used: str

    @property
    def wrong(self) -> bool:
        """Whether the verdict contradicts the known answer."""
        return ANSWERS.get(self.verdict, self.expected) != self.expected


def chosen(folder: Path, each: int) -> Iterator[Instance]:
    """A few instances of each family, by turns with and without counterexamples, spread over its list."""
    for family in sorted(path for path in folder.iterdir() if (path / "expected.csv").is_file()):
        known = [instance for instance in read_instances(family) if instance.expected and not instance.networks[0][0]]
        for answer, count in (("sat", each - each // 3), ("unsat", each // 3)):
            part = [instance for instance in known if instance.expected == answer]
            yield from part[:: max(1, len(part) // max(1, count))][:count]


def solve(instance: Instance, strategy: str, seconds: float) -> Row:
    """Run one instance; points are looked at where the search comes across them, and never moved."""
    begun = time.process_time()
    with ExitStack() as changes:
        changes.enter_context(patch.object(Run, "_attack", lambda self, search, steps: None))
        still = patch.object(
            Attacker, "descend", lambda self, points, _, region, __: (points, self.gap(points, region))
        )
        changes.enter_context(still)
        path = instance.folder / instance.property
        result = verif.verify(instance.networks[0][1], path, timeout=seconds, strategy=strategy)
    spent = round(time.process_time() - begun, 2)
    used = result.strategy.split(":")[0]
    return Row(strategy, *instance.key, instance.expected, result.verdict.name, result.domains, spent, used)


def table(rows: Sequence[Row]) -> str:
    """A line for each strategy."""
    lines = [
        "| strategy | instances | HOLDS | VIOLATED | open | wrong | sub-problems |",
        "|---|---|---|---|---|---|---|",
    ]
    for strategy in dict.fromkeys(row.strategy for row in rows):
        part = [row for row in rows if row.strategy == strategy]
        counts = [sum(row.verdict == name for row in part) for name in ANSWERS]
        wrong, done = sum(row.wrong for row in part), sum(row.done for row in part)
        open_ = len(part) - sum(counts)
        lines.append(f"| {strategy} | {len(part)} | {counts[0]} | {counts[1]} | {open_} | {wrong} | {done} |")
    return "\n".join(lines)


def stored(path: Path | None) -> list[Row]:
    """Rows of an earlier run."""
    if path is None or not path.exists():
        return []
    with path.open(newline="") as file:
        return [Row(*line[:6], int(line[6]), float(line[7]), line[8]) for line in csv.reader(file)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="every strategy by force, without the falsifier")
    parser.add_argument("folder", type=Path, help="the folder of the families")
    parser.add_argument("--seconds", type=float, default=10.0, help="processor seconds for each instance")
    parser.add_argument("--each", type=int, default=3, help="instances of each family")
    parser.add_argument("--strategy", choices=STRATEGIES, help="this one only")
    parser.add_argument("--csv", type=Path, help="append rows to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = stored(options.csv)
    known = {(row.strategy, row.family, row.network, row.property) for row in rows}
    for strategy in [options.strategy] if options.strategy else STRATEGIES:
        for instance in chosen(options.folder, options.each):
            if (strategy, *instance.key) in known:
                continue
            rows.append(solve(instance, strategy, options.seconds))
            print(*vars(rows[-1]).values(), "WRONG" * rows[-1].wrong, sep="  ", flush=True)
            if options.csv:
                with options.csv.open("a", newline="") as file:
                    csv.writer(file).writerow(vars(rows[-1]).values())
    print(table(rows))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
