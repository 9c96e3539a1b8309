"""Trees over signs of ReLU inputs: each inner node names a neuron, first half its input at least 0, second at most 0.

Such a tree covers its box whatever it names. Of a leaf the proof holds slopes of lower lines and multipliers: any are
sound. max(z, 0) >= a z for a in [0, 1]; where z >= 0 is known, f >= f - b z for b >= 0, and where z <= 0 f >= f + b z.
Shape letters: L leaves, U neurons that the proof speaks of, as numbers through all ReLUs in the order of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verif.checker.bounds import Bounds, Sweep, dot
from verif.checker.errors import Refused
from verif.checker.lines import Lines, gamma
from verif.checker.network import Array, Network

LEAF = -1
SLOPES = 255  # steps of stored slopes
BATCH = 400_000  # numbers of a batch's largest value


@dataclass(frozen=True)
class Leaves:
    """`neurons` (U,), and of leaves (L, U): signs 1, -1 or 0 (open), slopes within [0, 1], multipliers of 0 or more."""

    neurons: Array
    signs: Array
    slopes: Array
    multipliers: Array

    def __len__(self) -> int:
        return len(self.signs)

    def part(self, first: int, last: int) -> Leaves:
        """Some leaves."""
        own = (array[first:last] for array in (self.signs, self.slopes, self.multipliers))
        return Leaves(self.neurons, *own)


class SignWalk:
    """The open cases of one clause, as signs (U,) and shares of the input set."""

    def __init__(self, neurons: Array, share: float) -> None:
        if len(np.unique(neurons)) != len(neurons):
            raise Refused("a neuron that is named twice")
        self.neurons = neurons
        self.stack = [(np.zeros(len(neurons), np.int8), share)]

    def take(self, tree: Array) -> list[tuple[Array, float]]:
        """The leaves among the last cases; of the others both signs of a neuron are open."""
        first, found = len(self.stack) - len(tree), []
        if first < 0 or not len(tree):
            raise Refused("the tree goes on after its last leaf")
        batch = self.stack[first:]
        del self.stack[first:]
        for (held, share), at in zip(batch, tree.tolist(), strict=True):
            if at == LEAF:
                found.append((held, share))
                continue
            if not 0 <= at < len(held) or held[at]:
                raise Refused("a node that names no neuron, or one whose sign is known")
            for sign in (1, -1):
                child = held.copy()
                child[at] = sign
                self.stack.append((child, share / 2))
        return found

    def leaves(self, signs: list[Array], slopes: Array, multipliers: Array) -> Leaves:
        """Leaves with what a proof says of them: slopes uint8 (L U,), multipliers float32 (L U,)."""
        shape = (len(signs), len(self.neurons))
        if slopes.size != shape[0] * shape[1] or multipliers.size != slopes.size:
            raise Refused("slopes or multipliers that do not fit the tree")
        if not (np.isfinite(multipliers) & (multipliers >= 0)).all():
            raise Refused("a multiplier below 0")
        shares = np.minimum(slopes.reshape(shape).astype(np.float64) / SLOPES, 1.0)
        return Leaves(self.neurons, np.stack(signs), shares, multipliers.reshape(shape).astype(np.float64))


def batch_of(network: Network) -> int:
    """Cases that are bounded at once."""
    return max(1, min(256, BATCH // max(step.size for step in network.steps)))


def places(network: Network) -> dict[int, range]:
    """The numbers of each ReLU step's neurons."""
    found, first = {}, 0
    for at, step in enumerate(network.steps):
        if step.op == "relu":
            found[at] = range(first, first + step.size)
            first += step.size
    return found


class SignSweep(Sweep):
    """A row (M,) of the output under the signs of leaves; `bounds` are of one box."""

    def __init__(self, bounds: Bounds, row: Array, held: Leaves) -> None:
        place = bounds.network.output
        super().__init__(bounds, place, np.broadcast_to(row, (len(held), 1, len(row))))
        self.held, self.numbers = held, places(bounds.network)

    def lower(self) -> Array:
        """Lower bounds (L,)."""
        return self.run(self.bounds.network.output).lower[:, 0]

    def _own(self, at: int) -> tuple[Array, Array]:
        """Which of the proof's neurons belong to a step, and their entries in it."""
        numbers = self.numbers[at]
        own = np.flatnonzero((self.held.neurons >= numbers.start) & (self.held.neurons < numbers.stop))
        return own, self.held.neurons[own] - numbers.start

    def _lines(self, at: int) -> Lines:
        base = self.bounds.lines[at]
        if at not in self.numbers:
            return base
        shape = (len(self.held), base.lower.shape[1])
        lower, upper, shift = (np.broadcast_to(array, shape).copy() for array in (base.lower, base.upper, base.shift))
        own, entries = self._own(at)
        source = self.bounds.ranges[self.bounds.network.steps[at].sources[0]]
        bent = ((source.lower < 0) & (source.upper > 0))[0, entries]
        signs, slopes = self.held.signs[:, own], self.held.slopes[:, own]
        lower[:, entries] = np.where(bent, slopes, lower[:, entries])
        for sign, slope in ((1, 1.0), (-1, 0.0)):
            known = signs == sign
            lower[:, entries] = np.where(known, slope, lower[:, entries])
            upper[:, entries] = np.where(known, slope, upper[:, entries])
            shift[:, entries] = np.where(known, 0.0, shift[:, entries])
        return Lines(lower, np.zeros(shape), upper, shift)

    def _multiplied(self, at: int, sent: Array) -> Array:
        if at not in self.numbers:
            return sent
        own, entries = self._own(at)
        moved = sent.copy()
        moved[:, 0, entries] -= self.held.signs[:, own] * self.held.multipliers[:, own]
        source = self.bounds.network.steps[at].sources[0]
        self.error += gamma(2) * dot(np.abs(moved), self.bounds.ranges[source].size)
        return moved
