"""Sub-problems per second of branch-and-bound on four networks (boxes also with plain passes), beside the targets.

    python benchmarks/rates.py FOLDER [--seconds 20] [--only NAME] [--threads 2]

FOLDER holds the families (acasxu, cifar10_resnet, mnist_fc, oval21). A sub-problem counts once, when it is refuted or
split; bounds of children that were only tried do not. The clock starts with the first report of the search (loading and
the root's bounds are over by then). Targets are multiples of what alpha-beta-CROWN reached on two such cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import verif  # noqa: E402
from verif.bab import Progress  # noqa: E402
from verif.tactics import TACTICS, USUAL  # noqa: E402


@dataclass(frozen=True)
class Case:
    """An instance that takes a while, and how many sub-problems a second are wanted; `inside`: the rounds of slope
    optimisation that boxes get, where they are not the usual ones.
    """

    name: str
    network: str
    property: str
    target: int
    inside: tuple[int, int] | None = None


CASES = (
    Case("resnet_2b", "cifar10_resnet/onnx/resnet_2b.onnx", "cifar10_resnet/vnnlib/prop_47_eps_0.008.vnnlib", 350),
    Case("oval21 base", "oval21/onnx/cifar_base_kw.onnx", "oval21/vnnlib/cifar_base_kw-img3568-*.vnnlib", 900),
    Case("mnist_fc 256x4", "mnist_fc/onnx/mnist-net_256x4.onnx", "mnist_fc/vnnlib/prop_9_0.05.vnnlib", 2650),
    Case("acasxu boxes", "acasxu/onnx/ACASXU_run2a_4_2_batch_2000.onnx", "acasxu/vnnlib/prop_2.vnnlib", 24000),
    # What alpha-beta-CROWN does on ACAS Xu: boxes with a plain pass of CROWN each, here through the whole search too.
    Case("plain boxes", "acasxu/onnx/ACASXU_run2a_4_2_batch_2000.onnx", "acasxu/vnnlib/prop_2.vnnlib", 24000, (0, 0)),
)


@dataclass
class Meter:
    """Counts between the first and the last report of a search, with wall and processor seconds."""

    marks: list[tuple[int, float, float]] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        """Take a report of the search."""
        self.marks = [*self.marks[:1], (progress.done, time.perf_counter(), time.process_time())]

    @property
    def spans(self) -> tuple[int, float, float]:
        """Sub-problems, wall seconds, processor seconds."""
        if len(self.marks) < 2:
            return 0, 0.0, 0.0
        (done, wall, work), (late_done, late_wall, late_work) = self.marks
        return late_done - done, late_wall - wall, late_work - work


def line(folder: Path, case: Case, seconds: float) -> str:
    """Run one case."""
    meter, (path,) = Meter(), folder.glob(case.property)
    if case.inside is not None:
        TACTICS[USUAL] = replace(TACTICS[USUAL], inside=case.inside)
    result = verif.verify(folder / case.network, path, timeout=seconds, on_event=meter)
    done, wall, work = meter.spans
    rates = [done / max(part, 1e-9) for part in (wall, work)]
    return (
        f"{case.name:<16}{result.verdict.name:<10}{done:>10}{wall:>8.1f}{rates[0]:>12.0f}{rates[1]:>18.0f}"
        f"{case.target:>9}{rates[0] / case.target:>8.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="sub-problems per second, beside the targets")
    parser.add_argument("folder", type=Path, help="the folder of the families")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each case")
    parser.add_argument("--only", default="", metavar="NAME", help="cases whose names contain this")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    titles = f"{'case':<16}{'verdict':<10}{'done':>10}{'s':>8}{'a second':>12}{'a processor s':>18}"
    print(f"{titles}{'target':>9}{'share':>8}")
    for case in CASES:
        if options.only in case.name:
            print(line(options.folder, case, options.seconds), flush=True)


if __name__ == "__main__":
    main()
