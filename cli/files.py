"""Files: found before the run, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from cli.errors import UsageError


def require(path: Path) -> Path:
    """The path of a file that must be readable; UsageError otherwise (before torch is imported)."""
    if path.is_dir():
        raise UsageError("C107", "this is a folder, not a file", where=str(path))
    if not path.exists():
        near = _similar(path)
        raise UsageError("C107", "no such file", where=str(path), help=f"did you mean {near}?" if near else "")
    if not os.access(path, os.R_OK):
        raise UsageError("C107", "this file may not be read", where=str(path))
    return path


def require_writable(*paths: Path | None) -> None:
    """UsageError unless each path can be written; leaves everything as it was."""
    for path in filter(None, paths):
        if path.is_dir():
            raise UsageError("C108", "cannot write here: this is a folder", where=str(path))
        if not path.parent.is_dir():
            raise UsageError("C108", "cannot write here: the folder does not exist", where=str(path))
        if path.exists() and not os.access(path, os.W_OK):
            raise UsageError("C108", "cannot write here: the file is read-only", where=str(path))
        if not path.exists():
            probe = _beside(path)
            try:
                probe.touch()
                probe.unlink()
            except OSError as error:
                raise _refused(path, error) from None


def write(path: Path, data: str | bytes) -> None:
    """Replace a file's content in one step, so that a reader never sees half of it."""
    raw = data.encode() if isinstance(data, str) else data
    if path.exists() and not path.is_file():
        path.write_bytes(raw)  # a pipe or a device is written straight
        return
    temporary = _beside(path)
    try:
        temporary.write_bytes(raw)
        os.replace(temporary, path)
    except OSError as error:
        raise _refused(path, error) from None
    finally:  # also after Ctrl-C
        temporary.unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> UsageError:
    return UsageError("C108", f"cannot write here: {(error.strerror or 'refused').lower()}", where=str(path))


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _similar(path: Path) -> str:
    from difflib import get_close_matches

    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    return "".join(str(path.with_name(name)) for name in get_close_matches(path.name, names, 1))
