"""Finding proofs over signs of ReLU inputs for networks with many inputs (see `verif.checker.signs`).

The search is branch-and-bound with slopes and multipliers of each case (Wang et al. 2021), in float32 on the checker's
own steps and ranges; a leaf counts only when the checker's sweep refutes it.
Shape letters: B cases, U undecided neurons, N one step's numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad

from verif.checker.bounds import Bounds
from verif.checker.claims import Region
from verif.checker.errors import Refused
from verif.checker.network import Array, Network, Step
from verif.checker.signs import LEAF, SLOPES, SignSweep, SignWalk, batch_of, places
from verif.checker.windows import Window
from verif.evidence import MARGIN, Log, Task

FIRST, LATER, RATE = 60, 4, 0.1  # rounds of the root and of its children, and the step of slopes


@dataclass
class Case:
    """Slopes and multipliers (U,) of an open case."""

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
        self.pulls = {at: _pull(step) for at, step in enumerate(network.steps) if step.op in ("dense", "scale")}
        self.shifts = {at: _single(step.shift) for at, step in enumerate(network.steps) if step.shift.size}
        self.lines = {
            at: [_single(a)[0] for a in (held.lower, held.upper, held.shift, held.base)]
            for at, held in bounds.lines.items()
        }
        self.planes = {
            at: [_single(np.stack([a[0] for a in part])) for part in (held.lower, held.upper, (held.base, held.shift))]
            for at, held in bounds.planes.items()
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
            if at in self.pulls:
                held = self.pulls[at](held)
            elif step.op == "pick":
                wide = torch.zeros(count, self.network.steps[step.sources[0]].size)
                held = wide.index_add(1, torch.from_numpy(step.index), held)
            elif step.op == "relu":
                held, shift = self._bent(at, held, cases, costs)
                total = total + shift
            elif at in self.lines:
                low, high, shift, base = self.lines[at]
                minus, plus = held.clamp(max=0), held.clamp(min=0)
                held, total = plus * low + minus * high, total + minus @ shift + plus @ base
            parts = [held] * len(step.sources)
            if at in self.planes:
                lows, highs, (base, shift) = self.planes[at]
                minus, plus = held.clamp(max=0), held.clamp(min=0)
                parts = [plus * low + minus * high for low, high in zip(lows, highs, strict=True)]
                total = total + minus @ shift + plus @ base
            elif step.op == "join":
                parts = list(held.split([self.network.steps[source].size for source in step.sources], 1))
            for source, part in zip(step.sources, parts, strict=True):
                terms[source] = terms[source] + part if source in terms else part
        slopes = terms.get(0, torch.zeros(count, len(self.ends[0])))
        lower = total + slopes.clamp(min=0) @ self.ends[0] + slopes.clamp(max=0) @ self.ends[1]
        return Found(lower, costs)

    def _bent(self, at: int, held: Tensor, cases: Cases, costs: Tensor) -> tuple[Tensor, Tensor]:
        entries, own = self.own[at]
        low, high, shift = (line.expand(len(held), -1) for line in self.lines[at][:3])
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
    """The tree of one clause by one of its rows. `open` says more of the cases on the walk's stack."""

    model: Model
    region: Region
    row: int
    walk: SignWalk
    open: list[Case] = field(default_factory=list)

    def grow(self, log: Log, task: Task) -> None:
        """Split until every leaf is refuted by the checker's own sweep."""
        count = len(self.model.neurons)
        limit, row = float(self.region.beyond[self.row]), _single(self.region.rows[self.row])
        margin = limit + 1e-6 * max(1.0, abs(limit))
        self.open.append(Case(torch.full((count,), 0.5), torch.zeros(count)))
        rounds, size = FIRST, batch_of(self.model.network)
        while self.open:
            task.require_time()
            batch, self.open = self.open[-size:], self.open[:-size]
            signs = torch.from_numpy(np.stack([signs for signs, _ in self.walk.stack[-size:]])).float()
            cases = Cases(
                signs, *(torch.stack([getattr(c, name) for c in batch]) for name in ("slopes", "multipliers"))
            )
            found = self.model.optimised(row, cases, margin, rounds)
            rounds = LATER
            self._write(cases, found, margin, log)

    def _write(self, cases: Cases, found: Found, margin: float, log: Log) -> None:
        """One batch of nodes: leaves where the checker's sweep refutes the case."""
        slopes, multipliers = _stored(cases)
        signs = list(cases.signs.numpy().astype(np.int8))
        leaves = self.walk.leaves(signs, slopes, multipliers)
        low: Array = SignSweep(self.model.bounds, self.region.rows[self.row], leaves).lower()
        refuted = (found.lower > margin).numpy() & (low > float(self.region.beyond[self.row]) + MARGIN)
        nodes = np.full(len(signs), LEAF)
        for index in np.flatnonzero(~refuted).tolist():
            nodes[index] = _neuron(cases.signs[index], found.costs[index])
            case = Case(cases.slopes[index], cases.multipliers[index])
            self.open += [case, Case(case.slopes.clone(), case.multipliers.clone())]
        done = self.walk.take(nodes)
        log.writer.add("C", np.array([len(nodes)]), nodes, slopes[refuted].ravel(), multipliers[refuted].ravel())
        log.count([share for _, share in done])


def by_signs(network: Network, region: Region, log: Log, task: Task) -> None:
    """The nodes of a region."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        bounds = task.bounds(network, region.lower[None], region.upper[None])
        low = bounds.rows(network.output, region.rows).lower[0]
        model = Model(network, bounds)
        gaps = low - region.beyond
        for clause in region.clauses:
            if not clause:
                raise Refused("a clause without conditions cannot be refuted")
            row = max(clause, key=lambda row: gaps[row])
            log.writer.add("S", np.array([row]), model.neurons)
            share = task.share / len(region.clauses)
            SignTree(model, region, row, SignWalk(model.neurons, share)).grow(log, task)


def _neuron(signs: Tensor, costs: Tensor) -> int:
    """The open neuron whose chord costs the bound most."""
    at = int(torch.where(signs == 0, costs, -1.0).argmax()) if len(costs) else 0
    if not len(costs) or signs[at] != 0:
        raise Refused("a case in which every sign is known is not refuted")
    return at


def _single(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _pull(step: Step) -> Callable[[Tensor], Tensor]:
    """What a linear step makes of rows (B, M)."""
    if isinstance(step.matrix, Window):
        window = step.matrix
        kernel, (_, high, wide), (top, left) = _single(window.kernel), window.padded, window.pads[:2]

        def push(rows: Tensor) -> Tensor:
            images = rows.reshape(len(rows), *window.shape)
            images = pad(images, (left, window.pads[3], top, window.pads[2]))
            return conv2d(images, kernel, stride=window.strides, groups=window.groups).flatten(1)

        def pull(rows: Tensor) -> Tensor:
            images = rows.reshape(len(rows), -1, *window.places)
            found = conv_transpose2d(images, kernel, stride=window.strides, groups=window.groups)
            found = pad(found, (0, wide - found.shape[3], 0, high - found.shape[2]))
            return found[:, :, top : top + window.shape[1], left : left + window.shape[2]].flatten(1)

        return push if window.reverse else pull
    matrix = _single(step.matrix)
    return (lambda rows: rows * matrix) if step.op == "scale" else (lambda rows: rows @ matrix)


def _stored(cases: Cases) -> tuple[Array, Array]:
    """Slopes and multipliers (B, U) as a proof holds them; multipliers of open neurons are 0."""
    slopes = np.rint(cases.slopes.numpy() * SLOPES).astype("<u1")
    return slopes, np.where(cases.signs.numpy() != 0, cases.multipliers.numpy(), 0.0).astype("<f4")
