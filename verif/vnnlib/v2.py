"""VNN-LIB 2.0 through the syntax tree of the PyPI package `vnnlib` (its `compat` layer loses strictness and `==`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from verif.errors import PropertyError
from verif.networks import Networks
from verif.query import ARITHMETICS, Network, Property, Variable
from verif.vnnlib.compile import compile_source
from verif.vnnlib.declared import Declaration, Declared, match_networks, variables_of_query
from verif.vnnlib.formula import Builder, Formula, Polynomial, conjunction, disjunction
from verif.vnnlib.lexer import error_at
from verif.vnnlib.source import Source
from verif.vnnlib.v1 import combine

_SCIENTIFIC = re.compile(r'"[^"]*"|;[^\n]*|(?<![\w.\]])([+-]?(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+)(?![\w.])')
MOST_EXPONENT = 400  # of a decimal: beyond it a few characters would stand for thousands
_TYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16", "Unknown": "real"}
_COMPARE = {
    "LessEqual": "<=", "GreaterEqual": ">=", "LessThan": "<", "GreaterThan": ">", "Equal": "==", "NotEqual": "!=",
}  # fmt: skip
_CODES = {
    "UndeclaredVariable": "P102",
    "MultipleDeclaration": "P103",
    "TypeMismatch": "P105",
    "VariableShapeMismatch": "P104",
}


def read_second(text: bytes, file: str, given: Networks) -> tuple[Property, list[Network]]:
    """The property of a VNN-LIB 2.0 text, and its networks matched to the given ones."""
    query = _parse(text, file)
    declared = [_declared(network) for network in query.networks]
    matched = match_networks(declared, given, file)
    variables = variables_of_query(declared, matched, file)
    walker = _Walker(variables)
    try:
        formula = conjunction([walker.formula(assertion.expr) for assertion in query.assertions])
    except RecursionError:
        raise PropertyError("P107", "parentheses are nested too deeply", where=file) from None
    except PropertyError as error:
        raise PropertyError(error.code, error.message, where=file, notes=error.notes, help=error.help) from None
    source = Source(file, variables, walker.builder.table(), walker.builder.products, formula)
    property = replace(compile_source(source), arithmetic=_arithmetic(declared))
    return property, [match.network for match in matched]


def _arithmetic(declared: Sequence[Declared]) -> str:
    """What the inputs are declared to be, which the models agree with: real, or a float type."""
    types = {one.dtype for network in declared for one in network.of("input") if one.dtype in ARITHMETICS}
    return min(types, key=ARITHMETICS.index) if types - {"real"} and "real" not in types else "real"


def _parse(text: bytes, file: str) -> Any:
    import vnnlib

    decoded = text.decode("utf-8", "replace")
    try:
        plain = _SCIENTIFIC.sub(lambda match: _decimal(match[1]) if match[1] else match[0], decoded)
        return vnnlib.parse_query_string(plain)
    except vnnlib.VNNLibException as error:
        raise _error(str(error), text, file) from None
    except PropertyError as error:
        raise PropertyError(error.code, error.message, where=file) from None
    except UnicodeDecodeError as error:  # the package cuts a character in two when it quotes it
        message = bytes(error.object).decode("utf-8", "replace")
        raise _error(message, text, file) from None
    except (ValueError, IndexError) as error:  # numbers beyond what the package's C++ can hold
        raise PropertyError("P101", f"a number is out of range ({error})", where=file) from None


def _decimal(number: str) -> str:
    """The package reads no exponents: 1.5e-3 becomes 0.0015, exactly."""
    if abs(int(re.split("[eE]", number)[1])) > MOST_EXPONENT:
        raise PropertyError("P101", f"'{number:.40}' is out of range")
    plain = format(Decimal(number), "f")
    return plain if "." in plain else plain + ".0"


def _error(message: str, text: bytes, file: str) -> PropertyError:
    found = re.search(r"at line (\d+), column (\d+): '(.*)'", message, re.S)
    if found and not found[3]:
        return error_at("P101", "syntax error: the file ends too early", text, file, len(text.rstrip()))
    if found:
        line, column = int(found[1]), int(found[2])
        place = f"{file}:{line}:{column + (line > 1)}"  # the package counts columns from 0 after the first line
        return PropertyError("P101", f"syntax error: unexpected '{found[3]}'", where=place)
    try:
        first = json.loads(message)["errors"][0]
    except (ValueError, KeyError, IndexError):
        return PropertyError("P101", f"the query cannot be read: {message}", where=file)
    symbol, line = first.get("offendingSymbol", ""), max(int(first.get("line", 1)), 1)
    lines = text.split(b"\n")
    start = sum(len(previous) + 1 for previous in lines[: line - 1])
    column = max(lines[line - 1].find(symbol.split("[")[0].encode()), 0) if line <= len(lines) else 0
    code = _CODES.get(first.get("errorCode", ""), "P101")
    sentence = f"{first.get('message', 'error').lower()}: '{symbol}'"
    return error_at(code, sentence, text, file, start + column, notes=[n for n in (first.get("hint"),) if n])


def _declared(network: Any) -> Declared:
    def each(items: Sequence[Any], kind: str) -> tuple[Declaration, ...]:
        return tuple(
            Declaration(
                item.name,
                kind,
                tuple(item.shape),
                _TYPES.get(item.dtype.name, item.dtype.name.lower()),
                (item.onnx_name or "").strip('"'),
            )
            for item in items
        )

    return Declared(
        network.name,
        network.equal_to,
        each(network.inputs, "input") + each(network.hidden, "hidden") + each(network.outputs, "output"),
    )


@dataclass
class _Walker:
    """Turns the syntax tree into a formula."""

    variables: Sequence[Variable]

    def __post_init__(self) -> None:
        firsts = np.cumsum([0, *(v.size for v in self.variables)]).tolist()
        self.places = {v.name: (first, v.indices) for v, first in zip(self.variables, firsts, strict=False)}
        self.builder = Builder(firsts[-1])
        self.terms: dict[str, Callable[[Any], Polynomial]] = {
            "Var": self._variable,
            "Float": _number,
            "Int": _number,
            "IntExpr": _number,
            "Literal": _number,
            "Negate": lambda node: combine("-", [self.term(node.expr)]),
            "Plus": lambda node: combine("+", [self.term(a) for a in node.args]),
            "Minus": lambda node: combine("-", [self.term(a) for a in (node.head, *node.rest)]),
            "Multiply": lambda node: combine("*", [self.term(a) for a in node.args]),
        }

    def formula(self, node: Any) -> Formula:
        name = type(node).__name__
        if name in _COMPARE:
            return self.builder.compare(_COMPARE[name], self.term(node.lhs), self.term(node.rhs))
        parts = [self.formula(part) for part in node.args]
        return conjunction(parts) if name == "And" else disjunction(parts)

    def term(self, node: Any) -> Polynomial:
        return self.terms[type(node).__name__](node)

    def _variable(self, node: Any) -> Polynomial:
        first, shape = self.places[node.name]
        index = node.indices
        if index and min(index) < 0:
            raise PropertyError("P102", f"'{node.name}' has no entry {list(index)}")
        return {(first + (int(np.ravel_multi_index(index, shape)) if index else 0),): 1.0}


def _number(node: Any) -> Polynomial:
    return {(): float(node.lexeme)}
