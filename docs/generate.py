"""Write the generated pages: docs/ops.md from the op tables, docs/errors.md from the errors that the code raises,
docs/commands.md and docs/python.md from the command tree and public docstrings, docs/certified.md and its picture from
examples/certified.json (what `examples/certified.py --json` wrote), and the table of bounds in README.md from
benchmarks/bounds.json (what `benchmarks/bounds.py --json` wrote).

`python docs/generate.py` writes them, `python docs/generate.py --check` exits 1 where one is out of date.
"""

from __future__ import annotations

import ast
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import methods
import reference

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("graphs", "relaxations", "verif", "cli")
_MADE = "<!-- made by docs/generate.py; do not edit -->\n"
_FAMILIES = {
    "B": "batches",
    "C": "command line",
    "G": "graph: the model",
    "P": "property",
    "R": "relaxation",
    "V": "engine and replay",
}


def ops() -> str:
    """The op table, how each op is bounded, and the operators of ONNX and torch that are read."""
    from graphs.exported.importer import CONVERTERS
    from graphs.onnx import supported
    from graphs.ops import OPS
    from relaxations import RULES

    lines = [_MADE, "# Ops\n", "What a graph may hold, and how it is bounded. One row of `graphs.ops.OPS` each.\n"]
    lines += ["| op | kind | bounded by | meaning |", "|---|---|---|---|"]
    for name in sorted(OPS):
        rule = type(RULES[name]).__name__ if name in RULES else "(no rule)"
        lines.append(f"| `{name}` | {OPS[name].kind.value} | `{rule}` | {_cell(OPS[name].summary)} |")
    operators = supported()
    lines += ["", "# ONNX operators\n", f"{len(operators)} operators are read; the numbers are the opsets since which"]
    lines += ["a converter applies (it then holds until the next number).\n", "| operator | since opset |", "|---|---|"]
    lines += [f"| {name} | {', '.join(map(str, since))} |" for name, since in operators.items()]
    lines += ["", "# Operators of torch modules\n"]
    names = sorted({name.split(".")[1] for name in CONVERTERS if not name.startswith("aten._")})
    lines += [
        "What `torch.export` calls them. One that is not here is read in the pieces that torch's own decompositions"
    ]
    lines += ["make of it, where all of these are here; changes in place (`relu_`) are read where they can be.\n"]
    lines += textwrap.wrap(", ".join(name for name in names if not name.endswith("_")) + ".", 120)
    return "\n".join(lines) + "\n"


def errors() -> str:
    """Every code with the sentences it stands for."""
    found: dict[str, dict[str, None]] = {}
    for code, message in _raised():
        found.setdefault(code, {})[message] = None
    lines = [
        _MADE,
        "# Error codes\n",
        "A code stays what it is; `...` stands for your own names and numbers. Every error",
    ]
    lines += ["has exit code 2, is no verdict, and leaves files as they were.\n"]
    for letter, family in _FAMILIES.items():
        codes = sorted(code for code in found if code.startswith(letter))
        if codes:
            lines += [f"## {letter}: {family}\n", "| code | says |", "|---|---|"]
            lines += [f"| {code} | {'<br>'.join(_cell(message) for message in found[code])} |" for code in codes]
            lines.append("")
    return "\n".join(lines)


def readme() -> str:
    """README.md with the measured table between its marks; as it is where nothing was measured."""
    from benchmarks.table import insert

    page, measured = (ROOT / "README.md").read_text(encoding="utf-8"), ROOT / "benchmarks" / "bounds.json"
    return insert(page, json.loads(measured.read_text(encoding="utf-8"))) if measured.exists() else page


def _raised() -> Iterator[tuple[str, str]]:
    """(code, message) of every call whose first arguments are a code and a sentence."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or len(node.args) < 2 or not isinstance(node.args[0], ast.Constant):
                    continue
                code, message = node.args[0].value, _sentence(node.args[1])
                if isinstance(code, str) and len(code) == 4 and code[0] in _FAMILIES and code[1:].isdigit() and message:
                    yield code, message


def _sentence(node: ast.expr) -> str:
    """A string or f-string as text, its values as `...`."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_sentence(part) or "..." for part in node.values)
    return ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


PAGES = {
    "docs/ops.md": ops,
    "docs/errors.md": errors,
    "docs/commands.md": lambda: _MADE + reference.commands(),
    "docs/python.md": lambda: _MADE + reference.python(),
    "docs/certified.md": lambda: _MADE + methods.page(),
    "docs/certified.svg": methods.picture,
    "README.md": readme,
}


def main() -> int:
    """Write or check."""
    stale = []
    for name, make in PAGES.items():
        path, page = ROOT / name, make()
        if "--check" not in sys.argv:
            path.write_text(page, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            stale.append(name)
    for name in stale:
        print(f"{name} is out of date: run `python docs/generate.py`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
