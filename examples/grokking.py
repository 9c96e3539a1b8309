"""Modular addition, learnt late or never: plain cross-entropy against StableMax and the perpendicular gradient.

Without weight decay a network that fits its training samples goes on to lower softmax's cross-entropy by growing its
logits, until float32 rounds the loss and its gradients to 0 and learning stops: test accuracy stalls (Prieto et al.
2025, "Grokking at the Edge of Numerical Stability"). With gradients perpendicular to the weights it goes on to
generalise, within hundreds of steps. (The paper also has StableMax generalise; in 8,000 steps here it does not.)

    python examples/grokking.py --picture grokking.svg
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verif.nn import StableMaxCrossEntropy
from verif.training import perpendicular

Curve = list[tuple[int, float, float]]  # (step, training accuracy, test accuracy)
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": F.cross_entropy,
    "StableMax": StableMaxCrossEntropy(),
    "softmax, perpendicular": F.cross_entropy,
}
COLOURS = {
    "softmax": "#1f2328",
    "StableMax": "#bc4c00",
    "softmax, perpendicular": "#0969da",
}


def sums(p: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs (p * p, 2 p), each number one-hot, their sums modulo p, and a random order of them."""
    a, b = torch.cartesian_prod(torch.arange(p), torch.arange(p)).unbind(1)
    x = torch.cat([F.one_hot(a, p), F.one_hot(b, p)], 1).float()
    return x, (a + b) % p, torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))


def curve(name: str, p: int, steps: int, rate: float, share: float = 0.4, seed: int = 0) -> Curve:
    """Train with full batches and Adam, whose epsilon is small enough that tiny gradients still move the weights."""
    x, labels, order = sums(p, seed)
    train, test = order[: int(share * len(x))], order[int(share * len(x)) :]
    torch.manual_seed(seed)
    width = 200
    module = nn.Sequential(nn.Linear(2 * p, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, p))
    optimiser = torch.optim.Adam(module.parameters(), rate, betas=(0.9, 0.99), eps=1e-25)
    loss_of, seen = LOSSES[name], Curve()
    every = max(1, steps // 60)
    for step in range(steps + 1):
        found = module(x[train])
        if step % every == 0:
            with torch.no_grad():
                right = module(x[test]).argmax(1) == labels[test]
            own = found.argmax(1) == labels[train]
            seen.append((step, float(own.float().mean()), float(right.float().mean())))
        optimiser.zero_grad()
        loss_of(found, labels[train]).backward()
        if name.endswith("perpendicular"):
            perpendicular(module.parameters())
        optimiser.step()
    return seen


def picture(curves: dict[str, Curve]) -> str:
    """Test accuracy (lines) and training accuracy (dots) by step, as SVG."""
    left, top, width, height = 60, 30, 420, 200
    last = max(curve[-1][0] for curve in curves.values())

    def points(curve: Curve, column: int) -> str:
        return " ".join(f"{left + width * p[0] / last:.0f},{top + height * (1 - p[column]):.1f}" for p in curve)

    text = '<text x="{}" y="{}" text-anchor="{}">{}</text>'.format
    parts = [text(left + width / 2, 18, "middle", "accuracy on sums not seen (dots: on those seen)")]
    for row, (name, own) in enumerate(curves.items()):
        line = f'stroke="{COLOURS[name]}" fill="none" stroke-width="2"'
        parts.append(f'<polyline points="{points(own, 1)}" {line} stroke-dasharray="1 5" opacity="0.6"/>')
        parts.append(f'<polyline points="{points(own, 2)}" {line}/>')
        y = top + 20 + 20 * row
        parts.append(f'<circle cx="{left + width + 20}" cy="{y - 4}" r="4" fill="{COLOURS[name]}"/>')
        parts.append(text(left + width + 30, y, "start", name))
    parts += [text(left - 6, top + 5, "end", "100 %"), text(left - 6, top + height, "end", "0 %")]
    parts += [text(left, top + height + 20, "middle", "0"), text(left + width, top + height + 20, "middle", last)]
    parts.append(text(left + width / 2, top + height + 20, "middle", "steps"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 220} {top + height + 34}"'
    head += ' font-family="sans-serif" font-size="13">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"


def main() -> None:
    """Train each way in turn; print accuracies, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modulus", type=int, default=59)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rate", type=float, default=0.005)
    parser.add_argument("--names", nargs="+", choices=list(LOSSES), default=list(LOSSES))
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    curves = {}
    for name in options.names:
        curves[name] = curve(name, options.modulus, options.steps, options.rate)
        step, train, test = curves[name][-1]
        print(
            f"{name:26} after {step} steps: {100 * train:5.1f} % of sums seen, {100 * test:5.1f} % of others",
            flush=True,
        )
    if options.picture is not None:
        options.picture.write_text(picture(curves), encoding="utf-8")


if __name__ == "__main__":
    main()
