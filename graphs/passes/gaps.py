"""Comparisons of the entries of sparse gates as values of their own.

Which entries are among the k largest is a matter of differences, and those of correlated entries vary by far less than
their two intervals say. As inputs of the gate they are bounded, and can be split, as every other value.
"""

from __future__ import annotations

from dataclasses import replace

from graphs.ir import Graph, Node
from graphs.passes.rewrite import Sweep, rewrite

LARGEST = 16  # entries of a lane, up to which all pairs are compared


def compare_gates(graph: Graph) -> Graph:
    """Sparse gates with the differences of their entries as a second input (..., n, n): x_j - x_i in row i."""
    return rewrite(graph, _gate)


def _gate(sweep: Sweep, node: Node) -> str | None:
    if node.op != "top_k_softmax" or len(node.inputs) > 1 or not 1 < node.shape[node.attrs["axis"]] <= LARGEST:
        return None
    builder, (source,), axis = sweep.builder, node.inputs, node.attrs["axis"]
    order = (*(a for a in range(len(node.shape)) if a != axis), axis)
    n, lead = node.shape[axis], tuple(node.shape[a] for a in order[:-1])
    new = replace(node, name=f"{node.name}:gaps")
    if order != tuple(range(len(order))):
        source = sweep.between("transpose", source, new, attrs={"perm": order})
    rows, columns = (sweep.between("reshape", source, new, attrs={"shape": (*lead, *p)}) for p in ((1, n), (n, 1)))
    gaps = builder.add("sub", [rows, columns], name=new.name, origin=node.origin)
    return builder.add(
        node.op, [node.inputs[0], gaps], attrs=node.attrs, name=f"{new.name}:{node.op}", origin=node.origin
    )
