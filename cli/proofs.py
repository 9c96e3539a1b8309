"""Proofs of monotonicity: a claim about slopes as a property file, and its proof."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli import files
from cli.options import MonotoneOptions

if TYPE_CHECKING:
    from verif.monotone import Monotone

TOLERANCE = "1e-9"  # a slope of exactly 0 is not more than 0 under rounding


def prove_slopes(
    model: Path, options: MonotoneOptions, ends: tuple[Sequence[float], Sequence[float]], results: Sequence[Monotone]
) -> None:
    """Write what holds of the results as a claim, and its proof; say on stderr what there is."""
    from verif import evidence
    from verif.checker import Refused
    from verif.verdict import Verdict

    held = [result for result in results if result.verdict is Verdict.HOLDS]
    if options.proof is None:
        return
    if not held:
        print("no proof was written: no feature's verdict is HOLDS", file=sys.stderr)
        return
    property = options.proof.with_suffix(".vnnlib")
    files.write(property, claim(ends, held))
    try:
        asked = evidence.Claim(model, property, options.output)
        written = evidence.write(options.proof, asked, None, time.monotonic() + (options.timeout or math.inf))
    except Refused as refused:
        print(f"no proof was written, the slopes are not confirmed in real arithmetic: {refused}", file=sys.stderr)
        return
    print(
        f"proof: {options.proof} ({written.leaves} leaves, {written.bytes} bytes); verify check {options.proof} "
        f"--model {model} --property {property} --slopes {options.output}",
        file=sys.stderr,
    )
    if written.why:
        print(f"it proves {written.share:.1%} of the box: {written.why}", file=sys.stderr)


def claim(ends: tuple[Sequence[float], Sequence[float]], held: Sequence[Monotone]) -> str:
    """VNN-LIB 1.0 whose outputs are slopes: unsafe is one of the wrong sign by more than the tolerance."""
    lower, upper = ends
    lines = [f"(declare-const {name}_{k} Real)" for name in "XY" for k in range(len(lower))]
    for k, (low, high) in enumerate(zip(lower, upper, strict=True)):
        lines += [f"(assert (>= X_{k} {low!r}))", f"(assert (<= X_{k} {high!r}))"]
    wrong = [
        f"(<= Y_{one.feature} -{TOLERANCE})" if one.sign > 0 else f"(>= Y_{one.feature} {TOLERANCE})" for one in held
    ]
    return "\n".join([*lines, f"(assert (or {' '.join(f'(and {one})' for one in wrong)}))"]) + "\n"
