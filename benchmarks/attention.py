"""Which attention can be certified: the transformers of `cases/attention` beside each other.

    python benchmarks/attention.py [--images 20] [--timeout 2]     # writes docs/which-attention.md and .svg

Networks are the stored models; all were trained by one recipe. Verdicts are checked: HOLDS by a strong attack (descent
from many random starts), VIOLATED by evaluating the network at its point in float64. One that is wrong makes the exit
code 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import verif  # noqa: E402
from benchmarks.networks import flat  # noqa: E402
from cases.attention.recipe import CLAIMS  # noqa: E402
from cases.digits.recipe import CLASSES, digits  # noqa: E402
from graphs import Graph  # noqa: E402
from graphs.onnx import load  # noqa: E402
from graphs.passes.dead import drop_dead  # noqa: E402
from verif.bounds import Engine  # noqa: E402

RADII, SHOWN, FARTHEST = (0.01, 0.02, 0.04), 0.02, 0.2
LAYERS = {"embedding": "/embed/", "weights": "/attention/weights/", "attention": "/attention/out/", "block": "/Add_2"}
LAYERS |= {"logits": "y"}
CASE = ROOT / "cases" / "attention"
COLOURS = ("#0969da", "#1a7f37", "#bf3989", "#9a6700", "#cf222e")
VERDICTS = ("holds", "violated", "open")


class Sample(NamedTuple):
    """Flat test images (N, 64) with their classes."""

    x: Tensor
    labels: Tensor

    def first(self, count: int) -> Sample:
        """The first ones."""
        return Sample(self.x[:count], self.labels[:count])

    def ball(self, eps: float | Tensor) -> verif.Box:
        """All images within eps, one radius or one for each, with pixels between 0 and 1."""
        half = torch.as_tensor(eps, dtype=self.x.dtype).expand(len(self.x)).unsqueeze(1)
        return verif.Box((self.x - half).clamp(0, 1), (self.x + half).clamp(0, 1))


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


def certified(graph: Graph, images: Sample, eps: float | Tensor) -> Tensor:
    """Whether one pass of linear bounds proves each image's class."""
    with torch.no_grad():
        rows = verif.margins(images.labels, CLASSES).to(images.x)
        return Engine(graph).bound(images.ball(eps), rows).lower.amin(1) > 0


def radii(graph: Graph, images: Sample) -> Tensor:
    """The largest radius that one pass certifies for each image, by bisection."""
    low, high = torch.zeros(len(images.x)), torch.full((len(images.x),), FARTHEST)
    for _ in range(9):
        middle = (low + high) / 2
        good = certified(graph, images, middle)
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return low


def others(y: Tensor, label: int) -> Tensor:
    """By how much the class leads, for outputs (P, 10)."""
    return y[:, label] - y[:, torch.arange(CLASSES) != label].amax(1)


def attacked(graph: Graph, image: Sample, eps: float, starts: int = 200) -> bool:
    """Whether descent from random starts moves one image to another class."""
    ball, label = image.ball(eps), int(image.labels)
    point = ball.lower + torch.rand(starts, ball.lower.shape[1]) * (ball.upper - ball.lower)
    for step in range(40):
        point.requires_grad_()
        lead = others(graph(point)[0], label)
        if bool((lead < 0).any()):
            return True
        (slope,) = torch.autograd.grad(lead.sum(), point)
        point = point.detach() - slope.sign() * eps * 0.3 * 0.9**step
        point = torch.minimum(torch.maximum(point, ball.lower), ball.upper)
    return False


def moved(graph: Graph, image: Sample, eps: float, point: Tensor) -> bool:
    """Whether a point (64,) is near the image and of another class, in float64."""
    near = bool(((point - image.x[0]).abs() <= eps * (1 + 1e-6)).all() and (point >= 0).all() and (point <= 1).all())
    return near and bool(others(graph.to(torch.float64)(point.double().unsqueeze(0))[0], int(image.labels)) < 1e-5)


def widths(graph: Graph, images: Sample) -> dict[str, float]:
    """Mean widths of linear bounds of the last value of every layer."""
    found = {}
    for layer, start in LAYERS.items():
        names = [node.name for node in graph if node.name.startswith(start)]
        if names:
            part = drop_dead(dataclasses.replace(graph, outputs=(names[-1],)))
            eye = torch.eye(part[names[-1]].size)
            with torch.no_grad():
                low, high = Engine(part).bound(images.ball(SHOWN), torch.cat([eye, -eye])).lower.chunk(2, 1)
            found[layer] = float((-high - low).mean())
    return found


def seconds(graph: Graph, images: Sample) -> float:
    """Of one pass, the median of five."""
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        certified(graph, images, SHOWN)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def verdicts(graph: Graph, name: str, images: Sample, timeout: float) -> tuple[dict[float, dict[str, int]], int]:
    """Counts of verdicts by radius, and how many are wrong."""
    wrong, file, counts = 0, CASE / f"{name}.onnx", {eps: dict.fromkeys(VERDICTS, 0) for eps in RADII}
    for eps in RADII:
        for x, label in zip(images.x, images.labels, strict=True):
            one = Sample(x.unsqueeze(0), label.unsqueeze(0))
            asked = verif.robustness(file, x.double().reshape(1, 8, 8), eps, label=int(label), clip=(0.0, 1.0))
            found = verif.verify(file, asked, timeout=timeout)
            said = found.verdict.label
            counts[eps][said if said in VERDICTS else "open"] += 1
            wrong += said == "holds" and attacked(graph, one, eps)
            if found.counterexample is not None:
                wrong += not moved(graph, one, eps, found.counterexample.point)
    return counts, wrong


def measure(name: str, images: int, timeout: float) -> Row:
    """Everything about one network."""
    graph = flat(load(CASE / f"{name}.onnx")).to(torch.float32)
    _, _, x, labels = digits()
    everything = Sample(x.flatten(1), labels)
    with torch.no_grad():
        natural = float((graph(everything.x)[0].argmax(1) == labels).double().mean())
    some = everything.first(images)
    shares = [float(certified(graph, everything.first(100), eps).double().mean()) for eps in RADII]
    counts, wrong = verdicts(graph, name, some, timeout)
    radius, taken = float(radii(graph, some).mean()), seconds(graph, some) / images
    return Row(name, natural, shares, radius, taken, widths(graph, some), counts, wrong)


INTRO = """<!-- made by benchmarks/attention.py; do not edit -->
# Which attention can be certified?

Small networks of 8x8 digits (`cases/attention`: one block, 8 tokens of width 16, 2 heads), trained by one recipe;
the first five differ in nothing but what makes attention weights of queries and keys. `softplus` is LSSA (softplus
shares of normalised queries and keys), `gaussian` SOFT with landmarks and four steps of Newton's iteration,
`sigmoid` sigmoids of scores minus the logarithm of the number of tokens. `experts` is a top-2 mixture of four,
`selector` three Gumbel selectors with fixed noise. One seed each: small differences mean little.

`python benchmarks/attention.py` makes this page again."""
CERTIFIED = """
## Certified radius

Sets are all images within a radius of the test image in every pixel. Accuracy on all test images; share of the
first 100 that one pass of linear bounds certifies, without search; mean over the first {images} of the largest
such radius; time of a pass, one thread.
"""
VERDICT = """
## Verdicts

Of `verify` on {images} images, at most {timeout:g} s each: holds / violated / open (an image classified wrongly is
violated). The last column counts HOLDS that 200 restarts of descent contradict, and VIOLATED whose point is not of
another class when the network is evaluated at it in float64. Times, and what is open at the end of them, are of two
cores that other work shared.
"""
WIDTHS = """
## Width of bounds by layer

Mean width of the linear bounds of all values of a layer, radius {shown:g}, {images} images. Where `weights` are
narrow, they hardly depend on the image: that is easy to certify, and need not be good attention.
"""


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def page(rows: list[Row], images: int, timeout: float) -> str:
    """The page in Markdown."""
    best = ", ".join(f"{row.name} {row.radius:.3f}" for row in sorted(rows, key=lambda row: -row.radius))
    head = ["network", "accuracy", *(f"certified at {eps:g}" for eps in RADII), "mean radius", "ms an image"]
    shares = []
    for row in rows:
        percents = [f"{100 * share:.1f} %" for share in (row.natural, *row.certified)]
        shares.append([row.name, *percents, f"{row.radius:.4f}", f"{1e3 * row.seconds:.1f}"])
    counts = [
        [row.name, *(" / ".join(map(str, row.verdicts[eps].values())) for eps in RADII), str(row.wrong)] for row in rows
    ]
    blocks = [row for row in rows if len(row.widths) == len(LAYERS)]
    layers = [[row.name, *(f"{row.widths[layer]:.3g}" for layer in LAYERS)] for row in blocks]
    lines = [INTRO, CERTIFIED.format(images=images), *table(head, shares), "", f"By radius: {best}."]
    lines += [VERDICT.format(images=images, timeout=timeout)]
    lines += table(["network", *(f"{eps:g}" for eps in RADII), "wrong"], counts)
    lines += [WIDTHS.format(shown=SHOWN, images=images), *table(["network", *LAYERS], layers)]
    return "\n".join([*lines, "", "![mean widths by layer](which-attention.svg)", ""])


def picture(rows: list[Row]) -> str:
    """Mean widths by layer, on a scale of logarithms with a line at every power of ten."""
    blocks = [row for row in rows if len(row.widths) == len(LAYERS)]
    high = torch.tensor([[row.widths[layer] for layer in LAYERS] for row in blocks]).log10()
    low, top = math.floor(float(high.min())), math.ceil(float(high.max()))

    def height(value: float) -> float:
        return 200 - 180 * (value - low) / (top - low)

    shapes = []
    for power in range(low, top + 1):
        y = height(power)
        shapes.append(f'<line x1="60" y1="{y:.1f}" x2="{60 + 90 * (len(LAYERS) - 1)}" y2="{y:.1f}" stroke="#d0d7de"/>')
        shapes.append(f'<text x="52" y="{y + 4:.1f}" text-anchor="end" fill="#57606a">{10.0**power:g}</text>')
    for i, name in enumerate(LAYERS):
        shapes.append(f'<text x="{60 + 90 * i}" y="225" text-anchor="middle" fill="#57606a">{name}</text>')
    names = sorted(range(len(blocks)), key=lambda i: -float(high[i, -1]))
    for place, i in enumerate(names):
        colour = COLOURS[i % len(COLOURS)]
        points = " ".join(f"{60 + 90 * x},{height(v):.1f}" for x, v in enumerate(high[i].tolist()))
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = max(30, height(float(high[names[0], -1]))) + 16 * place
        shapes.append(f'<text x="{70 + 90 * (len(LAYERS) - 1)}" y="{at:.1f}" fill="{colour}">{blocks[i].name}</text>')
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 510 235" font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="510" height="235" fill="#ffffff"/>', *shapes, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description="certified radius, accuracy and widths by normaliser")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds of each verdict")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measure(name, options.images, options.timeout) for name in CLAIMS]
    (ROOT / "docs" / "which-attention.md").write_text(page(rows, options.images, options.timeout))
    (ROOT / "docs" / "which-attention.svg").write_text(picture(rows))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
