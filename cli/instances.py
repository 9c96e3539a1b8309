"""What a batch is made of: the instances of a VNN-COMP instances.csv, of a folder, or of a job file."""

from __future__ import annotations

import ast
import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli import files
from cli.decide import stem
from cli.errors import UsageError
from cli.jobfile import TIMEOUT, read_job
from cli.options import BatchOptions, memory_bytes

if TYPE_CHECKING:
    from verif.batch.questions import Question, Settings


@dataclass(frozen=True)
class Instance:
    """A row of instances.csv; the only model of the ordinary form has the name ""."""

    models: tuple[tuple[str, Path], ...]
    property: Path
    timeout: float


def questions(what: Path, options: BatchOptions) -> Iterator[Question]:
    """The instances of a list (.csv), a job (.toml) or a folder. Raises UsageError where it is none of these."""
    from verif.batch.questions import Question, Settings

    device = "cuda" if options.devices else "cpu"
    settings = Settings(options.strategy, device, options.seed, memory_bytes(options.memory))
    if what.is_dir():
        yield from _folder(what, options, settings)
        return
    if what.suffix == ".toml":
        yield from read_job(files.require(what), options, settings)
        return
    if what.suffix != ".csv":
        help = {".db": f"verify report {what} shows it", ".onnx": f"verify {what}"}.get(files.require(what).suffix, "")
        kinds = "a list of instances (.csv), a job (.toml) or a folder"
        raise UsageError("C104", f"a batch is {kinds}, not '{what}'", help=help)
    for row in read_instances(files.require(what)):
        seconds = min(row.timeout, options.timeout or row.timeout)
        title = f"{', '.join(dict.fromkeys(stem(file) for _, file in row.models))} x {stem(row.property)}"
        yield Question(_category(row, what.parent), title, row.models, row.property, seconds, settings)


def _category(row: Instance, folder: Path) -> str:
    """The folder that a row's property and models share below its list's, or elsewhere; else the list's own."""
    files = row.property, *(file for _, file in row.models)
    shared = Path(os.path.relpath(os.path.commonpath([file.absolute().parent for file in files]), folder))
    parts = [part for part in shared.parts if part != os.pardir]
    return parts[-1 if os.pardir in shared.parts else 0] if parts else folder.resolve().name


def read_instances(path: Path) -> Iterator[Instance]:
    """Rows of an instances file. Raises UsageError C109 with file:line."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as source:
        reader = csv.reader(source, skipinitialspace=True)
        for row in reader:
            if not row or row[0].lstrip().startswith("#"):
                continue
            where = f"{path}:{reader.line_num}"
            if len(row) != 3:
                raise UsageError(
                    "C109", f"a row has three columns (onnx, vnnlib, timeout), not {len(row)}", where=where
                )
            onnx, vnnlib, timeout = (cell.strip() for cell in row)
            try:
                seconds = float(timeout)
            except ValueError:
                help = "a list has no head line" if reader.line_num == 1 else ""
                raise UsageError("C109", f"the timeout is not a number: '{timeout}'", where=where, help=help) from None
            models = tuple((name, path.parent / file) for name, file in _networks(onnx, where) or [("", onnx)])
            yield Instance(models, path.parent / vnnlib, seconds)


def _networks(cell: str, where: str) -> list[tuple[str, str]]:
    """The first column where it is a Python list of (name, file), as VNN-LIB 2.0 instances have it; else empty."""
    if not cell.startswith("["):
        return []
    try:
        pairs = [(str(name), str(file)) for name, file in ast.literal_eval(cell)]
    except (ValueError, SyntaxError, TypeError):
        raise UsageError("C109", "the first column is not a list of (name, file)", where=where) from None
    double = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if double:
        raise UsageError("C106", f"network '{double[0]}' is given twice", where=where)
    return pairs


def _folder(folder: Path, options: BatchOptions, settings: Settings) -> Iterator[Question]:
    """Every model of a folder (and of those in it) with every property."""
    from verif.batch.questions import Question

    models, properties = (
        [path for suffix in (end, f"{end}.gz") for path in sorted(folder.rglob(f"*{suffix}"))]
        for end in (".onnx", ".vnnlib")
    )
    if not models or not properties:
        raise UsageError("C117", "a folder needs models (.onnx) and properties (.vnnlib)", where=str(folder))
    for model in models:
        for property in properties:
            title = f"{stem(model)} x {stem(property)}"
            seconds = options.timeout or TIMEOUT
            yield Question(folder.resolve().name, title, (("", model),), property, seconds, settings)
