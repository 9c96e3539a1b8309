"""What it costs to confirm HOLDS beyond proved rounding errors: processor seconds of searches with and without.

    python benchmarks/confirming.py FOLDER [--families mnist_fc,oval21] [--each 3] [--timeout 30] [--repeat 3]

Without: float32 is believed as it comes out, nothing is bounded again in float64 and nothing is moved outward.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.confirmed import instances


@contextmanager
def believing() -> Iterator[None]:
    """Searches that believe what float32 says."""
    from verif.rounding import Allowance
    from verif.signs import SignSearch

    def allowance(query: Any, box: Any, single: Any, double: Any, points: Any) -> Allowance:
        none = torch.zeros(double[double.outputs[0]].size, dtype=torch.float64)
        return Allowance(none, none, "", trusted=True)

    def refuted(search: Any, sweep: Any, cases: Any, rounds: int = 1, step: float = 0.0) -> torch.Tensor:
        known = torch.full((len(cases),), rounds == 1)
        return known if rounds == 1 or not len(cases) else sure(search, sweep, cases, rounds, step)

    module, sure = importlib.import_module("verif.verify"), SignSearch._refuted  # `verif.verify` is the function
    with mock.patch.object(module, "allowance", allowance), mock.patch.object(SignSearch, "_refuted", refuted):
        yield


def seconds(query: Any, timeout: float) -> tuple[float, str]:
    """Of the processor, and the verdict."""
    from verif import verify

    begun = time.process_time()
    label = verify(None, query, timeout=timeout).verdict.label
    return time.process_time() - begun, label


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--families", default="")
    parser.add_argument("--each", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    from verif.query import compile_query

    torch.set_num_threads(1)
    families = [name for name in given.families.split(",") if name]
    by_family: dict[str, list[tuple[str, str]]] = {}
    for family, network, claim in instances(given.folder, families):
        by_family.setdefault(family, []).append((network, claim))
    ratios: list[float] = []
    for family, pairs in by_family.items():
        own: list[float] = []
        for network, claim in pairs[: given.each]:
            query = compile_query(given.folder / family / claim, given.folder / family / network)
            if seconds(query, given.timeout)[1] != "holds":
                continue
            with_, without = [], []
            for _ in range(given.repeat):
                with_.append(seconds(query, given.timeout)[0])
                with believing():
                    without.append(seconds(query, given.timeout)[0])
            own.append(statistics.median(with_) / statistics.median(without))
            print(
                family,
                claim,
                f"{statistics.median(with_):.3f} {statistics.median(without):.3f} {own[-1]:.2f}",
                flush=True,
            )
        ratios += own
        if own:
            print(f"| {family} | {len(own)} | {statistics.median(own):.2f} |", flush=True)
    print(f"| all | {len(ratios)} | {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
