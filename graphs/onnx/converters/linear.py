"""Matrix products."""

from __future__ import annotations

import math
import string

from graphs.onnx import algebra
from graphs.onnx.context import Context
from graphs.onnx.registry import converter
from graphs.onnx.values import Constant, Value

converter("MatMul")(algebra.matmul)


@converter("Gemm", since=7)
def gemm(ctx: Context, a: Value, b: Value, c: Value | None = None) -> Value:
    """alpha A' B' + beta C."""
    a = algebra.transpose(ctx, a, (1, 0)) if ctx.attr("transA", 0) else a
    b = algebra.transpose(ctx, b, (1, 0)) if ctx.attr("transB", 0) else b
    alpha, beta = float(ctx.attr("alpha", 1.0)), float(ctx.attr("beta", 1.0))
    # the factor goes to the constant side, where it is folded
    a, b = (algebra.times(ctx, a, alpha), b) if isinstance(a, Constant) else (a, algebra.times(ctx, b, alpha))
    y = algebra.matmul(ctx, a, b)
    return y if c is None else algebra.add(ctx, y, algebra.times(ctx, c, beta))


@converter("Einsum", since=12)
def einsum(ctx: Context, *operands: Value) -> Value:
    """One or more operands, joined from the left; no letter twice in one operand."""
    inputs, output = _equation(ctx, str(ctx.attr("equation")), operands)
    value, letters = operands[0], inputs[0]
    for number, (other, theirs) in enumerate(zip(operands[1:], inputs[1:], strict=True), start=2):
        wanted = set(output).union(*inputs[number:])
        value, letters = _product(ctx, (value, letters), (other, theirs), wanted)
    gone = [i for i, letter in enumerate(letters) if letter not in output]
    value = ctx.emit("sum", value, axes=gone, keepdims=False) if gone else value
    letters = "".join(letter for letter in letters if letter in output)
    return algebra.transpose(ctx, value, [letters.index(letter) for letter in output])


def _equation(ctx: Context, equation: str, operands: tuple[Value, ...]) -> tuple[list[str], str]:
    """Letters of each operand and of the result, the ellipsis written out as letters of its own."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(operands):
        raise ctx.malformed(f"the equation '{equation}' names {len(inputs)} operands")
    spare = [c for c in string.ascii_letters if c not in equation]
    extra = max(len(v.shape) - len(t.replace("...", "")) for t, v in zip(inputs, operands, strict=True))
    dots = "".join(spare[: max(extra, 0)]) if "..." in left else ""

    def spelled(term: str, value: Value) -> str:
        own = len(value.shape) - len(term.replace("...", ""))
        return term.replace("...", dots[len(dots) - own :])

    if not arrow:
        plain = left.replace("...", "").replace(",", "")
        output = "..." * ("..." in left) + "".join(sorted(c for c in set(plain) if plain.count(c) == 1))
    terms = [spelled(term, value) for term, value in zip(inputs, operands, strict=True)]
    if any(len(set(t)) != len(t) or len(t) != len(v.shape) for t, v in zip(terms, operands, strict=True)):
        raise ctx.unsupported(f"the equation '{equation}' repeats a letter in one operand, or does not fit its rank")
    return terms, output.replace("...", dots)


def _product(ctx: Context, left: tuple[Value, str], right: tuple[Value, str], wanted: set[str]) -> tuple[Value, str]:
    """Two operands as one stack of matrix products: shared letters that are wanted, the rest of each, the summed."""
    (a, la), (b, lb) = left, right
    stack = [c for c in la if c in lb and c in wanted]
    summed = [c for c in la if c in lb and c not in wanted]
    rows, columns = [c for c in la if c not in lb], [c for c in lb if c not in la]
    size = dict(zip(lb, b.shape, strict=True)) | {
        c: n for c, n in zip(la, a.shape, strict=True) if n != 1 or c not in lb
    }

    def total(group: list[str]) -> int:
        return math.prod(size[c] for c in group)

    def arranged(value: Value, letters: str, order: list[str], shape: tuple[int, ...]) -> Value:
        value = algebra.transpose(ctx, value, [letters.index(c) for c in order])
        return algebra.reshape(ctx, algebra.broadcast(ctx, value, [size[c] for c in order]), shape)

    lead = (total(stack),) if stack else ()
    x = arranged(a, la, stack + rows + summed, (*lead, total(rows), total(summed)))
    y = arranged(b, lb, stack + summed + columns, (*lead, total(summed), total(columns)))
    product = algebra.matmul(ctx, x, y)
    order = stack + rows + columns
    return algebra.reshape(ctx, product, [size[c] for c in order]), "".join(order)
