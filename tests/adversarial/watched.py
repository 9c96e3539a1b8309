"""Searches seen from inside: points that satisfy what is searched for are in an open sub-problem after every step.

A verdict shows a lost sub-problem only where the search comes to an end, and only if nothing else was left; points show
it at once. Whatever a search does (signs, halves, cuts, tighter intervals), it may never leave a
point out that violates a row: `Watch.lost` names every place where one did. `Watch.met` counts what the searches came
to, so that tests can tell whether all of it was tried.
Shape letters: P points, n inputs, N cases, S rows, D signs of the deepest case, W values of all fronts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import verif.bab
import verif.strategy
from graphs import Graph
from relaxations import Interval
from verif.bab import Progress, Search
from verif.cases import Cases
from verif.domains import Domains
from verif.exact.tree import Tree
from verif.fronts import Front, FrontSearch
from verif.query import Property
from verif.refined import RefinedSearch
from verif.signs import KEPT, LAST_ROUNDS, SignSearch
from verif.values import Halves, ValueSearch

OFF = 1e-7  # by which values may miss an end: far more than rounding does, far less than what is lost by a mistake
STEPS = 12  # of descents towards the ends of values inside a network
Check = Callable[[Any], None]


@dataclass
class Watch:
    """Points (P, n) of a query's regions (P,) that it calls unsafe; what happened to them."""

    points: Tensor
    region: Tensor
    looks: int = 0
    met: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, asked: Property, points: Tensor) -> Watch:
        """Points that are unsafe in every region that they are in."""
        inside = ((asked.lower <= points[:, None]) & (points[:, None] <= asked.upper)).all(2)
        return cls(points, inside.int().argmax(1) if len(points) else torch.zeros(0, dtype=torch.int64))

    def look(self, where: str, needed: Tensor, kept: Tensor) -> None:
        """Which points were to be kept, and which are, bool of one shape."""
        self.looks += int(needed.sum())
        if bool((needed & ~kept).any()):
            self.lost.append(where)

    def watching(self) -> ExitStack:
        """Every search that runs meanwhile is watched."""
        stack, checks = ExitStack(), {Search: _boxes, SignSearch: _signs, ValueSearch: _values, Tree: _tree}
        for owner, check in checks.items():
            stack.enter_context(patch.object(owner, "run", self._stepwise(owner.run, check)))
        stack.enter_context(patch.object(Front, "run", self._tightened(Front.run)))
        for spy in _spies(self):
            stack.enter_context(spy)
        return stack

    def _stepwise(self, run: Callable[..., Iterator[Any]], make: Callable[[Watch, Any], Check]) -> object:
        def watched(search: Any) -> Iterator[Any]:
            check = make(self, search)
            for step in run(search):
                check(step)
                yield step
            check(None)

        return watched

    def _tightened(self, run: Callable[..., Iterator[None]]) -> object:
        def watched(front: Front, seconds: float) -> Iterator[None]:
            yield from run(front, seconds)
            self.met["front"] += 1
            points = torch.cat([self.points, _extremes(front.work)])
            values, held = _at(front.work.engine.graph, points, [front.name]), front.found
            needed = _known(front.work, points) & _within(values, front.ends.held).all(1)
            self.look(f"front {front.name}", needed[:, None].expand_as(values), _within(values, held))

        return watched


def _at(graph: Graph, points: Tensor, names: Iterable[str]) -> Tensor:
    """Values of nodes at points, one after the other, (P, W)."""
    with torch.no_grad():
        found = graph.evaluate({graph.inputs[0]: points.to(torch.float64)}, names := list(names))
    return torch.cat([found[name].flatten(1) for name in names], 1)


def _within(values: Tensor, held: Interval) -> Tensor:
    """Which values (P, W) lie in an interval, where a sign leaves a little room."""
    return (values >= held.lower.flatten() - OFF) & (values <= held.upper.flatten() + OFF + KEPT)


def _known(search: SignSearch, points: Tensor) -> Tensor:
    """Which points are in the part of the box that a search knows of before it begins, (P,)."""
    found = torch.ones(len(points), dtype=torch.bool)
    if isinstance(search, FrontSearch):  # points of others are those of the part
        for name, held in search.ranges.items():
            found &= _within(_at(search.engine.graph, points, [name]), held).all(1)
    return found


def _extremes(search: SignSearch) -> Tensor:
    """Points (S, n) where rows are low: signed gradient steps from the middle of the box."""
    graph, box, rows = search.engine.graph, search.box, search.rows[0]
    points = box.center.expand(len(rows), -1)
    for step in range(STEPS):
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            (gradient,) = torch.autograd.grad((graph(points)[0].flatten(1) * rows).sum(), points)
        moved = points.detach() - (1 - step / STEPS) * box.width * gradient.sign()
        points = moved.maximum(box.lower).minimum(box.upper)
    return points


def _boxes(watch: Watch, search: Search) -> Check:
    """Every point lies in an open box of its region."""

    def check(step: object) -> None:
        held = search.domains
        if search.unresolved or not (step is None or isinstance(step, Progress)):
            return  # or boxes are on their way
        points = watch.points[:, None]
        inside = ((held.lower <= points) & (points <= held.upper)).all(-1)
        kept = (inside & (held.region == watch.region[:, None])).any(1)
        watch.look("boxes", torch.ones_like(kept), kept)

    return check


class _Signs:
    """Points that violate a row and have the base's signs have those of an open case of that row."""

    def __init__(self, watch: Watch, search: SignSearch) -> None:
        self.watch, self.search = watch, search
        front = isinstance(search, FrontSearch)
        points = torch.cat([watch.points, _extremes(search)]) if front else watch.points
        graph, self.start, count = search.engine.graph, dict[str, int](), 0
        kinks = [node for node in graph if node.op == "relu"]
        self.ranges = {node.inputs[0]: slice(0, 0) for node in kinks}
        for name in self.ranges:
            self.ranges[name] = slice(count, count + graph[name].size)
            count += graph[name].size
        self.start = {node.name: self.ranges[node.inputs[0]].start for node in kinks}
        self.values = _at(graph, points, self.ranges)
        below = _at(graph, points, graph.outputs) @ search.rows[0].T <= search.limit - OFF
        inside = ((search.box.lower <= points) & (points <= search.box.upper)).all(1)
        self.needed = below & (inside & _known(search, points))[:, None]

    def agree(self, cases: Cases) -> Tensor:
        """Which points have the signs of which cases, (P, N)."""
        sweep = self.search.engine.tiles.sweep(self.search.engine.output, self.search.box.lower)
        assert sweep is not None
        start = torch.tensor([self.start.get(str(slot.scalar), 0) for slot in sweep.program.slots])
        place = start[cases.slot.clamp(min=0).long()] + cases.entry.clamp(min=0)
        value = self.values[:, place]
        fits = torch.where(cases.active > 0, value >= -OFF, value <= OFF) | (cases.slot < 0)
        return fits.all(-1)

    def __call__(self, _: object) -> None:
        search = self.search
        left = search.open.joined(search.stuck)
        kept = torch.zeros_like(self.needed)
        if len(left):
            kept = (self.agree(left)[:, :, None] & (left.row[:, None] == torch.arange(kept.shape[1]))).any(1)
        kind = "front's signs" if isinstance(search, FrontSearch) else "signs"
        self.watch.look(kind, self.needed, kept)
        some = self.needed.any(1)
        for name, held in search.ranges.items():
            value = self.values[some, self.ranges[name]]
            self.watch.look("ranges", torch.ones_like(value, dtype=torch.bool), _within(value, held))


def _signs(watch: Watch, search: SignSearch) -> Check:
    note = watch.met
    note["front's signs" if isinstance(search, FrontSearch) else "signs"] += 1
    note["signs of parts"] += search.base is not None
    note["signs at random"] += search.chance is not None
    note["several rows"] += search.rows.shape[1] > 1 and not isinstance(search, FrontSearch)
    return _Signs(watch, search)


def _values(watch: Watch, search: ValueSearch) -> Check:
    """Points that violate a row have values within the limits of an open case of that row."""
    graph, entries = search.engine.graph, search.entries
    values = _at(graph, watch.points, entries.names)
    needed = _at(graph, watch.points, graph.outputs) @ search.rows[0].T <= search.limit - OFF
    watch.met["values at random"] += search.chance is not None

    def agree(cases: Halves) -> Tensor:
        value = values[:, cases.entry.clamp(min=0)]
        fits = (value >= cases.low - OFF) & (value <= cases.high + OFF) | (cases.entry < 0)
        return fits.all(-1)

    def check(_: object) -> None:
        if search.unresolved:
            return
        kept = (agree(search.open)[:, :, None] & (search.open.row[:, None] == torch.arange(needed.shape[1]))).any(1)
        watch.look("values", needed, kept)

    return check


def _tree(watch: Watch, tree: Tree) -> Check:
    """Points that satisfy a conjunction have the signs of an open node."""
    points = watch.points.double().numpy()
    held = [tree.program.values(point) for point in points]
    inside = [bool((tree.program.lower - OFF <= v).all() and (v <= tree.program.upper + OFF).all()) for v in held]
    needed = [now and tree._excess(x) <= -OFF for x, now in zip(points, inside, strict=True)]
    watch.met["exact"] += 1

    def check(_: object) -> None:
        if tree.unresolved:
            return
        watch.met["exact signs"] += len(tree.open) > 1
        fronts = [v[tree.program.before] for v in held]
        kept = [any(bool(((node.sign == 0) | (node.sign * v >= -OFF)).all()) for *_, node in tree.open) for v in fronts]
        watch.look("exact", torch.tensor(needed, dtype=torch.bool), torch.tensor(kept, dtype=torch.bool))

    return check


Notes = Callable[..., Iterable[tuple[str, object]]]


def _spies(watch: Watch) -> Iterator[AbstractContextManager[Any]]:
    """Counts of what the searches do."""

    def spy(owner: Any, name: str, notes: Notes) -> AbstractContextManager[Any]:
        plain = getattr(owner, name)

        def spied(*args: Any, **more: Any) -> Any:
            found = plain(*args, **more)
            watch.met.update({what: int(bool(there)) for what, there in notes(found, *args, **more)})
            return found

        return patch.object(owner, name, spied)

    yield spy(SignSearch, "_root", lambda found, *_: [("nothing in a base", found is None)])
    yield spy(SignSearch, "_by_hulls", lambda _, search, __: [("hulls", search.limit.isinf().any())])
    yield spy(SignSearch, "_refuted", _of_refuted)
    yield spy(SignSearch, "_left", lambda left, *args: [("float64 has doubts", (left & args[-1]).any())])
    yield spy(SignSearch, "_branch", lambda _, search, *__: [("stuck", search.unresolved)])
    yield spy(SignSearch, "_pop", lambda _, search: [("store is full", search.open.nbytes > search.store_bytes)])
    yield spy(RefinedSearch, "_begin", lambda *_: [("begun again", True)])
    yield spy(RefinedSearch, "_tightened", lambda _, __, front: [("tightened", True), ("goes on", front.work.done)])
    yield spy(verif.strategy, "below", lambda found, *_: [("below signs", found.base is not None)])
    yield spy(verif.bab, "shrink", _of_shrink)
    yield spy(verif.bab, "combined", lambda found, *_: [("rows combined", found.any())])
    yield spy(Search, "confirm", lambda worst, *_: [("confirmed", (worst > 0).any()), ("denied", (worst <= 0).any())])
    yield spy(
        Search, "split", lambda _, search, *__: [("boxes", True), ("signs inherited", search.domains.signs.any())]
    )
    yield spy(Domains, "pop", lambda *_, smallest=False: [("smallest first", smallest)])
    yield spy(ValueSearch, "_bound", lambda low, *_: [("empty halves", low.isinf().any())])
    yield spy(ValueSearch, "_branch", _of_halves)


def _of_shrink(found: tuple[Tensor, Tensor, Tensor], lower: Tensor, *_: object) -> Any:
    return [("clipped", (found[0] > lower).any()), ("clipped away", found[2].any())]


def _of_halves(_: None, search: ValueSearch, __: object) -> Any:
    return [("halves", True), ("comparisons", search.entries.compared.any())]


def _of_refuted(found: Tensor, _: object, __: object, ___: object, rounds: int = 1, *____: object) -> Any:
    return [("last rounds", rounds == LAST_ROUNDS and found.any()), ("refuted", found.any())]
