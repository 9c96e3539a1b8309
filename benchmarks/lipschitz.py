"""Local Lipschitz bounds of fixed networks, beside auto_LiRPA's Jacobian bounds where a checkout of it is given.

    python benchmarks/lipschitz.py FOLDER [--peer PATH] [--only NAME] [--repeat 5] [--threads 1] [--search 60]
        [--conv] [--json FILE]

FOLDER has the networks and centres, lip_*.npz (weights w0, b0, ... of linear layers, x0, and bounds that were kept,
ub_crown_relu_0.1000); the constant is that of each output alone, l_inf on both sides, over a box around x0. Times are
the processor's, medians of --repeat passes that take turns in one process; auto_LiRPA bounds one row after the other,
as its own example does, and all rows at once, as its graph can be made too. "worst row" is the largest ratio of our
bound of a row to the other's. --search closes the bounds in for so many seconds each. --conv bounds the ten rows of a
convolutional network on 3x32x32 (cifar_convsmall) at eps 1/255 in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bounds import about  # noqa: E402
from benchmarks.networks import stored_problems, to_graph  # noqa: E402
from benchmarks.passes import import_peer  # noqa: E402
from benchmarks.peak import forget, status  # noqa: E402
from graphs import Graph  # noqa: E402
from relaxations.sets import Box  # noqa: E402
from verif.jacobians import LocalNorm, flat_rows  # noqa: E402
from verif.lipschitz import Settings, lipschitz  # noqa: E402
from verif.networks import Networks  # noqa: E402
from verif.operator_norms import OperatorNorm  # noqa: E402

NORM = OperatorNorm(math.inf, math.inf)
CONV, RADIUS = "cifar_convsmall_b8", 1 / 255
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """A network, a box around its centre and the bounds of each row that were kept, by name."""

    name: str
    module: nn.Sequential
    centre: Tensor
    eps: float
    kept: dict[str, Tensor]

    @property
    def box(self) -> Box:
        """The box, in float64."""
        centre = self.centre.double()
        return Box(centre - self.eps, centre + self.eps)

    @property
    def graph(self) -> Graph:
        """The network."""
        return to_graph(self.module, tuple(self.centre.shape[1:]))

    def ours(self) -> Run:
        """Upper bounds (S,) of all rows by one pass; everything but the derivative graph is in the time."""
        one = LocalNorm(flat_rows(Networks.of(self.graph).load("")), NORM)
        return lambda: one.rows(self.box)[0]

    def peers(self, *, together: bool) -> Run:
        """auto_LiRPA's, without slope optimisation."""
        from auto_LiRPA import BoundedModule, BoundedTensor
        from auto_LiRPA.jacobian import GradNorm, JacobianOP
        from auto_LiRPA.perturbations import PerturbationLpNorm

        class Rows(nn.Module):
            def __init__(self, module: nn.Sequential) -> None:
                super().__init__()
                self.module, self.norm = module, GradNorm(norm=1)

            def forward(self, x: Tensor) -> Tensor:
                found: Tensor = JacobianOP.apply(self.module(x), x).abs().sum(-1)
                return found

        class Row(Rows):
            def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
                found: Tensor = self.norm(JacobianOP.apply((self.module(x) * mask).sum(1, keepdim=True), x))
                return found

        units = torch.eye(self.module[-1].out_features)[:, None]
        given = (self.centre,) if together else (self.centre, units[0])
        bounded = BoundedModule((Rows if together else Row)(self.module), given, device="cpu")

        def run() -> Tensor:
            x = BoundedTensor(self.centre, PerturbationLpNorm(norm=math.inf, eps=self.eps))
            asked = [(x,)] if together else [(x, unit) for unit in units]
            with torch.no_grad():
                found = [bounded.compute_jacobian_bounds(a, optimize=False, bound_lower=False)[1] for a in asked]
            return torch.cat(found).flatten()

        return run


def cases(folder: Path, only: str) -> list[Case]:
    """All of a folder."""
    found = []
    for path in sorted(folder.glob("lip_*.npz")):
        stored = {key: torch.tensor(value).float() for key, value in np.load(path).items()}
        act = nn.Tanh if path.stem.endswith("tanh") else nn.ReLU
        layers: list[nn.Module] = []
        for k in range(sum(key.startswith("w") for key in stored)):
            layer = nn.Linear(*reversed(stored[f"w{k}"].shape))
            layer.load_state_dict({"weight": stored[f"w{k}"], "bias": stored[f"b{k}"]})
            layers += [layer, act()]
        kept: dict[float, dict[str, Tensor]] = {}
        for key in (key for key in stored if key.startswith("ub_")):
            _, method, _, eps = key.split("_")
            kept.setdefault(float(eps), {})[method] = stored[key].flatten()
        module, centre = nn.Sequential(*layers[:-1]), stored["x0"].reshape(1, -1)
        found += [Case(path.stem, module, centre, eps, bounds) for eps, bounds in kept.items()]
    return [case for case in found if only in case.name]


def one_pass(case: Case, *, peer: bool, repeat: int) -> dict[str, Any]:
    """Seconds and largest bounds of all contestants, and our worst row beside each other one's."""
    runs = {"ours": case.ours()}
    if peer:
        runs |= {"row by row": case.peers(together=False), "rows at once": case.peers(together=True)}
    bounds = {name: run().double() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    found: dict[str, Any] = {
        name: {"seconds": statistics.median(seconds[name]), "bound": float(bounds[name].max())} for name in runs
    }
    others = {name: rows for name, rows in bounds.items() if name != "ours"} | {"kept": case.kept["crown"].double()}
    found["ratio"] = {name: float((bounds["ours"] / rows).max()) for name, rows in others.items()}
    return found


def searched(case: Case, timeout: float) -> dict[str, Any]:
    """The bounds after a search."""
    found = lipschitz(case.graph, case.box, settings=Settings(timeout=timeout))
    return {
        "lower": found.lower,
        "upper": found.upper,
        "first": found.first,
        "ratio": found.upper / found.lower,
        "seconds": found.seconds,
        "domains": found.boxes,
        "kept": float(case.kept["alpha"].max()),
    }


def line(case: Case, found: dict[str, Any]) -> str:
    """A row of the table."""
    parts = [f"{case.name[4:]:26} eps {case.eps:<7g}"]
    for name in ("ours", "row by row", "rows at once"):
        if name in found:
            parts.append(f"{name} {found[name]['bound']:8.4f} in {1e3 * found[name]['seconds']:6.1f} ms")
    parts.append("worst row " + ", ".join(f"{ratio:.5f} of {name}" for name, ratio in found["ratio"].items()))
    if "search" in found:
        s = found["search"]
        parts.append(
            f"search {s['lower']:.4f} to {s['upper']:.4f} ({s['ratio']:.3f}) in {s['seconds']:.1f} s, "
            f"{s['domains']} domains, the peer's optimised one {s['kept']:.4f}"
        )
    return " | ".join(parts)


def conv(folder: Path) -> None:
    """Print seconds, bytes at the peak over what was held before, and the bounds of the convolutional network."""
    (problem,) = stored_problems(folder, CONV)
    centre = (problem.lower[:1] + problem.upper[:1]).double().flatten(1) / 2
    box = Box(centre - RADIUS, centre + RADIUS)
    forget()
    before, started = status("VmRSS"), time.perf_counter()
    found = lipschitz(problem.graph, box, settings=Settings(timeout=0.0))
    figures = {"seconds": time.perf_counter() - started, "bytes": status("VmHWM") - before}
    print(json.dumps(figures | {"lower": found.lower, "upper": found.upper}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="local Lipschitz bounds of fixed networks")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", type=Path, help="checkout of auto_LiRPA to run beside")
    parser.add_argument("--only", default="", help="part of the name")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--search", type=float, default=0.0, help="seconds of branch-and-bound for each")
    parser.add_argument("--conv", action="store_true", help="the convolutional network")
    parser.add_argument("--conv-alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.conv_alone:
        conv(options.folder)
        return
    peer = import_peer(options.peer) if options.peer else None
    record = about(options.threads, peer) | {"cases": {}}
    for case in cases(options.folder, options.only):
        found = one_pass(case, peer=peer is not None, repeat=options.repeat)
        if options.search:
            found["search"] = searched(case, options.search)
        record["cases"][f"{case.name} {case.eps:g}"] = found
        print(line(case, found), flush=True)
    if options.conv:
        words = [str(options.folder), "--conv-alone", "--threads", str(options.threads)]
        script = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), *words]
        record["conv"] = json.loads(subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        print(CONV, record["conv"])
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
