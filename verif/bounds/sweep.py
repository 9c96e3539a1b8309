"""One backward sweep: rows on a value become rows on the network's input plus a bias (CROWN, Zhang et al. 2018).

Shape letters: B boxes, S rows, N one node's shape, n the flat input. A leading axis of 1 stands for all boxes alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from relaxations import slab_pulls, window_pulls
from relaxations.affine import AffineRelaxation
from relaxations.planes import ConstantPlanes
from relaxations.rule import Relaxation
from relaxations.selections import Selection
from relaxations.slabs import Slab
from relaxations.windows import Window

Given = Tensor | Selection
Rows = Given | Window | Slab


class Sweep:
    """The state of one sweep: coefficients per node, (B or 1, S, *N), and the bias, (B or 1, S).

    `owner` (R,) re-indexes the relaxations so that row r belongs to box owner[r] (ragged rows; None: as they are).
    `both` asks for the negated rows too, stacked behind the rows along S; the two share all work until the first
    nonlinear node. `like` gives precision and device, and its length is the number of boxes.
    """

    def __init__(
        self,
        graph: Graph,
        relaxations: Mapping[str, Relaxation],
        owner: Tensor | None,
        like: Tensor,
        *,
        both: bool = False,
    ) -> None:
        self.graph, self.relaxations, self.owner, self.like, self.both = graph, relaxations, owner, like, both
        self.boxes = len(like) if owner is None else len(owner)
        self.terms: dict[str, Rows] = {}
        self.sums: set[str] = set()  # terms that are sums made here, which nothing else refers to
        self.bias = like.new_zeros(1, 1)

    def run(self, at: str, rows: Given) -> tuple[Tensor | Window | None, Tensor]:
        """Pull rows on node `at` back to the input: (B or 1, S, n), windows or None (zeros); and bias (B or 1, S)."""
        lead = rows.lead if isinstance(rows, Selection) else (rows.shape[0], rows.shape[1])
        self.terms, self.bias = {at: rows}, self.like.new_zeros(lead)
        for name in reversed(list(self.graph.nodes)):
            if name in self.terms and self.graph[name].op != INPUT:
                self._visit(name)
        if self.both:
            self._negate()
        (source,) = self.graph.inputs
        final = self.terms.get(source)
        if final is None or isinstance(final, Window):
            return final, self.bias
        return self._dense(source, final), self.bias

    def _visit(self, name: str) -> None:
        relaxation = self.relaxations[name]
        if self.both and not isinstance(relaxation, AffineRelaxation):
            self._negate()
        rows = self.terms.pop(name)
        if isinstance(relaxation, ConstantPlanes):  # rows end here
            self.bias = self.bias + self._pull(relaxation, self._dense(name, rows))[1]
            return
        pulled = self._short_cut(name, relaxation, rows)
        parts, bias = self._pull(relaxation, self._dense(name, rows)) if pulled is None else pulled
        self.bias = self.bias + bias
        for number, (source, part) in enumerate(zip(self.graph[name].inputs, parts, strict=False)):
            if number not in relaxation.idle:
                self.terms[source] = self._sum(source, part) if source in self.terms else part

    def _pull(self, relaxation: Relaxation, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Whole rows, each through the relaxation of its own box."""
        if isinstance(relaxation, AffineRelaxation):
            return relaxation.pull(rows)
        relaxation = relaxation if self.owner is None else relaxation.take(self.owner)
        if self.boxes == 1 and len(rows) > 1:  # rows of one box: one product of many rows, not many of one
            parts, bias = relaxation.pull(rows.flatten(0, 1).unsqueeze(0))
            lead = rows.shape[:2]
            return tuple(part[0].unflatten(0, lead) for part in parts), bias[0].unflatten(0, lead)
        return relaxation.pull(rows if len(rows) == self.boxes else rows.expand(self.boxes, *rows.shape[1:]))

    def _short_cut(self, name: str, relaxation: Relaxation, rows: Rows) -> tuple[tuple[Rows, ...], Tensor] | None:
        """Unit rows, windows and slabs without building whole rows, where the op has a way."""
        if isinstance(rows, Window):
            return window_pulls.pull(relaxation, rows, self.owner)
        if isinstance(rows, Slab):
            return slab_pulls.pull(relaxation, rows, self.owner)
        if not isinstance(rows, Selection):
            return None
        if isinstance(relaxation, AffineRelaxation):
            if self._ragged(rows) and relaxation.call.node.op in window_pulls.STARTS:
                window = window_pulls.start(relaxation, rows)
                if window is not None:
                    return (window[0],), window[1]
            started = relaxation.start(rows, self.like)
            if started is not None:
                parts = tuple(p if isinstance(p, Selection) else p.unflatten(0, rows.lead) for p in started[0])
                return parts, started[1].unflatten(0, rows.lead)
        return slab_pulls.pull(relaxation, self._slab(name, rows), self.owner) if self._ragged(rows) else None

    def _ragged(self, rows: Selection) -> bool:
        """Whether each unit row is of one known box (a single row may also stand for all boxes)."""
        return rows.lead[1] == 1 and (self.owner is not None or len(self.like) == 1)

    def _slab(self, name: str, rows: Selection) -> Slab:
        return Slab.of(rows, self.graph[name].shape, self.like)

    def _sum(self, name: str, part: Rows) -> Rows:
        held = self.terms[name]
        if isinstance(held, Window) and isinstance(part, Window):
            total: Rows | None = held.plus(part)
        else:
            total = held.plus(part) if isinstance(held, Slab) and isinstance(part, Slab) else None
        if total is not None:
            return total
        if isinstance(held, Slab):
            held, part = part, held
        own = name in self.sums or not isinstance(held, Tensor)
        self.sums.add(name)
        dense = self._dense(name, held)
        if isinstance(part, Slab):
            return part.added_to(dense if own else dense.clone())
        other = self._dense(name, part)
        return dense.add_(other) if own and dense.shape == other.shape else dense + other

    def _dense(self, name: str, rows: Rows) -> Tensor:
        if isinstance(rows, Slab):
            return rows.dense()
        if isinstance(rows, Window):
            return rows.dense().reshape(*rows.rows.shape[:2], *self.graph[name].shape)
        return rows.dense(self.like, self.graph[name].shape) if isinstance(rows, Selection) else rows

    def _negate(self) -> None:
        """Stack the negated rows behind the rows."""
        terms: dict[str, Rows] = {}
        for name, rows in self.terms.items():
            if isinstance(rows, Selection) and self._ragged(rows):
                rows = self._slab(name, rows)
            if isinstance(rows, Window | Slab):
                terms[name] = rows.negated()
            else:
                dense = self._dense(name, rows)
                terms[name] = torch.cat([dense, -dense], 1)
        self.terms, self.sums = terms, set()
        self.bias = torch.cat([self.bias, -self.bias], 1)
        self.both = False
