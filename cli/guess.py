"""What a command line may have meant that asks for nothing: errors that name the command to type."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from cli.errors import UsageError

_EXPORT = "torch.onnx.export(model, x, 'model.onnx') writes the file that verify reads"
_HELP = {
    ".pt": _EXPORT,
    ".pth": _EXPORT,
    ".pt2": "for a file of yours: torch.onnx.export(torch.export.load('model.pt2').module(), x, 'model.onnx')",
    ".npy": "verify MODEL.onnx --input {}",
    ".npz": "verify accuracy MODEL.onnx --data {} --eps 0.01",
    ".toml": "verify batch {}",
    ".db": "verify report {} --html report.html",
    ".h5": "tf2onnx writes .onnx files of TensorFlow's models",
    ".keras": "tf2onnx writes .onnx files of TensorFlow's models",
}


def first_file(first: Path, second: Path | None, commands: Sequence[str]) -> UsageError:
    """The error for a first word that is no model, query or list."""
    help = _HELP.get(first.suffix.lower(), "").format(shlex.quote(str(first)))
    if first.is_dir():
        help = f"verify batch {shlex.quote(str(first))} asks every model in it with every property"
    elif second is not None and second.suffix.lower() == ".onnx":
        help = f"the model comes first: verify {shlex.quote(str(second))} {shlex.quote(str(first))}"
    elif not first.exists() and (near := get_close_matches(first.name, commands, 1)):
        help = f"did you mean verify {near[0]}?"
    why = f"the first file decides what to do, and '{first}' has none of the suffixes .onnx, .vnnlib, .csv"
    if first.suffix.lower() == ".pt2":
        why = f"'{first}' is not read: torch unpickles such files, which can run code (docs/trust.md)"
    return UsageError("C104", why, help=help or "verify --help lists the commands")


def require_property(model: Path, property: Path) -> None:
    """UsageError where the second file is plainly something else than a property."""
    name, other = shlex.quote(str(model)), shlex.quote(str(property))
    help = {
        ".npy": f"verify {name} --input {other} --eps 0.01",
        ".npz": f"verify accuracy {name} --data {other} --eps 0.01",
        ".csv": f"verify batch {other}",
        ".onnx": f"verify QUERY.vnnlib --network f={name} --network g={other}",
    }.get(property.suffix.lower())
    if property.is_dir():
        help = f"verify batch {other} asks every model in it with every property"
    if help is not None:
        raise UsageError("C104", f"'{property}' is no property (.vnnlib)", help=help)
