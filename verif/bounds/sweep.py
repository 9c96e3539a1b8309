"""One backward sweep: rows on a value become rows on the network's input plus a bias (CROWN, Zhang et al. 2018).

Shape letters: B boxes, S rows, N one node's shape, n the flat input. A leading axis of 1 stands for all boxes alike.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphs import Graph
from graphs.ir import INPUT
from relaxations.affine import AffineRelaxation, Selection
from relaxations.rule import Relaxation

Rows = Tensor | Selection


class Sweep:
    """The state of one sweep: coefficients per node, (B or 1, S, *N), and the bias, (B or 1, S).

    `relaxation` gives a node's relaxation for the `boxes` boxes of this sweep; `both` asks for the negated rows too,
    stacked behind the rows along S; the two share all work until the first nonlinear node.
    """

    def __init__(
        self, graph: Graph, relaxation: Callable[[str], Relaxation], boxes: int, like: Tensor, *, both: bool = False
    ) -> None:
        self.graph, self.relaxation, self.boxes, self.like, self.both = graph, relaxation, boxes, like, both
        self.terms: dict[str, Rows] = {}
        self.bias = like.new_zeros(1, 1)

    def run(self, at: str, rows: Rows) -> tuple[Tensor, Tensor]:
        """Pull `rows` on node `at` back to the input: rows (B or 1, S, n) and bias (B or 1, S)."""
        lead = rows.lead if isinstance(rows, Selection) else (rows.shape[0], rows.shape[1])
        self.terms, self.bias = {at: rows}, self.like.new_zeros(lead)
        for name in reversed(self.graph.nodes):
            if name in self.terms and self.graph[name].op != INPUT:
                self._visit(name)
        if self.both:
            self._negate()
        (source,) = self.graph.inputs
        final = self.terms.get(source)
        if final is None:
            return self.like.new_zeros(*self.bias.shape, self.graph[source].size), self.bias
        return self._dense(source, final).flatten(2), self.bias

    def _visit(self, name: str) -> None:
        node, relaxation = self.graph[name], self.relaxation(name)
        if self.both and not isinstance(relaxation, AffineRelaxation):
            self._negate()
        rows = self.terms.pop(name)
        started = None
        if isinstance(relaxation, AffineRelaxation) and isinstance(rows, Selection):
            started = relaxation.start(rows, self.like)
        pulled: tuple[Rows, ...]
        if started is not None and isinstance(rows, Selection):
            lead = rows.lead
            pulled = tuple(p if isinstance(p, Selection) else p.unflatten(0, lead) for p in started[0])
            bias = started[1].unflatten(0, lead)
        else:
            dense = self._dense(name, rows)
            if len(dense) != self.boxes and not isinstance(relaxation, AffineRelaxation):
                dense = dense.expand(self.boxes, *dense.shape[1:])
            pulled, bias = relaxation.pull(dense)
        self.bias = self.bias + bias
        for source, part in zip(node.inputs, pulled, strict=True):
            held = self.terms.get(source)
            self.terms[source] = part if held is None else self._dense(source, held) + self._dense(source, part)

    def _dense(self, name: str, rows: Rows) -> Tensor:
        return rows.dense(self.like, self.graph[name].shape) if isinstance(rows, Selection) else rows

    def _negate(self) -> None:
        """Stack the negated rows behind the rows."""
        self.terms = {name: torch.cat([d := self._dense(name, rows), -d], 1) for name, rows in self.terms.items()}
        self.bias = torch.cat([self.bias, -self.bias], 1)
        self.both = False
