"""`verify check`: a proof against its model and property."""

from __future__ import annotations

import sys
from pathlib import Path

from cli import files
from cli.main import ERROR


def check_file(proof: Path, model: Path, property: Path) -> int:
    """Print what a proof shows and return 0 (holds) or 1 (violated); 2 where it is refused."""
    from verif.checker import Refused, check

    for path in (proof, model, property):
        files.require(path)
    try:
        shown = check(proof, model, property)
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return ERROR
    leaves = f", {shown.leaves} leaves" if shown.verdict == "holds" else ""
    print(f"{shown.verdict} in real arithmetic (proof of {shown.bytes} bytes{leaves})")
    return 0 if shown.verdict == "holds" else 1
