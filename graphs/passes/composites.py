"""Composites that exports take apart: put back together, they are bounded far better than their pieces."""

from __future__ import annotations

from collections.abc import Sequence

from graphs.ir import Graph, Node
from graphs.passes.functions import recognise_functions
from graphs.passes.rewrite import Sweep, rewrite


def recognise_composites(graph: Graph, moving: frozenset[str] = frozenset()) -> Graph:
    """Functions of one number (GELU, SiLU...), then normalisations and softmax; what is left over is dead. Values of
    `moving` constants (parameters in training) are not read.
    """
    graph = recognise_functions(graph, moving)
    rules = (_rms_norm, _layer_norm, _logsumexp, _softmax, _log_softmax, _stablemax, _softplus_shares, _shares)
    for rule in rules:
        graph = rewrite(graph, rule, moving)
    return graph


def _made(sweep: Sweep, name: str, op: str) -> Node | None:
    """The node that makes a value, if it is of an op."""
    node = sweep.node(name)
    return node if node.op == op else None


def _kept(node: Node, axes: Sequence[int] | None = None) -> bool:
    """Whether a reduction keeps its axes (and is over the given ones)."""
    return bool(node.attrs.get("keepdims")) and (axes is None or tuple(node.attrs["axes"]) == tuple(axes))


def _quotient(sweep: Sweep, node: Node) -> tuple[str, str] | None:
    """(x, y) where the node is x / y, or x times the reciprocal of y."""
    if node.op == "div":
        return node.inputs[0], node.inputs[1]
    if node.op == "mul":
        for x, y in (node.inputs, node.inputs[::-1]):
            inverse = _made(sweep, y, "reciprocal")
            if inverse is not None:
                return x, inverse.inputs[0]
    return None


def _rms_norm(sweep: Sweep, node: Node) -> str | None:
    """x / sqrt(mean(x^2) + eps)."""
    pair = _quotient(sweep, node)
    root = pair and _made(sweep, pair[1], "sqrt")
    shift = root and _made(sweep, root.inputs[0], "shift")
    mean = shift and _made(sweep, shift.inputs[0], "mean")
    square = mean and _made(sweep, mean.inputs[0], "square")
    if not (pair and shift and mean and square) or square.inputs[0] != pair[0]:
        return None
    if not _kept(mean) or not sweep.fixed(shift):
        return None
    eps = sweep.params(shift)["offset"]
    if eps.numel() != 1 or float(eps) < 0:
        return None
    attrs = {"axes": tuple(mean.attrs["axes"]), "eps": float(eps)}
    return sweep.builder.add("rms_norm", [pair[0]], attrs=attrs, name=node.name, origin=node.origin)


def _layer_norm(sweep: Sweep, node: Node) -> str | None:
    """rms_norm of x - mean(x)."""
    centred = _made(sweep, node.inputs[0], "sub") if node.op == "rms_norm" else None
    mean = centred and _made(sweep, centred.inputs[1], "mean")
    if not (centred and mean) or mean.inputs[0] != centred.inputs[0] or not _kept(mean, node.attrs["axes"]):
        return None
    return sweep.builder.add("layer_norm", mean.inputs, attrs=node.attrs, name=node.name, origin=node.origin)


def _logsumexp(sweep: Sweep, node: Node) -> str | None:
    """log(sum(exp(x)))."""
    total = _made(sweep, node.inputs[0], "sum") if node.op == "log" else None
    exp = total and _made(sweep, total.inputs[0], "exp")
    if not (total and exp):
        return None
    return sweep.builder.add("logsumexp", exp.inputs, attrs=total.attrs, name=node.name, origin=node.origin)


def _softmax(sweep: Sweep, node: Node) -> str | None:
    """exp(x) / sum(exp(x)), where x may have its maximum taken away."""
    pair = _quotient(sweep, node)
    exp, total = (pair and _made(sweep, pair[0], "exp")), (pair and _made(sweep, pair[1], "sum"))
    if not (exp and total) or total.inputs[0] != exp.name or not _kept(total) or len(total.attrs["axes"]) != 1:
        return None
    source = exp.inputs[0]
    centred = _made(sweep, source, "sub")
    top = centred and _made(sweep, centred.inputs[1], "reduce_max")
    if centred and top and top.inputs[0] == centred.inputs[0] and _kept(top, total.attrs["axes"]):
        source = top.inputs[0]
    attrs = {"axis": total.attrs["axes"][0]}
    return sweep.builder.add("softmax", [source], attrs=attrs, name=node.name, origin=node.origin)


def _log_softmax(sweep: Sweep, node: Node) -> str | None:
    """log(softmax(x)), or x - logsumexp(x)."""
    if node.op == "log":
        softmax = _made(sweep, node.inputs[0], "softmax")
        found = softmax and (softmax.inputs[0], softmax.attrs["axis"])
    else:
        total = _made(sweep, node.inputs[1], "logsumexp") if node.op == "sub" else None
        same = total and total.inputs[0] == node.inputs[0] and _kept(total) and len(total.attrs["axes"]) == 1
        found = (total.inputs[0], total.attrs["axes"][0]) if total and same else None
    if not found:
        return None
    return sweep.builder.add("log_softmax", [found[0]], attrs={"axis": found[1]}, name=node.name, origin=node.origin)


def _stablemax(sweep: Sweep, node: Node) -> str | None:
    """s(x) / sum(s(x)) for s = stable_exp, the softmax of log s(x), and the logarithms of these."""
    op = {"softmax": "stablemax", "log_softmax": "log_stablemax", "log": "log_stablemax"}.get(node.op, "stablemax")
    if node.op == "log":
        share = _made(sweep, node.inputs[0], "stablemax")
        found = (share.inputs[0], share.attrs["axis"]) if share else None
    elif op == "log_stablemax" or node.op == "softmax":
        log = _made(sweep, node.inputs[0], "signed_log") if "mask" not in node.params else None
        found = (log.inputs[0], node.attrs["axis"]) if log else None
    else:
        found = _share(sweep, node, "stable_exp")
    if not found:
        return None
    return sweep.builder.add(op, [found[0]], attrs={"axis": found[1]}, name=node.name, origin=node.origin)


def _softplus_shares(sweep: Sweep, node: Node) -> str | None:
    """softplus(x) / sum(softplus(x)) is the softmax of log softplus(x)."""
    found = _share(sweep, node, "softplus")
    if not found:
        return None
    log = sweep.between("log_softplus", found[0], node)
    return sweep.builder.add("softmax", [log], attrs={"axis": found[1]}, name=node.name, origin=node.origin)


def _shares(sweep: Sweep, node: Node) -> str | None:
    """x / (sum of x + eps) for an x that is not negative."""
    pair = _quotient(sweep, node)
    shift = pair and _made(sweep, pair[1], "shift")
    total = pair and _made(sweep, shift.inputs[0] if shift else pair[1], "sum")
    if not (pair and shift and total) or total.inputs[0] != pair[0] or not _kept(total) or not sweep.fixed(shift):
        return None
    eps = sweep.params(shift)["offset"]
    if len(total.attrs["axes"]) != 1 or eps.numel() != 1 or float(eps) <= 0 or not _not_negative(sweep, pair[0]):
        return None
    attrs = {"axis": total.attrs["axes"][0], "eps": float(eps)}
    return sweep.builder.add("shares", [pair[0]], attrs=attrs, name=node.name, origin=node.origin)


def _not_negative(sweep: Sweep, name: str) -> bool:
    """Whether a value is at least 0 whatever the input, by the op that makes it."""
    node = sweep.node(name)
    if node.op == "power":
        return _not_negative(sweep, node.inputs[0])
    return node.op in {"relu", "square", "abs", "exp", "sigmoid", "softplus", "softmax", "stablemax", "shares"}


def _share(sweep: Sweep, node: Node, op: str) -> tuple[str, int] | None:
    """x and the axis where the node is g(x) over the sum of g(x) along an axis, for an op g."""
    pair = _quotient(sweep, node)
    g, total = (pair and _made(sweep, pair[0], op)), (pair and _made(sweep, pair[1], "sum"))
    same = g and total and total.inputs[0] == g.name and _kept(total) and len(total.attrs["axes"]) == 1
    return (g.inputs[0], total.attrs["axes"][0]) if g and total and same else None
