"""Which attention can be certified: the transformers of `cases/attention` beside each other.

    python benchmarks/attention.py [--images 20] [--timeout 1]     # writes docs/which-attention.md and .svg

Networks are the stored models; all were trained by one recipe. A strong attack (descent from many random starts) checks
every verdict: an image that it moves to another class and that was certified ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import verif  # noqa: E402
from cases.attention.recipe import CLAIMS, trained  # noqa: E402
from cases.digits.recipe import digits  # noqa: E402
from graphs.passes.dead import drop_dead  # noqa: E402
from verif.bounds import Engine  # noqa: E402

RADII, SHOWN = (0.01, 0.02, 0.04), 0.02
LAYERS = {"embedding": "embed", "weights": "attention.weights", "attention": "attention.out", "logits": "head"}
CASE = ROOT / "cases" / "attention"
COLOURS = ("#0969da", "#1a7f37", "#bf3989", "#9a6700", "#cf222e")


class Row(NamedTuple):
    """What is measured of one network: shares, mean certified radius, seconds, mean widths by layer, verdicts."""

    name: str
    natural: float
    certified: list[float]
    radius: float
    seconds: float
    widths: dict[str, float]
    verdicts: dict[float, dict[str, int]]
    wrong: int


def lowest(step: verif.training.Step, x: Tensor, labels: Tensor, eps: float | Tensor) -> Tensor:
    """The lowest margin's bound of each image."""
    with torch.no_grad():
        half = torch.as_tensor(eps, dtype=x.dtype).expand(len(x)).reshape(-1, 1)
        box = verif.Box((x.flatten(1) - half).clamp(0, 1), (x.flatten(1) + half).clamp(0, 1))
        return step.lower(box, verif.margins(labels, 10), "crown").amin(1)


def radii(step: verif.training.Step, x: Tensor, labels: Tensor) -> Tensor:
    """The largest radius that one pass certifies for each image, by bisection."""
    low, high = torch.zeros(len(x)), torch.full((len(x),), 0.2)
    for _ in range(9):
        middle = (low + high) / 2
        good = lowest(step, x, labels, middle) > 0
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return low


def attacked(net: torch.nn.Module, x: Tensor, label: int, eps: float, starts: int = 200) -> bool:
    """Whether descent from random starts moves one image (1, 1, 8, 8) to another class."""
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    point = low + torch.rand(starts, *x.shape[1:]) * (high - low)
    others = torch.arange(10) != label
    for step in range(40):
        point.requires_grad_()
        y = net(point)
        margin = y[:, label] - y[:, others].amax(1)
        if bool((margin < 0).any()):
            return True
        (slope,) = torch.autograd.grad(margin.sum(), point)
        point = torch.clamp(point.detach() - slope.sign() * eps * 0.3 * 0.9**step, low, high)
    return False


def widths(net: torch.nn.Module, x: Tensor) -> dict[str, float]:
    """Mean widths of linear bounds of the last value of every layer."""
    graph, found = verif.compile(net, x).graph(), {}
    for layer, origin in LAYERS.items():
        names = [node.name for node in graph if node.origin.startswith(origin) and node.op != "transpose"]
        if names:
            part = drop_dead(dataclasses.replace(graph, outputs=(names[-1],)))
            eye = torch.eye(part[names[-1]].size)
            with torch.no_grad():
                low, high = Engine(part).bound(verif.around(x, SHOWN), torch.cat([eye, -eye])).lower.chunk(2, 1)
            found[layer] = float((-high - low).mean())
    return found


def measure(name: str, images: int, timeout: float) -> Row:
    """Everything about one network."""
    net = trained(name)
    _, _, x, labels = digits()
    with torch.no_grad():
        right = net(x).argmax(1) == labels
    step = verif.compile(net, x[:1]).step(x[:1])
    some, own = x[:images], labels[:images]
    begun = time.perf_counter()
    lowest(step, some, own, SHOWN)
    seconds = (time.perf_counter() - begun) / images
    certified = [float((lowest(step, x[:100], labels[:100], eps) > 0).double().mean()) for eps in RADII]
    radius, wrong = float(radii(step, some, own).mean()), 0
    verdicts: dict[float, dict[str, int]] = {}
    file = CASE / f"{name}.onnx"
    for eps in RADII:
        counts = verdicts.setdefault(eps, {"holds": 0, "violated": 0, "open": 0})
        for image, label in zip(some, own.tolist(), strict=True):
            asked = verif.robustness(file, image.double(), eps, label=label, clip=(0.0, 1.0))
            said = verif.verify(file, asked, timeout=timeout).verdict.label
            counts[said if said in counts else "open"] += 1
            wrong += said == "holds" and attacked(net, image[None], label, eps)
    return Row(name, float(right.double().mean()), certified, radius, seconds, widths(net, some), verdicts, wrong)


def page(rows: list[Row], images: int, timeout: float) -> str:
    """The page in Markdown."""
    shares = " | ".join(f"certified at {eps:g}" for eps in RADII)
    lines = ["<!-- made by benchmarks/attention.py; do not edit -->", "# Which attention can be certified?", ""]
    lines += [
        "Small networks of 8x8 digits (`cases/attention`), trained by one recipe; they differ in what makes weights."
    ]
    lines += [
        "`gaussian` is SOFT with landmarks, `softplus` is LSSA. One seed each: small differences mean little.",
        "",
    ]
    lines += [f"Accuracy on all test images, certified accuracy (linear bounds, one pass) on 100, radius on {images}:"]
    lines += ["", f"| network | accuracy | {shares} | mean certified radius | s an image |", "|---" * 7 + "|"]
    for row in rows:
        cells = [f"{100 * v:.1f} %" for v in (row.natural, *row.certified)]
        lines.append(f"| {row.name} | {' | '.join(cells)} | {row.radius:.4f} | {row.seconds:.4f} |")
    lines += ["", f"Verdicts of `verify` on {images} images, at most {timeout:g} s each: holds / violated / open"]
    lines += [
        "(an image classified wrongly is violated). Last column: HOLDS that 200 restarts of descent contradict.",
        "",
    ]
    lines += [f"| network | {' | '.join(f'{eps:g}' for eps in RADII)} | wrong |", "|---" * 5 + "|"]
    for row in rows:
        counts = [" / ".join(str(n) for n in row.verdicts[eps].values()) for eps in RADII]
        lines.append(f"| {row.name} | {' | '.join(counts)} | {row.wrong} |")
    blocks = [row for row in rows if len(row.widths) == len(LAYERS)]
    lines += ["", f"Mean width of linear bounds by layer, radius {SHOWN:g}:", "", f"| network | {' | '.join(LAYERS)} |"]
    lines += ["|---" * (len(LAYERS) + 1) + "|"]
    lines += [f"| {r.name} | {' | '.join(f'{r.widths[layer]:.3g}' for layer in LAYERS)} |" for r in blocks]
    return "\n".join([*lines, "", "![mean widths by layer](which-attention.svg)", ""])


def picture(rows: list[Row]) -> str:
    """Mean widths by layer, on a scale of logarithms."""
    blocks = [row for row in rows if len(row.widths) == len(LAYERS)]
    high = torch.tensor([[row.widths[layer] for layer in LAYERS] for row in blocks]).log10()
    low, top = float(high.min()), float(high.max())
    shapes = []
    for row, values, colour in zip(blocks, high.tolist(), COLOURS, strict=False):
        places = [(60 + 110 * i, 200 - 170 * (v - low) / (top - low)) for i, v in enumerate(values)]
        points = " ".join(f"{a:.0f},{b:.1f}" for a, b in places)
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = 30 + 18 * len(shapes)
        shapes[-1] += f'<text x="410" y="{at}" fill="{colour}">{row.name}</text>'
    shapes += [f'<text x="{60 + 110 * i}" y="225" text-anchor="middle">{name}</text>' for i, name in enumerate(LAYERS)]
    shapes += [f'<text x="4" y="204">{10**low:.2g}</text>', f'<text x="4" y="34">{10**top:.2g}</text>']
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 490 235" font-family="sans-serif" font-size="12">'
    return "\n".join([head, *shapes, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description="certified radius, accuracy and widths by normaliser")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds of each verdict")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measure(name, options.images, options.timeout) for name in CLAIMS]
    (ROOT / "docs" / "which-attention.md").write_text(page(rows, options.images, options.timeout))
    (ROOT / "docs" / "which-attention.svg").write_text(picture(rows))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
