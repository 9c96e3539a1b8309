"""Operators that only move or repeat entries: torch moves their positions, and the graph picks these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphs.exported.context import Context, Live, Var, convert_with

MOVES = (
    "flip.default",
    "roll.default",
    "repeat.default",
    "index.Tensor",
    "gather.default",
    "unfold.default",
    "diagonal.default",
    "diagonal_copy.default",
    "unbind.int",
    "expand_as.default",
    "slice_scatter.default",
    "select_scatter.default",
    "index_put.default",
    "upsample_nearest1d.vec",
    "upsample_nearest2d.vec",
    "upsample_nearest3d.vec",
    "upsample_nearest1d.default",
    "upsample_nearest2d.default",
    "upsample_nearest3d.default",
    "reflection_pad1d.default",
    "reflection_pad2d.default",
    "reflection_pad3d.default",
    "replication_pad1d.default",
    "replication_pad2d.default",
    "replication_pad3d.default",
)


def moved(ctx: Context, operator: Any, *arguments: Any, **named: Any) -> Any:
    """What an operator makes of variables and constants of floats; integers (places, sizes) are its own."""
    parts: list[Var | Live] = []

    def positions(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return [positions(part) for part in x]
        if isinstance(x, Live) and not x.now().is_floating_point():
            return x.now()
        if not isinstance(x, Var | Live):
            return x
        start = sum(_size(part) for part in parts)
        parts.append(x)
        return torch.arange(start, start + _size(x), dtype=torch.float64).reshape(x.shape)

    filled = [positions(x) for x in arguments]
    try:
        found = operator(*filled, **{key: positions(x) for key, x in named.items()})
    except (IndexError, RuntimeError, TypeError) as error:
        raise ctx.unsupported(f"places that depend on the input are not supported here ({error})") from error
    flat = _joined(ctx, parts)
    if isinstance(found, Tensor):
        return _picked(ctx, flat, found)
    return [_picked(ctx, flat, part) for part in found]


def _picked(ctx: Context, flat: Var, positions: Tensor) -> Var:
    return ctx.emit("pick", flat, params={"index": ctx.fixed(positions.long())})


def _size(x: Var | Live) -> int:
    return torch.Size(x.shape).numel()


def _joined(ctx: Context, parts: Sequence[Var | Live]) -> Var:
    """All entries in one axis."""
    if len(parts) == 1 and isinstance(parts[0], Var):
        return parts[0]
    layout: list[int | str] = []
    constants: dict[str, Live | str | None] = {}
    variables: list[Var] = []
    for part in parts:
        if isinstance(part, Var):
            layout.append(len(variables))
            variables.append(ctx.emit("reshape", part, shape=(_size(part),)))
        else:
            layout.append(f"c{len(constants)}")
            constants[f"c{len(constants)}"] = part.then(lambda t: t.to(ctx.dtype).flatten())
    return ctx.emit("concat", *variables, params=constants, axis=0, layout=tuple(layout) if constants else ())


convert_with(moved, MOVES)
