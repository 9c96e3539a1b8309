"""Time certified training steps and their memory, beside plain ones and auto_LiRPA where a checkout of it is given.

    python benchmarks/training.py [--peer PATH] [--only NAME] [--batch 128] [--width 64] [--repeat 5] [--threads 1]
        [--memory] [--json FILE]

A step is: the loss, its gradient and nothing else (what an optimiser does is the same for all). The network is CNN-7 of
Shi et al. (2021) on random 3x32x32 images, with and without batch normalisation, or with 200 classes for loss fusion.
Times are medians of --repeat steps after a warm-up, all contestants in turn in one process; with one thread they are
those of the processor, so that other work on the machine counts little. Memory is the peak of one step in a process of
its own. `loss` and `norm` (of the gradient) say that both tools do the same work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import verif  # noqa: E402
from benchmarks.bounds import about  # noqa: E402
from benchmarks.passes import import_peer  # noqa: E402
from benchmarks.peak import forget, status  # noqa: E402
from verif.training import IBP, CrownIBP, FusedCrownIBP  # noqa: E402

RADIUS = 2 / 255
LOSSES: dict[str, Any] = {"ibp": IBP(), "crown-ibp": CrownIBP(), "fused": FusedCrownIBP()}
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """A network and the loss of its steps."""

    name: str
    method: str
    classes: int = 10
    normed: bool = True


CASES = [
    Case("ibp", "ibp"),
    Case("ibp without batch norm", "ibp", normed=False),
    Case("crown-ibp", "crown-ibp"),
    Case("crown-ibp without batch norm", "crown-ibp", normed=False),
    Case("fused", "fused"),
    Case("fused, 200 classes", "fused", classes=200),
]


def cnn7(width: int, classes: int, normed: bool) -> nn.Sequential:
    """CNN-7: five convolutions, two linear layers."""
    layers: list[nn.Module] = []
    before = 3
    for channels, stride in ((width, 1), (width, 1), (2 * width, 2), (2 * width, 1), (2 * width, 1)):
        layers.append(nn.Conv2d(before, channels, 3, stride, 1))
        layers += [nn.BatchNorm2d(channels), nn.ReLU()] if normed else [nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * 256, 512), nn.ReLU(), nn.Linear(512, classes))


@dataclass(frozen=True)
class Step:
    """One step of a case; every contestant starts from the same weights and images."""

    case: Case
    batch: int
    width: int

    def build(self) -> tuple[nn.Sequential, Tensor, Tensor]:
        """The module, images and labels."""
        torch.manual_seed(0)
        module = cnn7(self.width, self.case.classes, self.case.normed)
        verif.training.initialise(module)
        x, labels = torch.rand(self.batch, 3, 32, 32), torch.randint(self.case.classes, (self.batch,))
        return module, x, labels

    def plain(self) -> Run:
        """A training step without bounds."""
        module, x, labels = self.build()
        return _timed(module, lambda: F.cross_entropy(module(x), labels))

    def ours(self) -> Run:
        """This project's."""
        module, x, labels = self.build()
        compiled, loss = verif.compile(module, x), LOSSES[self.case.method]

        def run() -> Tensor:
            region = verif.around(x, RADIUS, least=0.0, most=1.0)
            found: Tensor = loss(compiled.step(x), region, labels)
            return found

        return _timed(module, run)

    def peers(self) -> Run:
        """auto_LiRPA's, as its own example of training does it (the clean pass is left out where nothing needs it)."""
        from auto_LiRPA import BoundedModule, BoundedTensor
        from auto_LiRPA.bound_ops import BoundExp
        from auto_LiRPA.perturbations import PerturbationLpNorm
        from auto_LiRPA.wrapper import CrossEntropyWrapper

        module, x, labels = self.build()
        fused = self.case.method == "fused"
        example = (x[:2], torch.zeros(1, dtype=torch.long)) if fused else x[:2]
        wrapped = CrossEntropyWrapper(module) if fused else module
        torch.onnx.register_custom_op_symbolic("aten::gather", _gathers, 9)
        bounded = BoundedModule(wrapped, example, bound_opts={"loss_fusion": True} if fused else {}, device="cpu")
        exponential = next((node for node in bounded._modules.values() if isinstance(node, BoundExp)), None)
        how: dict[str, Any] = {"method": None} if self.case.method == "ibp" else {"method": "backward"}

        def run() -> Tensor:
            lower, upper = (x - RADIUS).clamp(min=0), (x + RADIUS).clamp(max=1)
            inside = BoundedTensor(x, PerturbationLpNorm(norm=float("inf"), x_L=lower, x_U=upper))
            given = (inside, labels) if fused else (inside,)
            if self.case.normed:
                bounded(*given)
            if fused:
                found = bounded.compute_bounds(x=given, IBP=True, bound_lower=False, **how)[1]
                loss: Tensor = (found.log()[:, 0] + exponential.max_input[:, 0]).mean()
                return loss
            margins = verif.margins(labels, self.case.classes)
            low = bounded.compute_bounds(x=given, C=margins, IBP=True, bound_upper=self.case.method == "ibp", **how)[0]
            logits = torch.cat([low.new_zeros(len(low), 1), low], 1)
            return F.cross_entropy(-logits, torch.zeros_like(labels))

        return _timed(bounded, run)


def _gathers(g: Any, x: Any, axis: Any, index: Any, sparse: Any) -> Any:
    """How the peer wants torch.gather to be exported; torch itself now writes another form of it."""
    return g.op("GatherElements", x, index, axis_i=-1)


def _timed(module: nn.Module, loss: Run) -> Run:
    def run() -> Tensor:
        module.zero_grad(set_to_none=True)
        found = loss()
        found.backward()
        grads = [p.grad.norm() for p in module.parameters() if p.grad is not None]
        return torch.stack([found.detach(), torch.stack(grads).norm()])

    module.train()
    return run


def compared(step: Step, *, peer: bool, repeat: int) -> dict[str, Any]:
    """Figures of all contestants, who take turns."""
    runs = {"plain": step.plain(), "ours": step.ours(), **({"peer": step.peers()} if peer else {})}
    found = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(repeat):
        for name, run in runs.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    return {
        name: {"seconds": statistics.median(seconds[name]), "loss": loss.item(), "norm": norm.item()}
        for name, (loss, norm) in found.items()
    }


def line(name: str, sides: dict[str, Any]) -> str:
    """A row of the table."""
    text = f"{name:30} plain {sides['plain']['seconds']:7.3f} s"
    for side in (side for side in ("ours", "peer") if side in sides):
        own = sides[side]
        text += f" | {side} {own['seconds']:7.3f} s, loss {own['loss']:.4f}, norm {own['norm']:.4g}"
        text += f", {own['bytes'] / 1e6:.0f} MB" if "bytes" in own else ""
    if "peer" in sides:
        text += f" | {sides['peer']['seconds'] / sides['ours']['seconds']:.2f} times as fast"
    return text + f", {sides['ours']['seconds'] / sides['plain']['seconds']:.2f} plain steps"


def peak(side: str, options: argparse.Namespace, case: Case) -> int:
    """Bytes that a step takes at its peak, in a process of its own."""
    words = ["--measure", side, "--only", case.name, *(["--peer", str(options.peer)] if options.peer else [])]
    words += [w for key in ("batch", "width", "threads") for w in (f"--{key}", str(getattr(options, key)))]
    script = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), *words]
    return int(subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()[-1])


def measure(run: Run) -> int:
    """The peak of one step in this process, over what it held before."""
    forget()
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="time certified training steps")
    parser.add_argument("--peer", type=Path, help="checkout of auto_LiRPA to run beside")
    parser.add_argument("--only", default="", help="the case of this name, or those of a method")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="measure memory too, each in a process of its own")
    parser.add_argument("--measure", choices=("plain", "ours", "peers"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    peer = import_peer(options.peer) if options.peer else None
    named = [case for case in CASES if options.only in ("", case.name)]
    cases = named or [case for case in CASES if case.method == options.only]
    steps = [Step(case, options.batch, options.width) for case in cases]
    if options.measure:
        print(measure(getattr(steps[0], options.measure)()))
        return
    record = about(options.threads, peer) | {"batch": options.batch, "width": options.width, "cases": {}}
    for step in steps:
        sides = compared(step, peer=bool(peer), repeat=options.repeat)
        if options.memory:
            for side in sides:
                sides[side]["bytes"] = peak("peers" if side == "peer" else side, options, step.case)
        record["cases"][step.case.name] = sides
        print(line(step.case.name, sides), flush=True)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
