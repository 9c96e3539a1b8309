"""One part of a query: the boxes that are left of its regions, and the search with the signs that it fixes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from verif.cases import Cases
from verif.query import Query
from verif.signs import ROOT, SignSearch
from verif.splits import INPUT, Part

_BY_REGION = ("spans", "center", "radius", "open_lower", "open_upper")  # besides the ends of boxes


def within(query: Query, part: Part) -> Query:
    """The query with the input boxes of a part; regions that lie outside are left out."""
    asked = query.property
    lower, upper = asked.lower.clone(), asked.upper.clone()
    for split, above in part.sides():
        if split.name == INPUT and above:
            lower[:, split.entry].clamp_(min=split.at)
        elif split.name == INPUT:
            upper[:, split.entry].clamp_(max=split.at)
    left = (lower <= upper).all(1)
    left_of = {name: held[left] for name in _BY_REGION if (held := getattr(asked, name)) is not None}
    changed: Any = {"lower": lower[left], "upper": upper[left], **left_of}
    return replace(query, property=replace(asked, **changed))


def below(search: SignSearch, part: Part) -> SignSearch:
    """The search over signs of a part: all its cases have the signs that the part says."""
    engine = search.engine
    sweep = engine.tiles.sweep(engine.output, search.box.lower)
    sides = [(split, above) for split, above in part.sides() if split.name != INPUT]
    if not sides or sweep is None:
        return search
    slots = {str(slot.scalar): place for place, slot in enumerate(sweep.program.slots)}
    count = search.rows.shape[1]
    base = Cases.of_rows(torch.zeros(count, dtype=torch.float64), 0)
    for split, above in sides:
        given = torch.tensor([slots[split.name], split.entry, int(above)]).expand(count, 3).unbind(1)
        base = base.with_signs(*given)
    found = engine.bound(search.box, search.rows, rounds=ROOT, deadline=search.deadline)
    fronts = {node.inputs[0] for node in engine.graph if node.op == "relu"}
    return replace(search, base=base, ranges={name: found.intervals[name] for name in fronts})
