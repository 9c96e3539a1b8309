"""The generated pages of reference: docs/commands.md from the command tree, docs/python.md from public docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

MODULES = (
    "verif.properties",
    "verif.testing",
    "verif.training",
    "verif.losses",
    "verif.nn",
    "verif.attention",
    "verif.counterexample",
)


def commands() -> str:
    """Every command with its arguments and flags, from the functions and the classes of flags."""
    from cli.app import app

    lines = ["# Commands\n", "`verify COMMAND --help` says the same on a terminal.\n"]
    lines += ["## verify FILE [PROPERTY]\n", *_about(app.default_command), *_flags(app)]
    for name in app:
        if not name.startswith("-") and app[name].show:
            lines += [f"## verify {name}\n", *_about(app[name].default_command), *_flags(app[name])]
    lines += ["## Files, variables and exit codes\n"]
    lines += [str(app.help_epilogue), ""]
    return "\n".join(lines)


def _about(function: Any) -> list[str]:
    """What a docstring says before its parameters."""
    return [inspect.cleandoc(function.__doc__).partition("\nParameters\n")[0].rstrip(), ""]


def _flags(command: Any) -> list[str]:
    lines = ["| argument or flag | meaning |", "|---|---|"]
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if not argument.show:
            continue
        name, choices = argument.name, argument.get_choices()
        meaning = cell(" ".join(str(argument.parameter.help or "").split()))
        meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""
        default = argument.field_info.default
        if isinstance(default, int | float | str) and not isinstance(default, bool) and default != "":
            meaning += f" Without it `{default}`."
        lines.append(f"| `{name}`{' (needed)' if argument.required else ''} | {meaning} |")
    return [*lines, ""]


def python() -> str:
    """The public names of `verif` and of its modules, from their docstrings."""
    import verif

    lines = ["# Python\n", "What `import verif` offers; `help(verif.verify)` says the same.\n"]
    for name in sorted(verif._PUBLIC, key=str.lower):
        lines += [f"## verif.{name}\n", *_entry(getattr(verif, name), f"verif.{name}")]
    for name in MODULES:
        module = import_module(name)
        lines += [f"## {name}\n", f"{first(module)}\n", "| name | meaning |", "|---|---|"]
        lines += [f"| `{own}` | {cell(first(value))} |" for own, value in _public(module)]
        lines.append("")
    return "\n".join(lines)


def _entry(value: Any, name: str) -> list[str]:
    lines = [f"```text\n{_signature(value, name)}\n```\n", inspect.cleandoc(value.__doc__ or ""), ""]
    if inspect.isclass(value):
        methods = [(own, getattr(value, own)) for own in sorted(vars(value)) if not own.startswith("_")]
        rows = [f"| `{own}` | {cell(first(held))} |" for own, held in methods if _documented(held)]
        lines += ["| method | meaning |", "|---|---|", *rows, ""] if rows else []
    return [line.replace("<", "&lt;") if not line.startswith("```") else line for line in lines]


def _signature(value: Any, name: str) -> str:
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    parts = [str(part).replace("'", "") for part in found.parameters.values()]
    whole = f"{name}({', '.join(parts)})"
    return whole if len(whole) <= 100 else f"{name}(\n    " + ",\n    ".join(parts) + ",\n)"


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions and classes that a module defines or gives on."""
    for name in getattr(module, "__all__", None) or sorted(vars(module), key=str.lower):
        value = getattr(module, name)
        here = str(getattr(value, "__module__", "")).startswith(module.__name__)
        if not name.startswith("_") and here and (inspect.isclass(value) or inspect.isfunction(value)):
            yield name, value


def _documented(value: Any) -> bool:
    return bool(inspect.isfunction(value) or isinstance(value, property | classmethod)) and bool(value.__doc__)


def first(value: Any) -> str:
    """The first paragraph of a docstring."""
    return " ".join(inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0].split())


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")
