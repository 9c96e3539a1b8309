"""Softmax and StableMax: how tight their bounds are beside published ones, how often a peer's are violated, and time.

    python benchmarks/softmax.py [--boxes 200] [--peer PATH] [--seed 0] > docs/softmax.md

Tightness is the mean gap between a linear bound and the function over random boxes of 10 logits, one output each. With
`--peer` (a checkout of auto_LiRPA) its linear bounds of softmax, and its claims for networks softmax(x) - G x, are
sampled beside ours. Time is that of pulling rows of 64 entries back through softmax beside computing softmax on them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import shares  # noqa: E402
from benchmarks.passes import import_peer  # noqa: E402
from graphs import Graph, GraphBuilder  # noqa: E402
from relaxations import RULES, Interval  # noqa: E402
from relaxations.sets import Box  # noqa: E402
from verif import bounds  # noqa: E402

WIDTHS = (0.1, 1.0, 5.0, 20.0, 100.0)
PEER_WIDTHS = (5.0, 10.0, 20.0, 40.0)
LOGITS = 10
TOLERANCE = 1e-4  # of a violation, far above the rounding of float32


def picked(x: Interval, random: torch.Generator) -> Tensor:
    """The output of each box (B, 1) whose gap counts: the largest in every third box, else a random one."""
    count, size = x.lower.shape
    largest = (x.lower + x.upper).argmax(1)
    return torch.where(
        torch.arange(count) % 3 == 0, largest, torch.randint(size, (count,), generator=random)
    ).unsqueeze(1)


def tightness(op: str, rules: Mapping[str, shares.Rule], count: int, seed: int) -> list[str]:
    """Rows of a table: mean gaps above and below by width, and the share of outputs where ours is the narrowest."""
    lines = ["| W | side | " + " | ".join(rules) + " | never wider |", "|---" * (len(rules) + 3) + "|"]
    for width in WIDTHS:
        random = torch.Generator().manual_seed(seed)
        x = shares.boxes(count, LOGITS, width, random)
        mean, found = shares.mean_value(op, x, random, 2000), {name: rule(x) for name, rule in rules.items()}
        chosen = picked(x, random)
        narrow = found["ours"].width <= torch.stack([v.width for v in found.values()]).amin(0) * (1 + 1e-9) + 1e-12
        gaps = {
            "above": {n: v.upper - mean for n, v in found.items()},
            "below": {n: mean - v.lower for n, v in found.items()},
        }
        for side, by_rule in gaps.items():
            cells = " | ".join(f"{float(gap.gather(1, chosen).mean()):.3g}" for gap in by_rule.values())
            lines.append(f"| {width:g} | {side} | {cells} | {100 * float(narrow.double().mean()):.1f} % |")
    return lines


class Violations(NamedTuple):
    """Boxes whose bound is exceeded by more than the tolerance, and the worst excess."""

    boxes: int
    worst: float

    @classmethod
    def of(cls, excess: Tensor) -> Violations:
        """From the largest excess of each box."""
        return cls(int((excess > TOLERANCE).sum()), float(excess.amax().clamp(min=0)))

    def __str__(self) -> str:
        return f"{self.boxes} ({self.worst:.2g})"


def sampled(slopes: Tensor, bias: Tensor, x: Interval, random: torch.Generator) -> Violations:
    """How far softmax rises above upper lines (B, K, K), (B, K), at 400 points of each box, half of them corners."""
    excess = torch.full_like(x.lower[:, 0], -torch.inf)
    for number in range(400):
        t = torch.rand(x.lower.shape, generator=random).double()
        point = x.lower + (t.round() if number % 2 else t) * x.width
        line = (slopes @ point.unsqueeze(-1)).squeeze(-1) + bias
        excess = torch.maximum(excess, (point.softmax(-1) - line).amax(1))
    return Violations.of(excess)


class Softmax(nn.Module):
    """softmax(x) - G x between linear layers, as the peer takes it."""

    def __init__(self, matrix: Tensor | None = None) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(LOGITS, LOGITS), nn.Linear(LOGITS, LOGITS)
        self.matrix = nn.Linear(LOGITS, LOGITS, bias=False) if matrix is not None else None
        for layer in (self.first, self.last):
            layer.weight.data, layer.bias.data = torch.eye(LOGITS), torch.zeros(LOGITS)
        if self.matrix is not None and matrix is not None:
            self.matrix.weight.data = matrix

    def forward(self, x: Tensor) -> Tensor:
        """The value."""
        z = self.first(x)
        y = self.last(torch.softmax(z, -1))
        return y if self.matrix is None else y - self.matrix(z)


def graph_of(matrix: Tensor) -> Graph:
    """softmax(x) - G x as a graph in float32."""
    builder = GraphBuilder()
    x = builder.input("x", (LOGITS,))
    share = builder.add("softmax", [x], attrs={"axis": 0})
    moved = builder.add("linear", [x], {"weight": matrix.double()})
    return builder.build([builder.add("sub", [share, moved])]).to(torch.float32)


def peer_lines(auto: Any, x: Interval) -> tuple[Tensor, Tensor]:
    """The peer's upper lines of softmax over float32 boxes: slopes (B, K, K) and biases (B, K)."""
    module = auto.BoundedModule(Softmax(), torch.zeros(1, LOGITS), device="cpu")
    need = {module.output_name[0]: {module.input_name[0]}}
    with torch.no_grad():
        *_, found = module.compute_bounds(x=(_region(auto, x),), method="CROWN", return_A=True, needed_A_dict=need)
    lines = found[module.output_name[0]][module.input_name[0]]
    return lines["uA"].double(), lines["ubias"].double()


def _region(auto: Any, x: Interval) -> Any:
    from auto_LiRPA.perturbations import PerturbationLpNorm

    region = PerturbationLpNorm(norm=float("inf"), x_L=x.lower, x_U=x.upper)
    return auto.BoundedTensor((x.lower + x.upper) / 2, region)


def our_lines(x: Interval) -> tuple[Tensor, Tensor]:
    """The same of our rule: pulled rows of -1, negated."""
    rows = -torch.eye(LOGITS).expand(len(x.lower), LOGITS, LOGITS)
    (slopes,), bias = RULES["softmax"].relax(shares.node("softmax", LOGITS), [x]).pull(rows)
    return -slopes.double(), -bias.double()


def claims(auto: Any, matrices: Tensor, x: Interval, random: torch.Generator) -> tuple[Violations, Violations]:
    """Output bounds of networks softmax(x) - G x, G the peer's own lines, against 4000 points: the peer's and ours."""
    excess = []
    for number, matrix in enumerate(matrices):
        box = Interval(x.lower[number : number + 1], x.upper[number : number + 1])
        module = auto.BoundedModule(Softmax(matrix), torch.zeros(1, LOGITS), device="cpu")
        with torch.no_grad():
            _, theirs = module.compute_bounds(x=(_region(auto, box),), method="CROWN")
            rows = -torch.eye(LOGITS).unsqueeze(0)
            ours = -bounds.crown(graph_of(matrix), Box(*box), rows)
        t = torch.rand(4000, LOGITS, generator=random)
        t[::2] = t[::2].round()
        point = (box.lower + t * box.width).double()
        most = (point.softmax(-1) - point @ matrix.double().T).amax(0)
        excess.append(torch.stack([(most - bound.double()).amax() for bound in (theirs[0], ours[0])]))
    theirs, ours = torch.stack(excess).unbind(1)
    return Violations.of(theirs), Violations.of(ours)


def against_peer(checkout: Path, count: int, seed: int) -> list[str]:
    """Rows of a table of violations."""
    name = import_peer(checkout)
    import auto_LiRPA as auto

    head = ["W", f"lines of {name}", "our lines", f"outputs of {name}, of 20", "our outputs, of 20"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for width in PEER_WIDTHS:
        random = torch.Generator().manual_seed(seed)
        x = Interval(*(end.float() for end in shares.boxes(count, LOGITS, width, random)))
        wide = Interval(x.lower.double(), x.upper.double())
        theirs = peer_lines(auto, x)
        cells = [sampled(*theirs, wide, random), sampled(*our_lines(x), wide, random)]
        cells += claims(auto, theirs[0][:20].float(), Interval(x.lower[:20], x.upper[:20]), random)
        lines.append(f"| {width:g} | {' | '.join(map(str, cells))} |")
    return lines


def times(size: int = 64, rows: int = 1024, repeat: int = 200) -> tuple[float, float]:
    """Median seconds of softmax forward and of pulling the same rows back, one after the other each time."""
    random = torch.Generator().manual_seed(0)
    x, values = torch.randn(1, size, generator=random), torch.randn(1, rows, size, generator=random)
    relaxation = RULES["softmax"].relax(shares.node("softmax", size), [Interval(x - 0.3, x + 0.3)])
    seconds: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for _ in range(repeat):
            for run, found in zip((lambda: values.softmax(-1), lambda: relaxation.pull(values)), seconds, strict=True):
                started = time.perf_counter()
                run()
                found.append(time.perf_counter() - started)
    forward, pulled = (statistics.median(found[repeat // 10 :]) for found in seconds)
    return forward, pulled


HEAD = f"""<!-- made by benchmarks/softmax.py; do not edit -->
# How tight the bounds of softmax and StableMax are

Mean over a box of (bound above - function) and (function - bound below), over random boxes of {LOGITS} logits: centres
N(0, 2), widths W times U(.2, 1). One output of each box counts, the largest in every third. Linear bounds touch at the
midpoint, where one of them has its mean gap. "Never wider": outputs where ours is the narrowest of the row's, or equal.
"""
ABOUT = {
    "softmax": """
`constant` is the exact interval; `composed` exponential, sum, reciprocal and product, each relaxed on its own, the best
of three mixtures of McCormick's planes; `differences` 1 over the sum of lines of exp(x_j - x_i); `ER` and `LSE` are of
Wei et al. (2023, arXiv 2303.01713); `ours` is in `relaxations/softmax.py`.
""",
    "stablemax": """
`LSE of log s` is LSE on lines of log s. B, C and D are in `relaxations/stablemax.py`; `ours` takes, for every output,
the best of them.
""",
}
PEER = """
## Boxes of which a claim is violated

Lines are sampled at 400 points of each of {boxes} boxes, outputs of networks softmax(x) - G x, where G are the peer's
own lines, at 4000 points of each of 20: boxes where the function is more than {tolerance:g} above what was claimed (and
by how much at most).

Ours are also held to a law on a million boxes (2 to 1000 entries, widths 1e-7 to 1e4, tied, masked, one-hot; float32
and float64; softmax, StableMax and their logarithms): `pytest -m long tests/laws/test_share_laws.py`. None is violated
beyond rounding, and every number is finite.
"""
TIME = """
## Time

A row pulled through softmax takes {ratio:.1f} times the softmax of one such row: {rows} rows of {size} entries take
{pulled:.0f} us beside {forward:.0f} (float32, one thread, medians).
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="bounds of softmax and StableMax beside published ones")
    parser.add_argument("--boxes", type=int, default=200, help="random boxes for every width")
    parser.add_argument("--peer", type=Path, help="a checkout of auto_LiRPA whose bounds are sampled too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(HEAD)
    for op, rules in (("softmax", shares.SOFTMAX), ("stablemax", shares.STABLEMAX)):
        print(f"## {op}\n{ABOUT[op]}")
        print("\n".join(tightness(op, rules, options.boxes, options.seed)), end="\n\n")
    if options.peer:
        warnings.filterwarnings("ignore")
        print(PEER.strip().format(boxes=options.boxes, tolerance=TOLERANCE), end="\n\n")
        print("\n".join(against_peer(options.peer, options.boxes, options.seed)), end="\n\n")
    size, rows = 64, 1024
    forward, pulled = times(size, rows)
    microseconds = {"forward": forward * 1e6, "pulled": pulled * 1e6}
    print(TIME.strip().format(size=size, rows=rows, ratio=pulled / forward, **microseconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
