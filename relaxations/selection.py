"""Selections by computed values: the position of a maximum, where, gather and scatter at computed indices.

Decided selections pass their entry through exactly. Elsewhere the output is one of several entries, hence in the hull
of their intervals. Truth values are 0 or 1 at every point of a box, indices are integers; their bounds need not be.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from relaxations.planes import ConstantPlanes, Picks, Plane, Planes, flat, shapes_of
from relaxations.products import full
from relaxations.rule import Call, Interval, Relaxation, Rule, rule


@rule("arg_max")
class ArgMaxRule(Rule):
    """Position of the maximum along an axis: an interval of the positions that it may have."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """The least and the largest possible position; exact."""
        may, axis = self._may(call, inputs[0])
        size = may.shape[axis]
        count = torch.arange(size, device=may.device, dtype=inputs[0].lower.dtype)
        count = count.reshape(-1, *[1] * (may.dim() - 1 - axis))
        low, high = torch.where(may, count, size).amin(axis), torch.where(may, count, -1).amax(axis)
        shape = (may.shape[0], *call.node.shape)
        return Interval(low.reshape(shape), high.reshape(shape))

    def relax(self, call: Call, inputs: Sequence[Interval]) -> ConstantPlanes:
        """Constants."""
        return ConstantPlanes(*self.interval(call, inputs), shapes_of(inputs))

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Entries that may be the maximum, where several may."""
        may, axis = self._may(call, inputs[0])
        return (may & (may.sum(axis, keepdim=True) > 1),)

    @staticmethod
    def _may(call: Call, x: Interval) -> tuple[Tensor, int]:
        """Which entries may be chosen: none before (or, for the last of equals, behind) reaches them for certain."""
        axis = int(call.attrs.get("axis", x.lower.dim() - 2)) + 1
        low, high = x.lower.movedim(axis, -1), x.upper.movedim(axis, -1)
        if call.attrs.get("last", False):
            low, high = low.flip(-1), high.flip(-1)
        none = torch.full_like(low[..., :1], -torch.inf)
        before = torch.cat([none, low.cummax(-1).values[..., :-1]], -1)
        may = ~(high <= before) & ~(high < low.amax(-1, keepdim=True))  # an unknown (NaN) end excludes nothing
        return (may.flip(-1) if call.attrs.get("last", False) else may).movedim(-1, axis), axis


@rule("codebook")
class CodebookRule(ArgMaxRule):
    """A row of a table at the first position of the maximum."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """The hull of the rows that may be chosen; exact."""
        may, table = self._may(call, inputs[0])[0].unsqueeze(-1), call.params["table"]
        return Interval(torch.where(may, table, torch.inf).amin(-2), torch.where(may, table, -torch.inf).amax(-2))


@rule("where")
class WhereRule(Rule):
    """x where a variable condition is true, else y."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """The chosen interval where the condition is decided, else the hull of both; exact."""
        c, x, y = full(inputs)
        true, false = _decided(c)
        return Interval(
            torch.where(true, x.lower, torch.where(false, y.lower, x.lower.minimum(y.lower))),
            torch.where(true, x.upper, torch.where(false, y.upper, x.upper.maximum(y.upper))),
        )

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Planes:
        """The chosen value; undecided, the line in the condition through both lower (upper) ends."""
        c, x, y = full(inputs)
        true, false = _decided(c)
        zero, one = torch.zeros_like(c.lower), torch.ones_like(c.lower)
        chosen = Plane((zero, true.to(one), false.to(one)), zero)
        below, above = (Plane((a - b, zero, zero), b) for a, b in ((x.lower, y.lower), (x.upper, y.upper)))
        decided = true | false
        planes = chosen.choose(decided, below), chosen.choose(decided, above)
        return Planes.of(*planes, self.interval(call, (c, x, y)), shapes_of(inputs))

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Conditions that may be either."""
        true, false = _decided(inputs[0])
        return ~(true | false), None, None


def _decided(c: Interval) -> tuple[Tensor, Tensor]:
    """Where a truth value is 1 and where it is 0; 1/2 parts them, so that rounded bounds decide alike."""
    return c.lower > 0.5, c.upper < 0.5


class IndexRule(Rule):
    """What gather and scatter at computed indices share: the indices are the second input."""

    def undecided(self, call: Call, inputs: Sequence[Interval]) -> tuple[Tensor | None, ...]:
        """Indices that may have several values."""
        index = inputs[1]
        return tuple(index.lower.round() != index.upper.round() if n == 1 else None for n in range(len(inputs)))


def _range(index: Interval, size: int) -> Interval:
    """First and last integer that each index may be, cut to where the op itself cuts them."""
    return Interval(index.lower.round().clamp(-size, size - 1), index.upper.round().clamp(-size, size - 1))


@rule("gather_at")
class GatherRule(IndexRule):
    """Entries along an axis at computed indices."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """The hull over the entries that an index may name; exact."""
        x, index = inputs
        size = x.lower.shape[int(call.attrs["axis"]) + 1]
        low, high = (call.forward(end, index.lower) for end in x)
        first, last = _range(index, size)
        if bool((first == last).all()):
            return Interval(low, high)
        for position in range(int(first.min()), int(last.max()) + 1):
            here = self._spread(call, (first <= position) & (position <= last), low)
            at = torch.full_like(index.lower, position)
            low = torch.where(here, low.minimum(call.forward(x.lower, at)), low)
            high = torch.where(here, high.maximum(call.forward(x.upper, at)), high)
        return Interval(low, high)

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Picks:
        """The entry itself where its index is decided, else constants."""
        x, index = inputs
        hull = self.interval(call, inputs)
        places = torch.arange(x.lower[0].numel(), device=x.lower.device, dtype=torch.float64)
        places = places.reshape(1, *x.lower.shape[1:]).expand_as(x.lower)
        picked = call.forward(places, index.lower).round().long()
        known = self._spread(call, index.lower.round() == index.upper.round(), hull.lower)
        return _picks(picked, known, hull, inputs)

    @staticmethod
    def _spread(call: Call, mask: Tensor, like: Tensor) -> Tensor:
        """A mask of the indices (B, *I) as one of the output, (B, *N[:axis], *I, *N[axis + 1:])."""
        axis = int(call.attrs["axis"])
        behind = like.dim() - 1 - axis - (mask.dim() - 1)
        return mask.reshape(mask.shape[0], *[1] * axis, *mask.shape[1:], *[1] * behind).expand(like.shape)


@rule("scatter_at")
class ScatterRule(IndexRule):
    """Slices replaced at computed indices."""

    def interval(self, call: Call, inputs: Sequence[Interval]) -> Interval:
        """For each entry the hull over all that may be written to it, and over its own where it may stay."""
        hull, _ = self._bounds(inputs)
        return hull

    def relax(self, call: Call, inputs: Sequence[Interval]) -> Relaxation:
        """The entry itself where exactly one source can be there, else constants."""
        x, index, _ = inputs
        hull, source = self._bounds(inputs)
        start = x.lower[0].numel() + index.lower[0].numel()
        rest = torch.Size(x.lower.shape[1 + index.lower.shape[-1] :]).numel()
        batch, cells = source.shape
        within = torch.arange(rest, device=source.device)
        own = torch.arange(cells, device=source.device).unsqueeze(-1) * rest + within
        written = start + source.clamp(min=0).unsqueeze(-1) * rest + within
        picked = torch.where(source.unsqueeze(-1) == -1, own, written).reshape(x.lower.shape)
        known = (source != -2).unsqueeze(-1).expand(batch, cells, rest).reshape(x.lower.shape)
        return _picks(picked, known, hull, inputs)

    @staticmethod
    def _bounds(inputs: Sequence[Interval]) -> tuple[Interval, Tensor]:
        """The hull, and per cell of the indexed axes (B, P) its only source: -1 its own, q the update q, -2 several."""
        x, index, update = inputs
        depth = index.lower.shape[-1]
        sizes = x.lower.shape[1 : depth + 1]
        batch, cells = x.lower.shape[0], torch.Size(sizes).numel()
        rest = torch.Size(x.lower.shape[depth + 1 :]).numel()
        low, high = (end.reshape(batch, cells, rest) for end in x)
        new_low, new_high = (end.reshape(batch, -1, rest) for end in update)
        may, sure = _cells(index, sizes)
        writers, replaced = may.sum(1), sure.any(1)
        only = torch.where(writers == 1, may.to(torch.long).argmax(1), -1)
        source = torch.where((writers == 0) | ((writers == 1) & replaced), only, -2)
        several = (source == -2).unsqueeze(-1)
        low, high = (
            torch.where(several & replaced.unsqueeze(-1), torch.inf, low),
            torch.where(several & replaced.unsqueeze(-1), -torch.inf, high),
        )
        place = source.clamp(min=0).unsqueeze(-1).expand(-1, -1, rest)
        written = (source >= 0).unsqueeze(-1)
        low, high = (
            torch.where(written, new_low.gather(1, place), low),
            torch.where(written, new_high.gather(1, place), high),
        )
        contested = may & several.squeeze(-1).unsqueeze(1)
        for q in contested.flatten(2).any(-1).any(0).nonzero().flatten().tolist():
            here = contested[:, q].unsqueeze(-1)
            low = torch.where(here, low.minimum(new_low[:, q : q + 1]), low)
            high = torch.where(here, high.maximum(new_high[:, q : q + 1]), high)
        return Interval(low.reshape(x.lower.shape), high.reshape(x.lower.shape)), source


def _cells(index: Interval, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which cells each multi-index may name, and which it surely does: bool (B, Q, P)."""
    may: Tensor | None = None
    for axis, size in enumerate(sizes):
        entry = Interval(flat(index.lower[..., axis], 1).unsqueeze(-1), flat(index.upper[..., axis], 1).unsqueeze(-1))
        first, last = _range(entry, size)
        place = torch.arange(size, device=first.device)
        here = ((first <= place) & (place <= last)) | ((first <= place - size) & (place - size <= last))
        may = here if may is None else (may.unsqueeze(-1) & here.unsqueeze(-2)).flatten(-2)
    assert may is not None
    return may, may & (may.sum(-1, keepdim=True) == 1)


def _picks(picked: Tensor, known: Tensor, hull: Interval, inputs: Sequence[Interval]) -> Picks:
    """The picked entries where known, else the hull."""
    slope = known.to(hull.lower)
    low, high = (torch.where(known, 0, end) for end in hull)
    return Picks(picked, slope, low, picked, slope, high, shapes_of(inputs))
