"""Finding proofs over signs of ReLU inputs for networks with many inputs (see `verif.checker.signs`).

The search is branch-and-bound with slopes and multipliers of each case (Wang et al. 2021), in float32 on the checker's
own steps and ranges; a leaf counts only when the checker's sweep refutes it.
Shape letters: B cases, U undecided neurons, N one step's numbers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from verif.checker.bounds import Bounds
from verif.checker.claims import Region, above
from verif.checker.errors import Refused
from verif.checker.network import Array, Network
from verif.checker.proof import batch_of
from verif.checker.signs import LEAF, SLOPES, Leaves, SignSweep, places

FIRST, LATER, RATE = 60, 15, 0.1  # rounds of the root and of its children, and the step of slopes


@dataclass
class Case:
    """Signs, slopes and multipliers (U,) of an open node of the tree."""

    node: int
    signs: Tensor
    slopes: Tensor
    multipliers: Tensor


@dataclass
class Cases:
    """A batch of them, each (B, U)."""

    signs: Tensor
    slopes: Tensor
    multipliers: Tensor


@dataclass
class Found:
    """Lower bounds (B,), and what each neuron's chord costs them (B, U)."""

    lower: Tensor
    costs: Tensor


class Model:
    """The checker's steps and root ranges in torch."""

    def __init__(self, network: Network, bounds: Bounds) -> None:
        self.network, self.bounds, self.places = network, bounds, places(network)
        self.own: dict[int, tuple[Tensor, Tensor]] = {}
        numbers: list[int] = []
        for at, number in self.places.items():
            source = bounds.ranges[network.steps[at].sources[0]]
            entries = np.flatnonzero((source.lower[0] < 0) & (source.upper[0] > 0))
            first = len(numbers)
            numbers += [number.start + entry for entry in entries.tolist()]
            self.own[at] = torch.from_numpy(entries), torch.arange(first, len(numbers))
        self.neurons = np.array(numbers, "<i4")
        self.matrices = {at: _single(step.matrix) for at, step in enumerate(network.steps) if step.matrix.size}
        self.shifts = {at: _single(step.shift) for at, step in enumerate(network.steps) if step.shift.size}
        self.lines = {
            at: [_single(a)[0] for a in (held.lower, held.upper, held.shift)] for at, held in bounds.lines.items()
        }
        self.ends = _single(bounds.ranges[0].lower)[0], _single(bounds.ranges[0].upper)[0]

    def bound(self, row: Tensor, cases: Cases) -> Found:
        """Lower bounds of row (M,) . output under the cases' signs."""
        count = len(cases.signs)
        terms: dict[int, Tensor] = {self.network.output: row.expand(count, -1)}
        total, costs = torch.zeros(count), torch.zeros(cases.signs.shape)
        for at in range(self.network.output, 0, -1):
            if at not in terms:
                continue
            step, held = self.network.steps[at], terms.pop(at)
            if at in self.shifts:
                total = total + held @ self.shifts[at]
            if step.op == "dense":
                held = held @ self.matrices[at]
            elif step.op == "scale":
                held = held * self.matrices[at]
            elif step.op == "pick":
                wide = torch.zeros(count, self.network.steps[step.sources[0]].size)
                held = wide.index_add(1, torch.from_numpy(step.index), held)
            elif step.op == "relu":
                held, shift = self._bent(at, held, cases, costs)
                total = total + shift
            parts = [held] * len(step.sources)
            if step.op == "join":
                parts = list(held.split([self.network.steps[source].size for source in step.sources], 1))
            for source, part in zip(step.sources, parts, strict=True):
                terms[source] = terms[source] + part if source in terms else part
        slopes = terms.get(0, torch.zeros(count, len(self.ends[0])))
        lower = total + slopes.clamp(min=0) @ self.ends[0] + slopes.clamp(max=0) @ self.ends[1]
        return Found(lower, costs)

    def _bent(self, at: int, held: Tensor, cases: Cases, costs: Tensor) -> tuple[Tensor, Tensor]:
        entries, own = self.own[at]
        low, high, shift = (line.expand(len(held), -1) for line in self.lines[at])
        signs, where = cases.signs[:, own], entries.expand(len(held), -1)
        open_, active = signs == 0, (signs > 0).float()
        low = low.scatter(1, where, torch.where(open_, cases.slopes[:, own], active))
        high = high.scatter(1, where, torch.where(open_, high.gather(1, where), active))
        shift = shift.scatter(1, where, torch.where(open_, shift.gather(1, where), 0.0))
        plus, minus = held.clamp(min=0), held.clamp(max=0)
        costs[:, own] = -(minus * shift).gather(1, where).detach()
        moved = (plus * low + minus * high).scatter_add(1, where, -signs * cases.multipliers[:, own])
        return moved, (minus * shift).sum(1)

    def optimised(self, row: Tensor, cases: Cases, limit: float, rounds: int) -> Found:
        """The best bounds of some rounds of ascent; `cases` gets the slopes and multipliers that made them."""
        slopes, multipliers = cases.slopes.clone().requires_grad_(), cases.multipliers.clone().requires_grad_()
        ascent = torch.optim.Adam([slopes, multipliers], lr=RATE)
        best = Found(torch.full((len(slopes),), -torch.inf), torch.zeros(slopes.shape))
        for _ in range(rounds):
            found = self.bound(row, Cases(cases.signs, slopes, multipliers))
            better = found.lower.detach() > best.lower
            best.lower = torch.where(better, found.lower.detach(), best.lower)
            best.costs = torch.where(better[:, None], found.costs, best.costs)
            cases.slopes = torch.where(better[:, None], slopes.detach(), cases.slopes)
            cases.multipliers = torch.where(better[:, None], multipliers.detach(), cases.multipliers)
            if bool((best.lower > limit).all()):
                break
            ascent.zero_grad()
            (-found.lower.sum()).backward()
            ascent.step()
            with torch.no_grad():
                slopes.clamp_(0.0, 1.0)
                multipliers.clamp_(min=0.0)
        return best


@dataclass
class SignTree:
    """The tree of one clause by one of its rows."""

    model: Model
    region: Region
    row: int
    deadline: float
    neuron: list[int] = field(default_factory=lambda: [LEAF])
    children: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    kept: dict[int, tuple[Array, Array]] = field(default_factory=dict)

    def grow(self) -> None:
        """Split until every leaf is refuted by the checker's own sweep."""
        count = len(self.model.neurons)
        limit, row = above(self.region.limits[self.row]), _single(self.region.rows[self.row])
        margin = limit + 1e-6 * max(1.0, abs(limit))
        open_ = [Case(0, torch.zeros(count), torch.full((count,), 0.5), torch.zeros(count))]
        rounds, size = FIRST, min(256, batch_of(self.model.network, self.region))
        while open_:
            if time.monotonic() > self.deadline:
                raise Refused("the time was used up before every case was confirmed")
            batch, open_ = open_[-size:], open_[:-size]
            cases = Cases(
                *(torch.stack([getattr(c, name) for c in batch]) for name in ("signs", "slopes", "multipliers"))
            )
            found = self.model.optimised(row, cases, margin, rounds)
            rounds = LATER
            refuted = (found.lower > margin).numpy() & self._confirmed(cases, limit)
            for index, case in enumerate(batch):
                case.slopes, case.multipliers = cases.slopes[index], cases.multipliers[index]
                if refuted[index]:
                    self.kept[case.node] = _stored(case)
                else:
                    open_ += self._split(case, found.costs[index])

    def _confirmed(self, cases: Cases, limit: float) -> Array:
        stored = [_stored(Case(0, *parts)) for parts in zip(cases.signs, cases.slopes, cases.multipliers, strict=True)]
        slopes = np.stack([s for s, _ in stored]).astype(np.float64) / SLOPES
        multipliers = np.stack([m for _, m in stored]).astype(np.float64)
        held = Leaves(self.model.neurons, cases.signs.numpy().astype(np.int8), slopes, multipliers)
        found: Array = SignSweep(self.model.bounds, self.region.rows[self.row], held).lower() > limit
        return found

    def _split(self, case: Case, costs: Tensor) -> list[Case]:
        costs = torch.where(case.signs == 0, costs, -1.0)
        at = int(costs.argmax()) if len(costs) else 0
        if not len(costs) or case.signs[at] != 0:
            raise Refused("a case in which every sign is known is not refuted")
        first = len(self.neuron)
        self.neuron[case.node], self.children[case.node] = at, (first, first + 1)
        found = []
        for offset, sign in ((0, 1.0), (1, -1.0)):
            self.neuron.append(LEAF)
            self.children.append((0, 0))
            signs = case.signs.clone()
            signs[at] = sign
            found.append(Case(first + offset, signs, case.slopes.clone(), case.multipliers.clone()))
        return found

    def arrays(self) -> tuple[Array, Array, Array]:
        """The tree in preorder, and of its leaves the slopes and multipliers."""
        order, stack = [], [0]
        while stack:
            node = stack.pop()
            order.append(node)
            if self.neuron[node] != LEAF:
                stack.extend(reversed(self.children[node]))
        held = [self.kept[node] for node in order if self.neuron[node] == LEAF]
        return (
            np.array(self.neuron, "<i4")[order],
            np.concatenate([slopes for slopes, _ in held]),
            np.concatenate([multipliers for _, multipliers in held]),
        )


def by_signs(network: Network, region: Region, deadline: float) -> tuple[dict[str, Array], int]:
    """The arrays of a region by name without its number, and how many leaves there are."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        bounds = Bounds(network, region.lower[None], region.upper[None])
        low = bounds.rows(network.output, region.rows).lower[0]
        model = Model(network, bounds)
        gaps = low - np.array([float(limit) for limit in region.limits])
        rows, arrays, count = [], {}, 0
        for place, clause in enumerate(region.clauses):
            if not clause:
                raise Refused("a clause without conditions cannot be refuted")
            rows.append(max(clause, key=lambda row: gaps[row]))
            tree = SignTree(model, region, rows[-1], deadline)
            tree.grow()
            for name, array in zip(("tree", "slopes", "multipliers"), tree.arrays(), strict=True):
                arrays[f"{name}.{place}"] = array
            count += int((arrays[f"tree.{place}"] == LEAF).sum())
    return {"row": np.array(rows, "<i4"), "neurons": model.neurons, **arrays}, count


def _single(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _stored(case: Case) -> tuple[Array, Array]:
    """Slopes and multipliers as a proof holds them; multipliers of open neurons are 0."""
    slopes = np.rint(case.slopes.numpy() * SLOPES).astype("<u1")
    return slopes, np.where(case.signs.numpy() != 0, case.multipliers.numpy(), 0.0).astype("<f4")
