"""Writes in place: a program in which another view of what was written is read later is rewritten without them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from graphs.errors import UnsupportedError

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


def without_writes(program: ExportedProgram, *, training: bool) -> ExportedProgram:
    """The program, or where it needs it, its functional form.

    Raises UnsupportedError (G210) where a module in training draws dropout too, which that form has no place for.
    """
    stale = _stale(program)
    if stale is None:
        return program
    drops = [n for n in program.graph.nodes if "aten.dropout" in str(n.target) and n.args[1] > 0]
    if training and drops:
        raise UnsupportedError(
            "G210",
            "a part of a value is changed in place in a module that draws dropout in training",
            where=str(stale),
            help="write it without changes in place, or compile the module in evaluation mode",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        functional: ExportedProgram = program.run_decompositions({})
    return functional


def _stale(program: ExportedProgram) -> Node | None:
    """A node that reads a value which was changed in place through another name."""
    owner: dict[Node, Node] = {}  # whose memory a value lives in
    old: set[Node] = set()  # values whose memory was changed after they were made
    for node in program.graph.nodes:
        read = [x for x in node.all_input_nodes if x in old]
        if read:
            found: Node = node
            return found
        effects = _effects(node)
        shared = [x for x, _ in effects]
        owner[node] = owner[shared[0]] if shared else node
        if any(writes for _, writes in effects):
            old |= {x for x, whose in owner.items() if whose is owner[node] and x is not node}
    return None


def _effects(node: Node) -> list[tuple[Node, bool]]:
    """The operands whose memory the result shares, and whether the operator writes to it."""
    from torch.fx import Node

    target: Any = node.target
    if str(target) == "<built-in function getitem>":
        return [(node.args[0], False)]  # type: ignore[list-item]
    schema = getattr(target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return []
    pairs = zip(schema.arguments, node.args, strict=False)
    held = [(x, a.alias_info.is_write) for a, x in pairs if a.alias_info is not None and isinstance(x, Node)]
    if not held and "aten.dropout" in str(target):  # in evaluation its result is its operand
        return [(node.args[0], False)]  # type: ignore[list-item]
    return held
