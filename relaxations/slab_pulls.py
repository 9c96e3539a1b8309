"""How each op pulls slabs back; what an op has no way for becomes dense rows. Shape letters as in `slabs.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from relaxations.affine import AffineRelaxation
from relaxations.clarke import ChainLines
from relaxations.lanes import LaneRelaxation, Lanes, Side
from relaxations.matmul import MatmulRelaxation
from relaxations.planes import Planes
from relaxations.rule import Interval, Relaxation
from relaxations.scalar.lines import ScalarLines
from relaxations.selections import constant, has_offset
from relaxations.slabs import Fixed, Slab, unravel
from relaxations.transposes import times

Pulled = tuple[tuple[Slab | Tensor, ...], Tensor]  # rows on every input, (R, T, ...), and a bias (R, T)
_Parts = tuple[tuple[Slab, ...], Tensor]


def pull(relaxation: Relaxation, rows: Slab, owner: Tensor | None) -> Pulled | None:
    """Pull slabs through a node; None where its op has no way to keep them (then they become dense)."""
    if not rows.fixed:
        return None
    if isinstance(relaxation, AffineRelaxation):
        handler = _AFFINE.get(relaxation.call.node.op)
        found = handler(relaxation, rows) if handler else None
    elif isinstance(relaxation, MatmulRelaxation):
        found = _matmul(relaxation, rows, owner)
    elif isinstance(relaxation, LaneRelaxation):
        found = _lanes(relaxation, rows, owner)
    else:
        found = _entries(relaxation, rows, owner)
    if found is None:
        return None
    parts, bias = found
    return tuple(part if part.fixed else part.rows for part in parts), bias


def _entries(relaxation: Relaxation, rows: Slab, owner: Tensor | None) -> _Parts | None:
    """Ops that work entry by entry."""
    if isinstance(relaxation, ScalarLines):
        lines = (relaxation.lower_slope, relaxation.lower_bias, relaxation.upper_slope, relaxation.upper_bias)
        read = (None if line is None else rows.read(line, owner) for line in lines)
        (pulled,), bias = ScalarLines(*read).pull(rows.rows)  # type: ignore[arg-type]
        idle = [_zeros(rows, relaxation.shapes[1])] if isinstance(relaxation, ChainLines) else []
        return (replace(rows, rows=pulled), *idle), bias
    if isinstance(relaxation, Planes):
        r = relaxation
        lower, upper = (tuple(rows.read(s, owner) for s in slopes) for slopes in (r.lower_slopes, r.upper_slopes))
        ends = rows.read(r.lower_bias, owner), rows.read(r.upper_bias, owner)
        local = Planes(lower, ends[0], upper, ends[1], (rows.reduced,) * len(r.shapes))
        parts, bias = local.pull(rows.rows)
        return tuple(replace(rows, rows=p).summed(shape) for p, shape in zip(parts, r.shapes, strict=True)), bias
    return None


def _lanes(relaxation: LaneRelaxation, rows: Slab, owner: Tensor | None) -> _Parts | None:
    """Whole lanes of the slab."""
    lanes = relaxation.lanes
    rows = rows.widened(lanes.axes)
    if not rows.fixed:
        return None
    local = Lanes(rows.reduced, lanes.axes)
    packed = relaxation.packed
    place = _place(rows, rows.fixed, (*rows.shape, packed.shape[-1]))
    parts = [local.split(part) for part in place.read(packed, owner).unbind(-1)]
    lower, upper = (Side.of_parts(*part) for part in (parts[: relaxation.split], parts[relaxation.split :]))
    (pulled,), bias = LaneRelaxation(local, lower, upper, relaxation.centred).pull(rows.rows)
    return (replace(rows, rows=pulled),), bias


def _matmul(relaxation: MatmulRelaxation, rows: Slab, owner: Tensor | None) -> _Parts | None:
    """Entry (i, j) reads row i of x and column j of y."""
    i, j = len(rows.shape) - 2, len(rows.shape) - 1
    if any(shape[:-2] != rows.shape[:-2] for shape in relaxation.shapes):
        return None
    if relaxation.planes and i not in rows.fixed and j not in rows.fixed:
        return None  # every row would read more numbers of planes than whole rows have
    lead = {a: index for a, index in rows.fixed.items() if a < i}
    on_x, on_y, on_both = dict(lead), dict(lead), dict(lead)
    if i in rows.fixed:
        on_x[i] = on_both[i] = rows.fixed[i]
    if j in rows.fixed:
        on_y[j] = on_both[j + 1] = rows.fixed[j]
    x_shape, y_shape = relaxation.shapes
    x, y = _place(rows, on_x, x_shape), _place(rows, on_y, y_shape)
    both = _place(rows, on_both, (*x_shape, rows.shape[-1]))  # where the planes are, (*L, i, k, j)
    on_ends = relaxation.x, relaxation.y  # nobody reads them where planes are stored
    if not relaxation.planes:
        on_ends = _read(x, relaxation.x, owner), _read(y, relaxation.y, owner)
    local = MatmulRelaxation(
        *on_ends,
        tuple(both.read(plane, owner) for plane in relaxation.planes),
        rows.read(relaxation.lower, owner),
        rows.read(relaxation.upper, owner),
        (x.reduced, y.reduced),
    )
    (first, second), bias = local.pull(rows.rows)
    return (replace(x, rows=first), replace(y, rows=second)), bias


def _read(place: Slab, interval: Interval, owner: Tensor | None) -> Interval:
    return Interval(place.read(interval.lower, owner), place.read(interval.upper, owner))


def _place(rows: Slab, fixed: Fixed, shape: tuple[int, ...]) -> Slab:
    """A slab without rows of its own, to read values at."""
    reduced = (1 if a in fixed else n for a, n in enumerate(shape))
    return Slab(rows.rows.new_empty(()).expand(len(rows.rows), 1, *reduced), fixed, shape)


def _zeros(rows: Slab, shape: tuple[int, ...]) -> Slab:
    """No rows on an input of this shape (equal rank), which takes no memory."""
    fixed = {a: index for a, index in rows.fixed.items() if shape[a] > 1}
    reduced = (1 if a in fixed else n for a, n in enumerate(shape))
    return Slab(rows.rows.new_zeros(()).expand(*rows.rows.shape[:2], *reduced), fixed, shape)


def _none(rows: Slab) -> Tensor:
    return rows.rows.new_zeros(rows.rows.shape[:2])


def _linear(relaxation: AffineRelaxation, rows: Slab) -> _Parts:
    weight, bias = relaxation.call.params["weight"], relaxation.call.params.get("bias")
    shape, last = relaxation.shapes[0], len(rows.shape) - 1
    if last not in rows.fixed:
        offset = _none(rows) if bias is None else rows.rows.flatten(2, -2).sum(2) @ bias
        return (Slab(times(rows.rows, weight), rows.fixed, shape),), offset
    place = rows.fixed[last]
    rest = {a: index for a, index in rows.fixed.items() if a != last}
    picked = weight[place].reshape(-1, *[1] * (rows.rows.dim() - 2), weight.shape[1])
    offset = _none(rows) if bias is None else rows.rows.flatten(2).sum(2) * bias[place].unsqueeze(1)
    return (Slab(rows.rows * picked, rest, shape),), offset


def _scale(relaxation: AffineRelaxation, rows: Slab) -> _Parts:
    factor = relaxation.call.params["factor"]
    factor = factor.reshape(()) if factor.numel() == 1 else rows.read(factor.expand(1, *rows.shape), None).unsqueeze(1)
    return (replace(rows, rows=rows.rows * factor).summed(relaxation.shapes[0]),), _none(rows)


def _same(relaxation: AffineRelaxation, rows: Slab) -> _Parts:
    """Sums of inputs and constants."""
    return tuple(rows.summed(shape) for shape in relaxation.shapes), _offset(relaxation, rows)


def _offset(relaxation: AffineRelaxation, rows: Slab) -> Tensor:
    if not has_offset(relaxation.call):
        return _none(rows)
    read = rows.read(constant(relaxation.call, relaxation.shapes, rows.rows), None)
    return (rows.rows * read.unsqueeze(1)).flatten(2).sum(2)


def _sub(relaxation: AffineRelaxation, rows: Slab) -> _Parts:
    first, second = relaxation.shapes
    return (rows.summed(first), replace(rows, rows=-rows.rows).summed(second)), _none(rows)


def _neg(relaxation: AffineRelaxation, rows: Slab) -> _Parts:
    return (replace(rows, rows=-rows.rows),), _none(rows)


def _transpose(relaxation: AffineRelaxation, rows: Slab) -> _Parts:
    perm = relaxation.call.attrs["perm"]
    back = sorted(range(len(perm)), key=lambda a: perm[a])
    fixed = {perm[a]: index for a, index in rows.fixed.items()}
    moved = rows.rows.permute(0, 1, *(a + 2 for a in back))
    return (Slab(moved, dict(sorted(fixed.items())), relaxation.shapes[0]),), _none(rows)


def _reshape(relaxation: AffineRelaxation, rows: Slab) -> _Parts:
    """Axes that stay, axes joined or parted of which all are fixed; others are widened first."""
    shape, fixed = relaxation.shapes[0], dict[int, Tensor]()
    for before, after in _groups(rows.shape, shape):
        long = [a for a in before if rows.shape[a] > 1]
        if long and all(a in rows.fixed for a in long):
            place = rows.fixed[long[0]]
            for a in long[1:]:
                place = place * rows.shape[a] + rows.fixed[a]
            kept = [a for a in after if shape[a] > 1]
            if len(kept) == 1:
                fixed[kept[0]] = place  # the very same tensor where an axis stays, which `plus` asks for
            else:
                fixed |= {kept[a]: index for a, index in unravel(place, [shape[a] for a in kept]).items()}
        else:
            rows = rows.widened(before)
    reduced = [1 if a in fixed else n for a, n in enumerate(shape)]
    return (Slab(rows.rows.reshape(*rows.rows.shape[:2], *reduced), fixed, shape),), _none(rows)


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The finest parting of both shapes' axes into runs of equal size."""
    groups: list[tuple[list[int], list[int]]] = []
    at = [0, 0]
    while at[0] < len(before) or at[1] < len(after):
        runs: tuple[list[int], list[int]] = ([], [])
        size = [1, 1]
        while size[0] != size[1] or not (runs[0] and runs[1]):
            short = 0 if at[0] < len(before) and (size[0] <= size[1] or at[1] >= len(after)) else 1
            if at[short] >= (len(before), len(after))[short]:
                break
            runs[short].append(at[short])
            size[short] *= (before, after)[short][at[short]]
            at[short] += 1
        groups.append(runs)
    return groups


def _concat(relaxation: AffineRelaxation, rows: Slab) -> _Parts:
    """Each part takes its share of a dense axis; of a fixed one it takes the rows that lie in it."""
    call, shapes = relaxation.call, relaxation.shapes
    axis, layout = call.attrs["axis"], call.attrs.get("layout") or range(len(shapes))
    parts: dict[int, Slab] = {}
    at = 0
    for part in layout:
        shape = shapes[part] if isinstance(part, int) else tuple(call.params[part].shape)
        if isinstance(part, int):
            piece = _piece(rows, axis, (at, at + shape[axis]), shape)
            held = parts.get(part)
            if held is not None:  # an input twice: the same axes, perhaps at other places
                piece = Slab(held.dense() + piece.dense(), {}, shape)
            parts[part] = piece
        at += shape[axis]
    return tuple(parts[n] for n in range(len(shapes))), _offset(relaxation, rows)


def _piece(rows: Slab, axis: int, span: tuple[int, int], shape: tuple[int, ...]) -> Slab:
    place = rows.fixed.get(axis)
    if place is None:
        return Slab(rows.rows.narrow(axis + 2, span[0], span[1] - span[0]), rows.fixed, shape)
    inside = ((span[0] <= place) & (place < span[1])).reshape(-1, *[1] * (rows.rows.dim() - 1))
    fixed = dict(rows.fixed)
    if shape[axis] == 1:
        del fixed[axis]
    else:
        fixed[axis] = place.clamp(span[0], span[1] - 1) - span[0]
    return Slab(torch.where(inside, rows.rows, 0), fixed, shape)


def _mean(relaxation: AffineRelaxation, rows: Slab) -> _Parts:
    """Sums and means: the same row at every position of the axes that went."""
    (shape,), attrs = relaxation.shapes, relaxation.call.attrs
    axes = sorted(a % len(shape) for a in attrs["axes"])
    kept = list(range(len(shape))) if attrs.get("keepdims", False) else [a for a in range(len(shape)) if a not in axes]
    fixed = {kept[a]: index for a, index in rows.fixed.items()}
    wide = [1 if a in fixed else n for a, n in enumerate(shape)]
    there = rows.rows.reshape(*rows.rows.shape[:2], *(1 if a in axes else n for a, n in enumerate(wide)))
    if relaxation.call.node.op == "mean":
        there = there / math.prod(shape[a] for a in axes)
    return (Slab(there.expand(*there.shape[:2], *wide), fixed, shape),), _none(rows)


_AFFINE: dict[str, Callable[[AffineRelaxation, Slab], _Parts | None]] = {
    "linear": _linear,
    "scale": _scale,
    "add": _same,
    "shift": _same,
    "sub": _sub,
    "neg": _neg,
    "transpose": _transpose,
    "reshape": _reshape,
    "concat": _concat,
    "mean": _mean,
    "sum": _mean,
}
