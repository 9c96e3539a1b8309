"""`verify check`: a proof against its model and property."""

from __future__ import annotations

import sys
from pathlib import Path

from cli import files
from cli.main import ERROR

UNKNOWN = 3


def check_file(proof: Path, model: Path, property: Path, slopes: int | None = None) -> int:
    """Print what a proof shows and return 0 (holds), 1 (violated) or 3 (holds on a share of the inputs); 2 where it is
    refused.
    """
    from verif.checker import Refused, check

    for path in (proof, model, property):
        files.require(path)
    try:
        shown = check(proof, model, property, slopes)
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return ERROR
    about = "" if slopes is None else f" of the slopes of output {slopes}"
    leaves = "" if shown.verdict == "violated" else f", {shown.leaves} leaves"
    if shown.verdict == "incomplete":
        share = f"{shown.share:.1%} of the input set"
        print(f"incomplete: holds{about} on {share}, in real arithmetic (proof of {shown.bytes} bytes{leaves})")
        return UNKNOWN
    print(f"{shown.verdict}{about} in real arithmetic (proof of {shown.bytes} bytes{leaves})")
    return 0 if shown.verdict == "holds" else 1
