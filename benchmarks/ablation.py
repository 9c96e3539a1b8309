"""What each lever of the search is worth: fixed instances, with all levers and without each of them.

    python benchmarks/ablation.py FOLDER [--seconds 20] [--lever NAME] [--csv FILE]

FOLDER holds the families. Levers are taken out here, from the outside; the tool has no options for it. Times and limits
are processor seconds of one thread (`time.monotonic` counts those here), so that other work does not count.
An instance whose search never comes to a lever's code is not run again without it: its row is the first one's.
With --csv, levers that are already in the file are not run again.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if __name__ == "__main__":
    patch("time.monotonic", time.process_time).start()  # before verif keeps it

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import verif  # noqa: E402
from relaxations.kernels import build, library  # noqa: E402
from relaxations.kernels.entries import Entries  # noqa: E402
from verif.alongside import AFTER  # noqa: E402
from verif.bounds import NO_ROUNDS, Rounds  # noqa: E402
from verif.signs import SignSearch  # noqa: E402
from verif.tactics import Tactic  # noqa: E402
from verif.verify import Run  # noqa: E402

INSTANCES = (
    ("acasxu", "ACASXU_run2a_1_1_batch_2000", "prop_3"),
    ("acasxu", "ACASXU_run2a_1_9_batch_2000", "prop_7"),
    ("acasxu", "ACASXU_run2a_2_3_batch_2000", "prop_2"),
    ("acasxu", "ACASXU_run2a_4_5_batch_2000", "prop_10"),
    ("reach_prob_density", "robot", "robot_7"),
    ("tllverifybench", "tllBench_n=2_N=M=16_m=1_instance_1_2", "property_N=16_2"),
    ("vit", "pgd_2_3_16", "pgd_2_3_16_6275"),
    ("mnist_fc", "mnist-net_256x2", "prop_10_0.05"),
    ("mnist_fc", "mnist-net_256x4", "prop_7_0.03"),
    ("mnist_fc", "mnist-net_256x4", "prop_8_0.05"),
    ("mnist_fc", "mnist-net_256x4", "prop_0_0.05"),
    ("oval21", "cifar_base_kw", "cifar_base_kw-img2578-eps0.021176470588235297"),
    ("oval21", "cifar_base_kw", "cifar_base_kw-img3568-eps0.030457516339869282"),
    ("cifar10_resnet", "resnet_2b", "prop_47_eps_0.008"),
    ("marabou_cifar10", "cifar10_small", "networkcifar10_small_index1783_eps0.012_target9_orig8"),
    ("verivital", "Convnet_avgpool", "prop_7_0.04"),
    ("sri_resnet_a", "resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1", "cifar10_spec_idx_1864_eps_0.00350"),
)
PINNED = 1e-6  # of a slope's range that is left: none at all would say that the neuron has its sign


@dataclass(frozen=True)
class Row:
    """What came of one instance without one lever."""

    lever: str
    family: str
    network: str
    property: str
    verdict: str
    wrong: bool
    seconds: float
    done: int


def patched(changes: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Attributes by their dotted names."""
    stack = ExitStack()
    for name, value in changes.items():
        stack.enter_context(patch(name, value))
    return stack


def pinned(make: Callable[..., Entries]) -> Callable[..., Entries]:
    """Lists of entries whose lower lines keep their slopes."""

    def made(*arguments: Any, **options: Any) -> Entries:
        entries = make(*arguments, **options)
        if len(entries.lines) != 6:
            return entries
        slope, least, most = entries.lines[0], *entries.lines[4:]
        free, low = least < most, torch.where(slope < PINNED, slope, slope - PINNED)
        ends = torch.where(free, low, least), torch.where(free, low + PINNED, most)
        return replace(entries, lines=(*entries.lines[:4], *ends))

    return made


def fixed_slopes() -> AbstractContextManager[Any]:
    """One slope for each lower line."""
    last = Rounds(0, 1)
    return patched(
        {
            "verif.bab.in_force": lambda *_: Tactic(first=((0, 0),), inside=(0, 0)),
            "verif.signs.ROOT": last,
            "verif.values.ROOT": NO_ROUNDS,
            "verif.values.INSIDE": NO_ROUNDS,
            "verif.bounds.tiles.Entries.of": pinned(Entries.of),
        }
    )


@contextmanager
def no_multipliers() -> Iterator[None]:
    """A library that leaves the multipliers of signs at 0, built for it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(build.HERE / "native", Path(folder) / "native")
        source = Path(folder) / "native" / "cases.cpp"
        text = source.read_text()
        assert "MULTIPLIER = 5;" in text
        source.write_text(text.replace("MULTIPLIER = 5;", "MULTIPLIER = 0;"))
        with patch.object(build, "HERE", Path(folder)):
            made, why = build.compile_all()
            assert made, why
            library.native.cache_clear()
            assert library.native().library is not None
            yield
        library.native.cache_clear()


def first_candidate(best: Callable[..., Any]) -> Callable[..., Any]:
    """The neuron of the best estimate is split."""
    return lambda self, sweeps, batch, slot, entry: best(self, sweeps, batch, slot[:, :1], entry[:, :1])


def later_attack(attack: Callable[..., Any]) -> Callable[..., Any]:
    """No descent before the first bounds."""
    return lambda self, search, steps: attack(self, search, steps) if search.done else None


def unclipped(self: Any, domains: Any, result: Any) -> tuple[Any, Tensor]:
    """Boxes as they are."""
    return domains, torch.ones(len(domains), dtype=torch.bool)


NONE = "none taken out"
LEVERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    NONE: lambda: patched({}),
    "optimised slopes": fixed_slopes,
    "split multipliers": no_multipliers,
    "clipping": lambda: patched({"verif.bab.Search.clip": unclipped}),
    "exact solver": lambda: patched({"verif.alongside.Alongside.turn": lambda self: iter(())}),
    "trial bounds": lambda: patched(
        {"verif.signs.SignSearch._best": first_candidate(SignSearch._best), "verif.values.CANDIDATES": 1}
    ),
    "falsifier first": lambda: patch.object(Run, "_attack", later_attack(Run._attack)),
    "tightened intervals": lambda: patched({"verif.refined.RefinedSearch._values": lambda self: []}),
    "hulls of patches": lambda: patched({"verif.hulls.first_relu": lambda graph: None}),
}
SIGNS = {"mnist_fc", "oval21", "cifar10_resnet"}
REACH: dict[str, Callable[[Row], bool]] = {
    "split multipliers": lambda row: row.family in SIGNS,
    "clipping": lambda row: row.family in {"acasxu", "reach_prob_density", "tllverifybench"},
    "exact solver": lambda row: row.seconds > AFTER,
    "trial bounds": lambda row: row.family in {*SIGNS, "vit"},
    "tightened intervals": lambda row: row.family in SIGNS,
    "hulls of patches": lambda row: row.family == "verivital",
}


def without(lever: str, folder: Path, first: Mapping[tuple[str, str, str], Row], seconds: float) -> Iterator[Row]:
    """Rows of the instances without a lever; `first` are those with all of them."""
    with LEVERS[lever]():
        for instance in INSTANCES:
            held = first.get(instance)
            if held is not None and not REACH.get(lever, lambda row: True)(held):
                yield replace(held, lever=lever)
            else:
                yield solve(folder, lever, instance, seconds)


def solve(folder: Path, lever: str, instance: tuple[str, str, str], seconds: float) -> Row:
    """Run one instance."""
    family, network, name = instance
    begun = time.process_time()
    model, property = folder / family / "onnx" / f"{network}.onnx", folder / family / "vnnlib" / f"{name}.vnnlib"
    result = verif.verify(model, property, timeout=seconds)
    with (folder / family / "expected.csv").open() as file:
        pairs = ((f"onnx/{network}.onnx", f"vnnlib/{name}.vnnlib", line) for line in csv.DictReader(file))
        (expected,) = (line["expected"] for m, p, line in pairs if (line["onnx"], line["vnnlib"]) == (m, p))
    said = {"HOLDS": "unsat", "VIOLATED": "sat"}.get(result.verdict.name, "")
    spent = time.process_time() - begun
    return Row(lever, *instance, result.verdict.name, said not in ("", expected), round(spent, 2), result.domains)


def table(rows: Sequence[Row], seconds: float) -> str:
    """A line for each lever; what is open counts with the limit."""
    lines = ["| lever taken out | solved | wrong | seconds | sub-problems | open |", "|---|---|---|---|---|---|"]
    for lever in dict.fromkeys(row.lever for row in rows):
        part = [row for row in rows if row.lever == lever]
        open_ = [row for row in part if row.verdict not in ("HOLDS", "VIOLATED")]
        spent = sum(seconds if row in open_ else row.seconds for row in part)
        names = ", ".join(f"{row.family} {row.property}" for row in open_) or "-"
        lines.append(
            f"| {lever} | {len(part) - len(open_)}/{len(part)} | {sum(row.wrong for row in part)} | {spent:.1f} "
            f"| {sum(row.done for row in part)} | {names} |"
        )
    return "\n".join(lines)


def stored(path: Path | None) -> list[Row]:
    """Rows of an earlier run."""
    if path is None or not path.exists():
        return []
    with path.open(newline="") as file:
        return [Row(*line[:5], line[5] == "True", float(line[6]), int(line[7])) for line in csv.reader(file)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="what each lever of the search is worth")
    parser.add_argument("folder", type=Path, help="the folder of the families")
    parser.add_argument("--seconds", type=float, default=20.0, help="processor seconds for each instance")
    parser.add_argument("--lever", choices=LEVERS, help="this one only")
    parser.add_argument("--csv", type=Path, help="append rows to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = stored(options.csv)
    for lever in [options.lever] if options.lever else LEVERS:
        if any(row.lever == lever for row in rows):
            continue
        first = {(row.family, row.network, row.property): row for row in rows if row.lever == NONE}
        for row in without(lever, options.folder, first, options.seconds):
            rows.append(row)
            print(*vars(row).values(), sep="  ", flush=True)
        if options.csv:
            with options.csv.open("a", newline="") as file:
                csv.writer(file).writerows(vars(row).values() for row in rows if row.lever == lever)
    print(table(rows, options.seconds))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
